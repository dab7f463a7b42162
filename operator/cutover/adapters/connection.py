"""How the API server is reached: credentials, and a session that logs in with them. Used by `transport.py`, and by `app.py` for Kopf."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Sequence
from ssl import SSLContext
from typing import Final, Protocol

import aiohttp

_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, connect=5)


class Credentials(Protocol):
    """How to reach the API server; Kopf's `ConnectionInfo` is one."""

    @property
    def server(self) -> str:
        """Its address."""

    @property
    def proxy_url(self) -> str | None:
        """Through which proxy, if any."""

    def as_ssl_context(self) -> SSLContext:
        """Whom to trust, and the client's certificate."""

    def as_http_headers(self) -> dict[str, str]:
        """The authorization."""


def connect(credentials: Credentials, traces: Sequence[aiohttp.TraceConfig], limit: int) -> aiohttp.ClientSession:
    """A session that logs in with these credentials, of at most so many connections; 0 means no limit."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=credentials.as_ssl_context(), limit=limit, keepalive_timeout=90),
        headers=credentials.as_http_headers(),
        timeout=_TIMEOUT,
        proxy=credentials.proxy_url or _proxy(credentials.server),
        trace_configs=list(traces),
    )


def _proxy(server: str) -> str | None:
    """The proxy that the environment names for this server, looked up once.

    With `trust_env` aiohttp would look for each request, in a thread, and put a password from .netrc in place of our token.
    """
    parts = urllib.parse.urlsplit(server)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return None
    return urllib.request.getproxies_environment().get(parts.scheme)
