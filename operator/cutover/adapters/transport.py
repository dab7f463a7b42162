"""The port `Transport`, one HTTP request in and one response out, and the real one: sessions of aiohttp that log in.

Nothing here knows what an answer means; `api_client.py` does, and is who calls this. Tests put a transport of their own in
its place to inject faults below everything that the operator itself does with requests and answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp
from yarl import URL

from cutover.adapters.connection import Credentials, connect
from cutover.adapters.shares import CONNECTIONS, STREAMS, Shares
from cutover.errors import Unavailable
from cutover.names import ApiPath

LARGEST: Final = 16 * 2**20
"""Bytes of one answer, at most: etcd takes objects of 1.5 MiB, and each of their bytes may take six (as in ``\\u003c``)."""
_DEEPEST: Final = 20_000
"""How deep Python may recurse. The API server takes objects nested 10,000 deep where a definition keeps unknown fields (ours
keeps none), and where Python ends at its default of 1,000, one such object would end the stream of all (tried on 3.11).
"""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to the API server.

    Attributes:
        path: from the root of the server, without the query; of `names.path`, so that no name in it leads elsewhere.
        params: the query.
        body: None sends none.
        largest: bytes of the answer, at most.
    """

    method: str
    path: ApiPath
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    largest: int = LARGEST


@dataclass(frozen=True, slots=True)
class Response:
    """What came back.

    Attributes:
        login: the number of the login that the request was sent with, for `Transport.log_in_again`.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    login: int = 0


class TooLarge(Unavailable):
    """The answer is larger than the request allows. Its effect is unknown, but only lists have such answers."""


class Transport(Protocol):
    """Carries requests to the API server as the operator, and answers back."""

    async def send(self, request: Request) -> Response:
        """Send one request.

        Raises:
            Unavailable: no answer came; the request may or may not have taken effect.
            TooLarge: it was too large.
        """

    async def log_in_again(self, login: int) -> None:
        """Get fresh credentials, unless another request has done so since this login."""

    def lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that continues; ends without an error when contact is lost."""

    async def close(self) -> None:
        """Close all connections."""


class HttpTransport:
    """The port `Transport` over HTTP.

    Args:
        log_in: finds fresh credentials; called at the first request and after a 401, because tokens are rotated.
        traces: see every request.
    """

    def __init__(self, log_in: Callable[[], Credentials], traces: Sequence[aiohttp.TraceConfig] = ()) -> None:
        self._log_in, self._traces = log_in, list(traces)
        self._session: aiohttp.ClientSession | None = None
        self._former: aiohttp.ClientSession | None = None
        self._logging_in = asyncio.Lock()
        self._login = 0
        self._server = ""
        self._shares = Shares()

    async def log_in_again(self, login: int) -> None:
        """Connect with fresh credentials, unless another request has done so since this login."""
        await self._open(login)

    async def _open(self, instead_of: int) -> aiohttp.ClientSession:
        """A session that is not of this login.

        The session that is replaced stays open until the next time, because other requests may still be under way on it.
        """
        async with self._logging_in:
            if self._session is not None and self._login != instead_of:
                return self._session
            if self._former is not None:
                await self._former.close()
            sys.setrecursionlimit(max(_DEEPEST, sys.getrecursionlimit()))
            credentials = self._log_in()
            self._server = credentials.server.rstrip("/")
            self._former, self._session = self._session, connect(credentials, self._traces, CONNECTIONS + STREAMS)
            self._login += 1
            return self._session

    async def send(self, request: Request) -> Response:
        """Send one request, once there is a place for it. Raises Unavailable, TooLarge."""
        async with self._shares.place():
            return await self._send(request)

    async def _send(self, request: Request) -> Response:
        session = self._session or await self._open(self._login)
        login = self._login  # nothing is awaited in between: it is this session's
        content: dict[str, Any] = {"headers": request.headers, "allow_redirects": False}
        if request.body is not None:
            content["data"] = request.body
        try:
            async with session.request(request.method, self._url(request), **content) as response:
                return Response(response.status, response.headers, await _read(request, response), login)
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:  # RuntimeError: closed while in use
            raise Unavailable(f"{request.method} {request.path}: {_cause(error)}") from error

    async def lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that continues; of the usual limits of time only that of connecting applies."""
        session, timeout = self._session or await self._open(self._login), aiohttp.ClientTimeout(sock_connect=5)
        url = self._url(request)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(url, headers=request.headers, timeout=timeout, allow_redirects=False) as response:
                async for line in response.content:
                    yield line

    def _url(self, request: Request) -> URL:
        """What goes over the wire, to the letter.

        Of a text yarl would make another one: it decodes ``%2e%2e`` and then goes up by one segment. Nor is a redirect
        followed: the API server sends none, and whoever else does would choose the path.
        """
        return URL(self._server + request.path, encoded=True).with_query(request.params)

    async def close(self) -> None:
        """Close all connections."""
        for session in (self._session, self._former):
            if session is not None:
                await session.close()
        self._session = self._former = None


async def _read(request: Request, response: aiohttp.ClientResponse) -> bytes:
    """The body, no further than it may be long: an answer is unpacked as it is read, and nobody promises its length."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > request.largest:
            limit = f"{request.largest / 2**20:g} MiB"
            raise TooLarge(f"{request.method} {request.path}: the answer is larger than {limit}")
        parts.append(part)
    return b"".join(parts)


def _cause(error: Exception) -> str:
    """Why no answer came, in plain words; the order matters, for these errors are kinds of each other."""
    match getattr(error, "os_error", error), error:
        case TimeoutError(), _:
            return "timed out"
        case ConnectionRefusedError(), _:
            return "connection refused"
        case _, aiohttp.ClientSSLError():
            return "the TLS connection failed"
        case _, aiohttp.ClientConnectorDNSError():
            return "its host name cannot be resolved"
        case _, aiohttp.ClientConnectorError():
            return "cannot connect"
        case _, aiohttp.ServerDisconnectedError() | OSError():
            return "connection lost"
    return type(error).__name__
