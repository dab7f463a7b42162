"""An API server of a test's own, over real HTTP, and the operator's transport to it: one function answers every request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.test_utils import TestServer

from cutover.adapters.transport import HttpTransport


class Login:
    """Credentials for a server that wants none."""

    proxy_url = ""

    def __init__(self, server: str) -> None:
        self.server = server

    def as_ssl_context(self) -> bool:
        return False

    def as_http_headers(self) -> Mapping[str, str]:
        return {}


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], login: type[Login] = Login
) -> AsyncIterator[HttpTransport]:
    """Serve until the end of the context. No path is too odd to be answered, be there a line break in it."""
    app = web.Application()
    app.router.add_route("*", r"/{rest:[\s\S]*}", answer)
    async with TestServer(app) as server:
        transport = HttpTransport(lambda: login(str(server.make_url("")).rstrip("/")))  # type: ignore[arg-type,return-value]
        yield transport
        await transport.close()
