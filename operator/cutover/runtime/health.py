"""``/livez``, ``/readyz`` and ``/metrics``. Alive is a loop that turns and tries; ready is a process that can read plans.

`/livez` never fails because the API server is away: restarting would not bring it back, and would lose what is in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from aiohttp import web

from cutover.errors import OutsideError
from cutover.ports import PLANS, Cluster

log = logging.getLogger(__name__)

_LAG: Final = 10.0
"""Seconds the loop may be late before the process counts as hung."""
_PATIENCE: Final = 120.0
"""Seconds after which something that should have been tried again counts as hung."""
STREAM: Final = 270
"""Seconds a stream of the API server lives before it is begun anew."""


class ApiActivity:
    """Whether Kopf tries to reach the API server at all, answered or not. Fed by each of its requests."""

    def __init__(self) -> None:
        self._tried: float | None = None
        self._answered = True

    def request_sent(self) -> None:
        """A request is sent."""
        self._tried = asyncio.get_running_loop().time()

    def request_ended(self, *, answered: bool) -> None:
        """A request is over."""
        self._answered = answered

    def hung_reason(self, now: float) -> str:
        """Why whatever should try must hang; empty when it does not.

        Streams live for a while, so silence is no sign as long as the last request was answered; but they are begun anew.
        """
        if self._tried is None:
            return ""  # a standby has no streams
        silent = now - self._tried
        limit = _PATIENCE if not self._answered else STREAM + _PATIENCE
        return f"the API server was not tried for {silent:.0f}s" if silent > limit else ""


class Readiness:
    """Whether this process can read plans. A standby is ready too: it can take over at once.

    Args:
        cluster: where plans are.
        namespaces: those that are watched; empty for all.
        lease_problem: why the Lease cannot be reached; empty when it can.
    """

    def __init__(self, cluster: Cluster, namespaces: Sequence[str], lease_problem: Callable[[], str]) -> None:
        self._cluster, self._namespace = cluster, next(iter(namespaces), "default")
        self._lease_problem = lease_problem
        self._readable = False

    async def run(self) -> None:
        """Try to read plans until it works once: from then on the streams say what is wrong."""
        while not self._readable:
            try:
                await self._cluster.list(PLANS, self._namespace)
                self._readable = True
            except OutsideError as error:
                log.warning("plans cannot be read yet", extra={"why": str(error)})
                await asyncio.sleep(1)

    def unready_reason(self) -> str:
        """Why it is not ready; empty when it is."""
        return self._lease_problem() if self._readable else "plans cannot be read yet"


class Health:
    """Serves the probes and the metrics.

    Args:
        port: to listen on; 0 takes a free one, and `port` says which once it listens.
        ready: why the process is not ready; empty when it is.
        activity: of Kopf with the API server.
        metrics: all of them, for a scraper's Accept header, with their content type.
        host: the address to listen on; None for every one.
    """

    def __init__(
        self,
        port: int,
        ready: Callable[[], str],
        activity: ApiActivity,
        metrics: Callable[[str], tuple[bytes, str]],
        host: str | None = None,
    ) -> None:
        self.port, self._ready, self._activity, self._text, self._host = port, ready, activity, metrics, host
        self._beat = 0.0

    async def run(self) -> None:
        """Serve until cancelled."""
        app = web.Application()
        routes = {"/livez": self._livez, "/readyz": self._readyz, "/metrics": self._metrics}
        app.add_routes([web.get(path, handler) for path, handler in routes.items()])
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
        now = asyncio.get_running_loop().time()
        late = now - self._beat
        why = f"the loop is {late:.0f}s late" if late > _LAG else self._activity.hung_reason(now)
        return web.Response(status=500, text=f"{why}\n") if why else web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why = self._ready()
        return web.Response(status=503, text=f"{why}\n") if why else web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        text, content_type = self._text(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})
