"""Counts requests in the API server's audit log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """One request as it was answered."""

    user: str
    impersonated: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    code: int
    at: str
    uri: str


class Audit:
    """The log of one API server."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def mark(self) -> int:
        """The place where the log ends now."""
        return self._log.stat().st_size

    def since(self, mark: int, *, user: str = "", namespace: str = "") -> list[Request]:
        """All requests after a mark, of one user or in one namespace; watches are left out."""
        return [
            request
            for request in self._read(mark)
            if (not user or request.user == user)
            and (not namespace or request.namespace == namespace)
            and request.verb != "watch"
        ]

    def _read(self, mark: int) -> Iterator[Request]:
        with self._log.open("rb") as log:
            log.seek(mark)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                entry = json.loads(line)
                about = entry.get("objectRef", {})
                yield Request(
                    user=entry["user"].get("username", ""),
                    impersonated=(entry.get("impersonatedUser") or {}).get("username", ""),
                    verb=entry["verb"],
                    resource=about.get("resource", ""),
                    subresource=about.get("subresource", ""),
                    namespace=about.get("namespace", ""),
                    name=about.get("name", ""),
                    code=entry.get("responseStatus", {}).get("code", 0),
                    at=entry["stageTimestamp"],
                    uri=entry["requestURI"],
                )
