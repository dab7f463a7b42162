"""What a route of a VirtualService matches, and what it is called. Pure; used by `virtual_services.py` and its warnings."""

from __future__ import annotations

from collections.abc import Iterable

from cutover.field_path import Json, Segment
from cutover.routing.branches import Match


def criteria(match: Match) -> dict[str, Json]:
    """The headers of a match, as a route writes them."""
    return {name: value.model_dump(exclude_none=True) for name, value in match.headers.items()}


def called(protocol: str, route: Json, names: Iterable[str | int]) -> str:
    """Its name in messages: ``primary``, ``(unnamed)``, ``tcp port 5432``, ``tls db.example``."""
    if protocol == "http":
        return route.get("name") or "(unnamed)"
    known = sorted(map(str, names))
    return f"{protocol}{' port' if known and protocol == 'tcp' else ''} {' '.join(known) or '(any)'}"


def names_of(protocol: str, route: Json) -> set[Json]:
    """The names by which a plan may refer to it."""
    if protocol == "http":
        return {route["name"]} if route.get("name") else set()
    return {one for entry in route.get("match") or () for one in _told_by(protocol, entry)}


def _told_by(protocol: Segment, entry: Json) -> list[Json]:
    """The names of one entry of a match: its port (tcp), or its SNI hosts (tls)."""
    if protocol == "tls":
        return list(entry.get("sniHosts") or ())
    return [entry["port"]] if "port" in entry else []
