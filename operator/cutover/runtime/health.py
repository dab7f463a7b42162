"""Serves ``/livez``, ``/readyz`` and ``/metrics``. Alive: the event loop runs and keeps trying. Ready: plans can be read and run.

`/livez` never fails because the API server is down: a restart would not bring it back, and would lose what is in memory. Called by app.py.
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
"""Seconds the event loop may be late before the process counts as hung."""
_PATIENCE: Final = 120.0
"""Seconds without a retry after which Kopf counts as hung."""
STREAM: Final = 270
"""Seconds that a watch lives before it is opened again."""


class ApiActivity:
    """Whether Kopf still sends requests to the API server, answered or not. Fed by each of its requests."""

    def __init__(self) -> None:
        self._tried: float | None = None
        self._answered = True

    def request_sent(self) -> None:
        """A request was sent."""
        self._tried = asyncio.get_running_loop().time()

    def request_ended(self, *, answered: bool) -> None:
        """A request got its answer, or failed without one."""
        self._answered = answered

    def hung_reason(self, now: float) -> str:
        """Why Kopf must be hung; empty when it is not.

        After an answered request, silence is normal for as long as a watch lives; after a failed one a retry is due soon.
        """
        if self._tried is None:
            return ""  # a standby has no streams
        silent = now - self._tried
        limit = _PATIENCE if not self._answered else STREAM + _PATIENCE
        return f"no request was sent to the API server for {silent:.0f}s" if silent > limit else ""


class Readiness:
    """Whether this process can read plans. A standby is ready too: it can take over at once.

    Args:
        cluster: where plans are.
        namespaces: those that are watched; empty for all.
        problems: each says why the process cannot do its work; empty when it can. The first counts.
    """

    def __init__(self, cluster: Cluster, namespaces: Sequence[str], *problems: Callable[[], str]) -> None:
        self._cluster, self._namespace = cluster, next(iter(namespaces), "default")
        self._problems = problems
        self._readable = False

    async def run(self) -> None:
        """Try to read plans until it works once; after that, problems show in the streams."""
        while not self._readable:
            try:
                await self._cluster.list(PLANS, self._namespace)
                self._readable = True
            except OutsideError as error:
                log.warning("plans cannot be read yet", extra={"why": str(error)})
                await asyncio.sleep(1)

    def unready_reason(self) -> str:
        """Why it is not ready; empty when it is."""
        if not self._readable:
            return "plans cannot be read yet"
        return next((why for problem in self._problems if (why := problem())), "")


class Health:
    """Serves the probes and the metrics.

    Args:
        port: to listen on; 0 picks a free one, and `port` has it once the server listens.
        readiness: why the process is not ready, empty when it is; and what else there is to say.
        activity: requests of Kopf to the API server.
        metrics: renders all metrics for a scraper's Accept header, with their content type.
        host: the address to listen on; None for all.
    """

    def __init__(
        self,
        port: int,
        readiness: Callable[[], tuple[str, str]],
        activity: ApiActivity,
        metrics: Callable[[str], tuple[bytes, str]],
        host: str | None = None,
    ) -> None:
        self.port, self._host = port, host
        self._readiness, self._activity, self._text = readiness, activity, metrics
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
        why = f"the event loop is {late:.0f}s late" if late > _LAG else self._activity.hung_reason(now)
        return web.Response(status=500, text=f"{why}\n") if why else web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        why, remark = self._readiness()
        return web.Response(status=503, text=f"{why}\n") if why else web.Response(text=f"ok\n{remark}".strip() + "\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        text, content_type = self._text(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})
