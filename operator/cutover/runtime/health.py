"""``/livez`` and ``/readyz``. Alive is a loop that turns; ready is a process that can read plans.

`/livez` never fails because the API server is away: restarting would not bring it back, and would lose what is in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

_LAG: Final = 10.0
"""Seconds the loop may be late before the process counts as hung."""


class Health:
    """Serves the probes.

    Args:
        port: to listen on; 0 takes a free one, and `port` says which once it listens.
        ready: why the process is not ready; empty when it is.
        host: the address to listen on; None for every one.
    """

    def __init__(self, port: int, ready: Callable[[], str], host: str | None = None) -> None:
        self.port, self._ready, self._host = port, ready, host
        self._beat = 0.0

    async def run(self) -> None:
        """Serve until cancelled."""
        app = web.Application()
        app.add_routes([web.get("/livez", self._livez), web.get("/readyz", self._readyz)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self.port)
            await site.start()
            self.port = runner.addresses[0][1]
            while True:
                self._beat = asyncio.get_running_loop().time()
                await asyncio.sleep(1)
        finally:
            await runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        late = asyncio.get_running_loop().time() - self._beat
        if late > _LAG:
            return web.Response(status=500, text=f"the loop is {late:.0f}s late\n")
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = self._ready()
        return web.Response(status=503, text=f"{why}\n") if why else web.Response(text="ok\n")
