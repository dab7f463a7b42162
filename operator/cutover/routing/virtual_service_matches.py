"""What a route of a VirtualService matches. Pure; used by `virtual_services.py` and its warnings."""

from __future__ import annotations

from typing import Final

from cutover.field_path import Json
from cutover.routing.branches import Match

ANY_PATH: Final = {"prefix": "/"}


def criteria(match: Match) -> dict[str, Json]:
    """The headers of a match, as a route writes them."""
    return {name: value.model_dump(exclude_none=True) for name, value in match.headers.items()}


def takes_all(route: Json) -> bool:
    """Whether a route matches every request."""
    return not route.get("match") or any(
        not entry.keys() - {"name", "uri"} and entry.get("uri", ANY_PATH) == ANY_PATH for entry in route["match"]
    )
