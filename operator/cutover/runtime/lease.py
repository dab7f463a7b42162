"""Our own Lease (coordination.k8s.io/v1): of several operator processes one works, the others stand by. Called by app.py.

It only saves work. Correctness rests on the fences: a process that has lost the Lease and does not know it yet writes
nothing that takes effect, so nothing here has to be exact to the second, and two holders at once would be harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Final, Protocol

from cutover.errors import Conflict, Lost, NotFound, OutsideError
from cutover.field_path import Json
from cutover.ports import LEASES, Ref, Resource
from cutover.settings.settings import LeaseSettings

log = logging.getLogger(__name__)

_NOW: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


class Store(Protocol):
    """What the Lease needs of the API server. All but `watch` raise the errors of errors.py."""

    async def get(self, ref: Ref) -> Json:
        """Read an object now."""

    async def create(self, resource: Resource, namespace: str, body: Json) -> Json:
        """Create an object. Raises Conflict when the name is taken."""

    async def replace(self, ref: Ref, body: Json) -> Json:
        """Write an object if it is still at the version that the body names. Raises Conflict when it is not."""

    def watch(self, ref: Ref, version: str) -> AsyncGenerator[Json, None]:
        """Bodies after a version; ends when the stream does, whatever the cause."""


class Leadership(Protocol):
    """What app.py asks of a Lease."""

    problem: str

    @property
    def held(self) -> bool:
        """Whether it is surely ours now."""

    async def acquire(self) -> None:
        """Return once it is ours."""

    async def keep_renewed(self) -> None:
        """Renew it until cancelled."""

    async def wait_until_held(self) -> None:
        """Return when it is surely ours."""

    async def release(self) -> None:
        """Give it up."""


class Lease:
    """The Lease as one process sees it.

    While nothing goes wrong, the holder costs one request each `renew_every`, and a standby none: it watches. When the API
    server is away nobody else can take the Lease either, so the holder waits, does nothing, and goes on if it is still its
    own afterwards.

    Args:
        store: the API server.
        terms: its name and times.
        namespace: where it lives.
        me: name of this process, another one for each process that may run at the same time. A container that is started
            again in its pod keeps it, and so does not wait for its own Lease to expire.

    Attributes:
        problem: why it could not even be looked at, for people; empty when it could.
    """

    def __init__(self, store: Store, terms: LeaseSettings, namespace: str, me: str) -> None:
        self._store, self._terms, self._me = store, terms, me
        self._ref = Ref(LEASES, namespace, terms.name)
        self._retry = terms.retry_every.total_seconds()
        self._known: Json | None = None
        self._quiet_since = 0.0
        self._sure_until = -math.inf
        self._renewed = asyncio.Event()
        self.problem = ""

    @property
    def held(self) -> bool:
        """Whether it is surely ours now: renewed within the renew deadline, counted from before the request was sent."""
        return asyncio.get_running_loop().time() < self._sure_until

    async def wait_until_held(self) -> None:
        """Return when the Lease is surely ours: at once as a rule, else when it has been renewed again."""
        while not self.held:
            self._renewed.clear()
            await self._renewed.wait()

    # --- standing by --------------------------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """Return once the Lease is ours, however long that takes."""
        while not self.held:
            try:
                await self._until_free()
                await self._write()
            except Conflict:
                log.info("another process was faster", extra={"lease": str(self._ref)})
            except OutsideError as error:
                # Out of contact: what the holder did meanwhile is unknown, so its time begins anew with the next look.
                self._known = None
                self._report(f"the {self._ref} in namespace {self._ref.namespace} cannot be had: {error}")
                await asyncio.sleep(self._retry)
        log.info("this process holds the Lease", extra={"lease": str(self._ref), "holder": self._me})

    async def _until_free(self) -> None:
        """Return when nobody holds it, or its holder was silent for the time that it promised to renew it in.

        Only our own clock counts, from when we saw the object change: `renewTime` is of a clock we know nothing of.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._note(await self._look())
            left = self._left()
            if self._known is None or left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                watching = self._store.watch(self._ref, self._known["metadata"]["resourceVersion"])
                async with asyncio.timeout(left) as limit, contextlib.aclosing(watching) as bodies:
                    async for body in bodies:
                        self._note(body)
                        left = self._left()
                        if left <= 0:
                            return
                        limit.reschedule(loop.time() + left)
                await asyncio.sleep(self._retry)  # the stream ended by itself; a server that refuses it is not pressed

    def _note(self, body: Json | None) -> None:
        """Take in what was seen; whatever is another version than before is a sign of life."""
        before, self._known = self._known, body
        if body is None:
            return
        if before is None or before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._quiet_since = asyncio.get_running_loop().time()
        if _holder(before) != _holder(body) and _holder(body) not in ("", self._me):
            log.info("standing by", extra={"lease": str(self._ref), "holder": _holder(body)})

    def _left(self) -> float:
        """Seconds until it may be taken, if nothing more is seen of its holder."""
        if _holder(self._known) in ("", self._me):
            return 0.0
        promised: float = _spec(self._known).get("leaseDurationSeconds") or self._terms.duration.total_seconds()
        return self._quiet_since + promised - asyncio.get_running_loop().time()

    # --- holding ------------------------------------------------------------------------------------------------------

    async def keep_renewed(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            Lost: somebody else holds it, or it was deleted. The process must end.
        """
        loop, every = asyncio.get_running_loop(), self._terms.renew_every.total_seconds()
        pause = every
        while True:
            await asyncio.sleep(pause)
            sent = loop.time()
            try:
                if self._known is None:
                    self._known = await self._look()
                    if _holder(self._known) != self._me:
                        raise Lost(f"{_holder(self._known) or 'nobody'} holds the {self._ref} now; it was {self._me}")
                await self._write()
                pause = max(0.0, sent + every - loop.time())
            except OutsideError as error:
                # It may have been written or not, by us or by another: look before the next write.
                self._known = None
                self._report(f"the {self._ref} could not be renewed: {error}")
                pause = 0.0 if isinstance(error, Conflict) else self._retry

    async def release(self) -> None:
        """Give the Lease up if it is ours, so that a standby takes over at once. If it fails, it expires by itself."""
        try:
            self._known = await self._look()
            if _holder(self._known) != self._me:
                return
            self._sure_until = -math.inf
            await self._store.replace(self._ref, self._body({"holderIdentity": "", "leaseDurationSeconds": 1}))
        except OutsideError as error:
            log.warning("the Lease could not be released", extra={"lease": str(self._ref), "why": str(error)})

    # --- the object ---------------------------------------------------------------------------------------------------

    async def _look(self) -> Json | None:
        try:
            body = await self._store.get(self._ref)
        except NotFound:
            body = None
        self.problem = ""
        return body

    async def _write(self) -> None:
        """Make it ours, or renew it. Of two that do it at once, one gets Conflict; a lost answer is seen by the next look."""
        sent = asyncio.get_running_loop().time()
        spec = {"holderIdentity": self._me, "leaseDurationSeconds": math.ceil(self._terms.duration.total_seconds())}
        if _holder(self._known) != self._me:
            spec["acquireTime"] = datetime.now(UTC).strftime(_NOW)
            spec["leaseTransitions"] = _spec(self._known).get("leaseTransitions", -1) + 1
        body = self._body(spec)
        if self._known is None:
            self._known = await self._store.create(LEASES, self._ref.namespace, body)
        else:
            self._known = await self._store.replace(self._ref, body)
        self._sure_until = sent + self._terms.renew_deadline.total_seconds()
        self._renewed.set()
        self.problem = ""

    def _body(self, spec: Json) -> Json:
        """What is known of it, with these fields and the time."""
        metadata = {"name": self._ref.name, "namespace": self._ref.namespace}
        known = self._known or {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
        return {**known, "spec": {**_spec(known), **spec, "renewTime": datetime.now(UTC).strftime(_NOW)}}

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            log.warning(problem)
        self.problem = problem


class NoLease:
    """For a process that is alone by the word of its administrator: it always holds what is not there."""

    problem = ""
    held = True

    async def acquire(self) -> None:
        """At once."""

    async def keep_renewed(self) -> None:
        """For ever."""
        await asyncio.Event().wait()

    async def wait_until_held(self) -> None:
        """At once."""

    async def release(self) -> None:
        """Nothing to give up."""


def lease_for(terms: LeaseSettings | None, store: Store, me: str, pod_namespace: str) -> Leadership:
    """The Lease that the settings name.

    Args:
        terms: of the settings; None for a process that is alone.
        store: the API server.
        me: name of this process.
        pod_namespace: where the Lease lives when the settings do not say; empty outside a pod.
    """
    namespace = terms and (terms.namespace or pod_namespace)
    if terms is None or not namespace:
        log.info("there is no Lease: another operator process would work beside this one")
        return NoLease()
    return Lease(store, terms, namespace, me)


def _spec(body: Json | None) -> Json:
    return (body or {}).get("spec") or {}


def _holder(body: Json | None) -> str:
    """Who holds it; empty for nobody."""
    return str(_spec(body).get("holderIdentity") or "")
