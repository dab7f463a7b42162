"""The process: Kopf as the source of events, the queue, the driver, health. The only file that imports kopf.

Kopf stays write-free: `on.event` handlers note a body and add a key to the queue, and return nothing. Of targets only those
that carry our claim are streamed, by a label selector at the server.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import signal
import socket
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import kopf

from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.prometheus import Providers
from cutover.driver import Driver
from cutover.errors import OutsideError, PlanError
from cutover.fields import Json
from cutover.ports import PLAN_LABEL, PLANS, STREAMED, Ports, Ref, Resource
from cutover.runtime.health import Health
from cutover.runtime.logs import set_up
from cutover.runtime.queue import RESYNC, Queue
from cutover.runtime.recorder import EventRecorder
from cutover.settings import Settings, load
from cutover.status import ACTIVE

log = logging.getLogger(__name__)

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class _NoDiff(kopf.DiffBaseStorage):
    """Kopf keeps nothing on our objects."""

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        del body
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        del body, patch, essence


class SystemClock:
    """The port `Clock`."""

    def now(self) -> datetime:
        """The present moment, UTC."""
        return datetime.now(UTC)


class Operator:
    """One operator process."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._kopf = _kopf_settings()
        self.cluster = Kubernetes(self._log_in)
        self._providers = Providers(settings.providers)
        self._recorder = EventRecorder(self.cluster.record, socket.gethostname()[:128])
        self._queue: Queue[Ref] = Queue(self._turn)
        self._tasks: set[asyncio.Task[None]] = set()
        self._plans: dict[str, Ref] = {}
        self._readable = False
        self._stop = asyncio.Event()
        ports = Ports(self.cluster, self._providers, self._recorder, SystemClock())
        self._driver = Driver(ports, self._spawn, self._queue.add)
        self.health = Health(settings.port, self._not_ready)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT. A part that dies takes the process with it."""
        # The queue starts before kopf.operator(): what runs then is left alone by Kopf when it stops.
        parts = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("stop", self._stop.wait()),
                ("health", self.health.run()),
                ("events", self._recorder.run()),
                ("queue", self._queue.run()),
                ("kopf", self._run_kopf()),
            )
        ]
        look = asyncio.create_task(self._until_readable())
        self._take_signals()
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in (*parts, look, *self._tasks):
                task.cancel()
            # Kopf takes five seconds to say goodbye to its streams. It writes nothing, so nobody waits for it.
            await asyncio.wait([*parts, look, *self._tasks], timeout=1)
            await self._recorder.flush()
            await self._providers.close()
            await self.cluster.close()

    def _take_signals(self) -> None:
        """A signal ends `run` at once. Kopf puts handlers of its own in while it starts, so this is done again then."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop.set)

    async def _run_kopf(self) -> None:
        namespaces = self.settings.namespaces
        await kopf.operator(
            registry=self._registry(),
            settings=self._kopf,
            standalone=True,
            clusterwide=not namespaces,
            namespaces=namespaces,
        )

    async def _until_readable(self) -> None:
        namespace = next(iter(self.settings.namespaces), "default")
        while not self._readable:
            try:
                await self.cluster.list(PLANS, namespace)
                self._readable = True
            except OutsideError as error:
                log.warning("plans cannot be read yet", extra={"why": str(error)})
                await asyncio.sleep(1)

    def _not_ready(self) -> str:
        return "" if self._readable else "plans cannot be read yet"

    # --- events -------------------------------------------------------------------------------------------------------

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            return self._log_in()

        @kopf.on.startup(registry=registry)
        async def started(**_: Any) -> None:
            self._take_signals()

        @kopf.on.event(PLANS.group, PLANS.version, PLANS.plural, registry=registry)
        async def plan(event: kopf.RawEvent, **_: Any) -> None:
            self._note_plan(event)

        for resource in STREAMED:

            @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, param=resource)
            async def target(event: kopf.RawEvent, param: Any = None, **_: Any) -> None:
                self._note_target(param, event)

        return registry

    def _note_plan(self, event: kopf.RawEvent) -> None:
        body, deleted = _body(event)
        ref = _ref(PLANS, body)
        news = self.cluster.note(ref, body, deleted=deleted)
        if deleted:
            self._plans.pop(body["metadata"]["uid"], None)
        else:
            self._plans[body["metadata"]["uid"]] = ref
        if news:
            self._queue.add(ref)

    def _note_target(self, resource: Resource, event: kopf.RawEvent) -> None:
        body, deleted = _body(event)
        ref = _ref(resource, body)
        before = self.cluster.seen(ref)
        if not self.cluster.note(ref, body, deleted=deleted):
            return
        for known in (before, body):
            uid = (known["metadata"].get("labels") or {}).get(PLAN_LABEL) if known else None
            if uid in self._plans:
                self._queue.add(self._plans[uid])

    # --- turns --------------------------------------------------------------------------------------------------------

    async def _turn(self, ref: Ref) -> timedelta | None:
        after = await self._driver.turn(ref)
        body = self.cluster.seen(ref)
        if body is not None and (body.get("status") or {}).get("phase") in ACTIVE:
            resync = RESYNC * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
            return min(after, resync) if after is not None else resync
        return after

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- credentials --------------------------------------------------------------------------------------------------

    def _log_in(self) -> kopf.ConnectionInfo:
        """The pod's own account, else the kubeconfig. Read anew each time, because tokens are rotated."""
        return _in_cluster() or _from_kubeconfig(self._kopf)


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
        raise kopf.LoginError("there is neither a service account nor a kubeconfig; set KUBECONFIG")
    return found


def _kopf_settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = _NoDiff()
    settings.persistence.finalizer = f"{PLANS.group}/kopf"
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 0.5  # Kopf has a worker an object; idle ones cost memory, and time at the end
    settings.queueing.exit_timeout = 0.5
    settings.watching.chunk_size = 250
    settings.watching.server_timeout = 270
    settings.networking.request_timeout = 15
    settings.networking.connect_timeout = 5
    for resource in STREAMED:
        settings.watching.label_selectors[resource.group, resource.plural] = PLAN_LABEL
    return settings


def _body(event: kopf.RawEvent) -> tuple[Json, bool]:
    body: Json = event["object"]
    body["metadata"].pop("managedFields", None)
    return body, event["type"] == "DELETED"


def _ref(resource: Resource, body: Json) -> Ref:
    return Ref(resource, body["metadata"]["namespace"], body["metadata"]["name"])


def run(settings: Settings) -> None:
    """Run one operator process until it is told to stop."""

    async def work() -> None:
        await Operator(settings).run()

    asyncio.run(work())


def main() -> None:
    """Entry point of the image: the operator without the packages of the command line."""
    parser = argparse.ArgumentParser(prog="cutover-operator", description="Run the Cutover operator.")
    parser.add_argument("--settings", type=Path, help="settings file (YAML): providers and the rest")
    parser.add_argument("--namespace", action="append", help="watch only this namespace; may be given more than once")
    parser.add_argument("--port", type=int, help="port of /livez and /readyz")
    parser.add_argument("--log-format", choices=["json", "text"])
    given = parser.parse_args()
    try:
        settings = load(
            given.settings,
            namespaces=tuple(given.namespace) if given.namespace else None,
            port=given.port,
            log_format=given.log_format,
        )
    except (PlanError, OSError) as error:
        parser.error(f"the settings cannot be used: {error}")
    set_up(settings.log_format)
    run(settings)
