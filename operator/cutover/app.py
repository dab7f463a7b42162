"""Wires up one operator process: Lease, event streams, queue, driver, health. The only file that imports kopf.

Kopf never writes here: its `on.event` handlers store a body, add a key to the queue and return nothing. Targets are streamed only
while they carry a claim, by a label selector at the server. Called by the command line and by the image's entry point.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import kopf

from cutover.adapters.clock import SystemClock
from cutover.adapters.connection import connect
from cutover.adapters.http_trace import TracedRequest, trace
from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.providers import Providers
from cutover.adapters.shares import acting_for
from cutover.adapters.transport import HttpTransport
from cutover.engine.driver import Driver
from cutover.engine.sweep import sweep_until_done
from cutover.errors import Lost
from cutover.plan.crd_gap import CrdGap
from cutover.ports import PLAN_LABEL, PLANS, STREAMED, Ports, Ref
from cutover.runtime.crd_check import CrdCheck
from cutover.runtime.event_router import EventRouter
from cutover.runtime.health import STREAM, ApiActivity, Health, Readiness
from cutover.runtime.kopf_watchdog import Backoffs, run_kopf_forever, run_until_any_ends
from cutover.runtime.lease import lease_for
from cutover.runtime.logs import set_up
from cutover.runtime.messages import Messages
from cutover.runtime.metrics import Metrics
from cutover.runtime.notifier import with_notifications
from cutover.runtime.queue import resync_at_latest
from cutover.runtime.recorder import EventRecorder
from cutover.runtime.relist import RelistCheck
from cutover.runtime.urgency import queue_of_plans
from cutover.settings.arguments import from_arguments
from cutover.settings.settings import Settings
from cutover.status.status import ACTIVE

log = logging.getLogger(__name__)

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LOGIN_INTERVAL: Final = 5.0
"""Seconds between two logins of Kopf, at least."""
_KOPF_STARTUP: Final = 0.1
"""Seconds from Kopf's start-up activity until it has installed its own signal handlers."""
_SHUTDOWN_TIMEOUT: Final = 0.8
"""Seconds for the tasks to end, and again for the last requests, so that a process is gone two seconds after SIGTERM."""


class _NoDiff(kopf.DiffBaseStorage):
    """Makes Kopf store nothing on our objects and compare nothing, which would cost a deep copy of each."""

    def build(self, *, body: kopf.Body, extra_fields: Any = None) -> kopf.BodyEssence:
        del body, extra_fields
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        del body, patch, essence


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        # The lambdas read parts made further down; none is called before `run`.
        self.settings = settings
        self._kopf = _kopf_settings()
        me = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._queue = queue_of_plans(self._turn, lambda ref: (self.cluster.seen(ref), self._driver.failed(ref)))
        self._providers = Providers(settings.providers)
        self._metrics = Metrics(
            lambda: map(self.cluster.phase, self.cluster.plans()),
            lambda: self._queue.depth,
            lambda: self._lease.held,
            self._providers.health,
        )
        self._activity = ApiActivity()
        # Apart: the Lease is renewed while requests for plans hang.
        self.cluster, self._own = self._client(self._queue.add), self._client()
        self._lease = lease_for(settings.lease, self._own, me, _ACCOUNT / "namespace")
        self._messages = Messages(settings.notify, self._metrics.message_ended)
        self._recorder = EventRecorder(
            self.cluster.record, me[:128], self._metrics.transition, self._metrics.event_dropped
        )
        self._tasks: set[asyncio.Task[None]] = set()
        self._logged_in_at = -math.inf
        self._stop = asyncio.Event()
        notifying = with_notifications(self.cluster, self._messages)
        ports = Ports(notifying, self._providers, self._messages, self._recorder, SystemClock(), settings.runner_image)
        self._crd = CrdCheck(self.cluster.crd, self._crd_read)
        self._driver = Driver(ports, self._spawn, self._queue.add, self._queue.crowded, self._crd.dropped)
        self._router = EventRouter(self.cluster, self._queue.add, self._driver.deleted)
        self._relist = RelistCheck(self.cluster, settings.namespaces, self._router.missed)
        self._readiness = Readiness(self._own, settings.namespaces, lambda: self._lease.problem, self._crd.problem)
        self._health = Health(
            settings.port,
            lambda: (self._readiness.unready_reason(), self._crd.remark()),
            self._activity,
            self._metrics.text,
        )

    def _client(self, wake: Callable[[Ref], None] | None = None) -> Kubernetes:
        transport = HttpTransport(self.log_in, [trace(lambda: None, self._metrics.request_ended)])
        return Kubernetes(transport, wake, everywhere=not self.settings.namespaces)

    # --- start-up and shutdown ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. When one part fails, the process ends.

        Raises:
            Lost: another process holds the Lease.
        """
        self._take_signals()
        self._providers.health()  # logs unusable credentials now, not when the first plan needs them
        # Health and readiness do not wait for the Lease: a standby must pass its probes.
        self._spawn(self._readiness.run())
        try:
            parts = self._stop.wait(), self._health.run(), self._crd.run(), self._work()
            await run_until_any_ends(*parts, patience=_SHUTDOWN_TIMEOUT)
        finally:
            for task in self._tasks:
                task.cancel()
            try:
                # All turns are cancelled, so a standby may take over: the Lease goes first, because plans wait for it. An
                # event or message that is not sent in time is only logged.
                async with asyncio.timeout(_SHUTDOWN_TIMEOUT):
                    await self._lease.release()
                    await self._recorder.flush()
                    await self._messages.flush()
            except TimeoutError:
                log.warning("shutdown timed out: the Lease expires by itself, and events and messages may be lost")
            await self._providers.close()
            await self.cluster.close()
            await self._own.close()

    async def _work(self) -> None:
        """Everything that writes, and it starts only with the Lease."""
        await self._lease.acquire()
        await self._crd.first.wait()  # before any plan: one that has begun cannot be taken back
        self._spawn(sweep_until_done(self.cluster, self.settings.namespaces))
        # Kopf starts last: when it stops, it cancels all tasks created after it.
        await run_until_any_ends(
            self._lease.keep_renewed(),
            self._recorder.run(),
            self._messages.run(),
            self._queue.run(),
            self._relist.run(),
            run_kopf_forever(self._kopf_operator),
            patience=_SHUTDOWN_TIMEOUT,
        )

    def _take_signals(self) -> None:
        """Make a signal end `run` at once. Kopf installs its own while it starts, so this is repeated then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    def _kopf_operator(self) -> Coroutine[Any, Any, None]:
        namespaces = self.settings.namespaces
        return kopf.operator(
            registry=self._registry(),
            settings=self._kopf,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )

    # --- events -------------------------------------------------------------------------------------------------------

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return await self._kopf_session()

        @kopf.on.startup(registry=registry)
        async def started(**_: Any) -> None:
            asyncio.get_running_loop().call_later(_KOPF_STARTUP, self._take_signals)

        @kopf.on.event(PLANS.group, PLANS.version, PLANS.plural, registry=registry)
        async def plan(event: kopf.RawEvent, **_: Any) -> None:
            self._router.plan(event)

        for resource in STREAMED:

            @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, param=resource)
            async def target(event: kopf.RawEvent, param: Any = None, **_: Any) -> None:
                self._router.target(param, event)

        return registry

    # --- turns --------------------------------------------------------------------------------------------------------

    async def _turn(self, ref: Ref) -> timedelta | None:
        # In each turn, not once: during an outage of the API server the Lease is not certain any more.
        await self._lease.wait_until_held()
        with self._metrics.turn(), acting_for(ref):
            after = await self._driver.turn(ref)
        self.cluster.turn_ended(ref)
        return resync_at_latest(after) if self.cluster.phase(ref) in ACTIVE else after

    def _crd_read(self, gap: CrdGap) -> None:
        self._driver.crd_read(gap)
        for ref in self.cluster.plans():
            self._queue.add(ref)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- credentials --------------------------------------------------------------------------------------------------

    def log_in(self) -> kopf.ConnectionInfo:
        """The pod's own account, else the kubeconfig. Read again each time, because tokens are rotated."""
        return _in_cluster() or _from_kubeconfig(self._kopf)

    async def _kopf_session(self) -> kopf.AiohttpSession:
        """A session for Kopf whose requests are traced. Kopf logs in again at once after each 401, so it is slowed down here."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(0.0, self._logged_in_at + _LOGIN_INTERVAL - loop.time()))
        self._logged_in_at = loop.time()
        info = self.log_in()

        def ended(request: TracedRequest) -> None:
            self._activity.request_ended(answered=bool(request.code))
            self._metrics.request_ended(request)
            self._relist.request_ended(request)

        session = connect(info, [trace(self._activity.request_sent, ended)], limit=0)
        return kopf.AiohttpSession(server=info.server, expiration=info.expiration, aiohttp_session=session)


def _in_cluster() -> kopf.ConnectionInfo | None:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token = _ACCOUNT / "token"
    if not host or not token.exists():
        return None
    host = f"[{host}]" if ":" in host else host
    return kopf.ConnectionInfo(
        server=f"https://{host}:{port}",
        ca_path=_ACCOUNT / "ca.crt",
        token=token.read_text().strip(),
        expiration=datetime.now(UTC) + timedelta(minutes=10),
    )


def _from_kubeconfig(settings: kopf.OperatorSettings) -> kopf.ConnectionInfo:
    found = kopf.login_with_kubeconfig(settings=settings)
    if found is None:
        raise kopf.LoginError("neither a service account nor a kubeconfig was found; set KUBECONFIG")
    return found


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiff()
    settings.persistence.finalizer = f"{PLANS.group}/kopf"
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.5  # Kopf has one worker per object; idle ones cost memory, and time at shutdown
    settings.queueing.exit_timeout = 0.5
    settings.watching.chunk_size = 10  # of up to 1.5 MB each, and a chunk takes four times as much
    settings.watching.server_timeout = STREAM
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = Backoffs()
    for resource in STREAMED:
        settings.watching.label_selectors[resource.group, resource.plural] = PLAN_LABEL
    return settings


def run(settings: Settings) -> None:
    """Run one operator process until it is told to stop."""

    async def work() -> None:
        operator = Operator(settings)
        operator.log_in()  # so that a missing kubeconfig ends the process at once
        await operator.run()

    try:
        asyncio.run(work())
    except (kopf.LoginError, OSError) as error:
        log.error("cannot reach the API server: %s", error)  # noqa: TRY400 -- the message says it all
        raise SystemExit(64) from None
    except Lost as lost:
        log.error("%s; this process exits", lost)  # noqa: TRY400 -- as above
        raise SystemExit(1) from None


def main() -> None:
    """Entry point of the image: the operator without the packages of the command line."""
    settings = from_arguments()
    set_up(settings.log_format)
    run(settings)
