"""Leader election by a Lease (coordination.k8s.io/v1): one operator process is active, the others stand by. Called by app.py.

It only saves work. Safety comes from the fences: the late write of a process that has lost the Lease without knowing it fails, so
nothing here must be exact to the second, and two holders at once would be harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
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
        """Bodies after a version; ends when the stream does, for any reason."""


class Leadership(Protocol):
    """What app.py needs of the Lease.

    Attributes:
        problem: why the Lease could not be read or written last time, as text; empty when it could.
    """

    problem: str

    @property
    def held(self) -> bool:
        """Whether this process certainly holds the Lease now."""

    async def acquire(self) -> None:
        """Return once this process holds it."""

    async def keep_renewed(self) -> None:
        """Renew it until cancelled."""

    async def wait_until_held(self) -> None:
        """Return when this process certainly holds it."""

    async def release(self) -> None:
        """Release it, at shutdown."""


class Lease:
    """The Lease as one process sees it.

    Normally the holder sends one request per `renew_every`, and a standby none: it watches. When the API server is down, nobody
    else can take the Lease either, so the holder waits, does nothing, and continues if it still holds the Lease afterwards.

    Args:
        store: the API server.
        terms: name and times of the Lease.
        namespace: where it lives.
        me: name of this process, unique among processes that may run at the same time. A container that is restarted in its pod
            keeps the name, so it does not have to wait for its own Lease to expire.
    """

    def __init__(self, store: Store, terms: LeaseSettings, namespace: str, me: str) -> None:
        self._store, self._terms, self._me = store, terms, me
        self._ref = Ref(LEASES, namespace, terms.name)
        self._retry = terms.retry_every.total_seconds()
        self._known: Json | None = None
        self._changed_at = 0.0
        self._held_until = -math.inf
        self._renewed = asyncio.Event()
        self.problem = ""

    @property
    def held(self) -> bool:
        """Whether this process certainly holds it: renewed within the renew deadline, counted from before the request was sent."""
        return asyncio.get_running_loop().time() < self._held_until

    async def wait_until_held(self) -> None:
        """Return when this process certainly holds it: normally at once, otherwise after the next renewal."""
        while not self.held:
            self._renewed.clear()
            await self._renewed.wait()

    # --- standing by --------------------------------------------------------------------------------------------------

    async def acquire(self) -> None:
        """Return once this process holds the Lease, however long that takes."""
        while not self.held:
            try:
                await self._until_free()
                await self._write()
            except Conflict:
                log.info("another process acquired the Lease first", extra={"lease": str(self._ref)})
            except OutsideError as error:
                # What the holder did in the meantime is unknown, so its lease duration is counted again from the next read.
                self._known = None
                self._report(f"cannot acquire {self._ref} in namespace {self._ref.namespace}: {error}")
                await asyncio.sleep(self._retry)
        log.info("this process holds the Lease", extra={"lease": str(self._ref), "identity": self._me})

    async def _until_free(self) -> None:
        """Return when no process holds it, or its holder has not renewed it for its lease duration.

        Time is measured by the local clock, from when a change of the object was seen: `renewTime` comes from another clock.
        """
        loop = asyncio.get_running_loop()
        while True:
            self._observe(await self._read())
            left = self._left()
            if self._known is None or left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                watching = self._store.watch(self._ref, self._known["metadata"]["resourceVersion"])
                async with asyncio.timeout(left) as limit, contextlib.aclosing(watching) as bodies:
                    async for body in bodies:
                        self._observe(body)
                        left = self._left()
                        if left <= 0:
                            return
                        limit.reschedule(loop.time() + left)
                await asyncio.sleep(self._retry)  # the watch ended by itself; a server that refuses it is not flooded

    def _observe(self, body: Json | None) -> None:
        """Store what was read; a new version shows that the holder is alive."""
        before, self._known = self._known, body
        if body is None:
            return
        if before is None or before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            self._changed_at = asyncio.get_running_loop().time()
        if _holder(before) != _holder(body) and _holder(body) not in ("", self._me):
            log.info("standing by", extra={"lease": str(self._ref), "identity": _holder(body)})

    def _left(self) -> float:
        """Seconds until it may be taken, if its holder does not renew it."""
        if _holder(self._known) in ("", self._me):
            return 0.0
        duration: float = _spec(self._known).get("leaseDurationSeconds") or self._terms.duration.total_seconds()
        return self._changed_at + duration - asyncio.get_running_loop().time()

    # --- holding ------------------------------------------------------------------------------------------------------

    async def keep_renewed(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            Lost: another process holds it, or it was deleted. This process must exit.
        """
        loop, every = asyncio.get_running_loop(), self._terms.renew_every.total_seconds()
        pause = every
        while True:
            await asyncio.sleep(pause)
            sent = loop.time()
            try:
                if self._known is None:
                    self._known = await self._read()
                    # Not acquired again here: another process may have been active in between, and what this one caches would be stale.
                    if _holder(self._known) != self._me:
                        raise Lost(
                            f"lost {self._ref}: it belongs to {_holder(self._known) or 'no process'} now, not to {self._me}"
                        )
                await self._write()
                pause = max(0.0, sent + every - loop.time())
            except OutsideError as error:
                # It may or may not have been written, by this process or by another: read it before the next write. A conflict is
                # read at once, because another holder means that this process must exit.
                self._known = None
                self._report(f"cannot renew {self._ref}: {error}")
                pause = 0.0 if isinstance(error, Conflict) else self._retry

    async def release(self) -> None:
        """Release the Lease if this process holds it, so that a standby takes over at once. If that fails, it expires by itself."""
        try:
            self._known = await self._read()
            if _holder(self._known) != self._me:
                return
            # Before the write, whose answer may be lost: from here on this process must not count as the holder.
            self._held_until = -math.inf
            await self._store.replace(self._ref, self._body({"holderIdentity": "", "leaseDurationSeconds": 1}))
        except OutsideError as error:
            log.warning("cannot release the Lease", extra={"lease": str(self._ref), "why": str(error)})

    # --- the object ---------------------------------------------------------------------------------------------------

    async def _read(self) -> Json | None:
        try:
            body = await self._store.get(self._ref)
        except NotFound:
            body = None
        self.problem = ""
        return body

    async def _write(self) -> None:
        """Acquire or renew it. Of two processes at once, one gets Conflict; a lost answer shows at the next read."""
        # Taken before the request: the server may have written it at any moment since, so counting from the answer would be too long.
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
        self._held_until = sent + self._terms.renew_deadline.total_seconds()
        self._renewed.set()
        self.problem = ""

    def _body(self, spec: Json) -> Json:
        """The object as last read, with these fields and the current time."""
        metadata = {"name": self._ref.name, "namespace": self._ref.namespace}
        known = self._known or {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": metadata}
        return {**known, "spec": {**_spec(known), **spec, "renewTime": datetime.now(UTC).strftime(_NOW)}}

    def _report(self, problem: str) -> None:
        if problem != self.problem:
            log.warning(problem)
        self.problem = problem


class NoLease:
    """For a single process that needs no leader election: it always leads."""

    problem = ""
    held = True

    async def acquire(self) -> None:
        """Return at once."""

    async def keep_renewed(self) -> None:
        """Never return."""
        await asyncio.Event().wait()

    async def wait_until_held(self) -> None:
        """Return at once."""

    async def release(self) -> None:
        """Do nothing."""


def lease_for(terms: LeaseSettings | None, store: Store, me: str, namespace_file: Path) -> Leadership:
    """The Lease that the settings describe, or none.

    Args:
        terms: from the settings; None for a process without leader election.
        store: the API server.
        me: name of this process.
        namespace_file: holds the pod's namespace, where the Lease lives unless the settings say otherwise; missing outside a pod.
    """
    in_pod = namespace_file.exists()
    namespace = terms and (terms.namespace or (namespace_file.read_text().strip() if in_pod else ""))
    if terms is None or not namespace:
        log.info("running without a Lease: a second operator process would be active at the same time")
        return NoLease()
    return Lease(store, terms, namespace, me)


def _spec(body: Json | None) -> Json:
    return (body or {}).get("spec") or {}


def _holder(body: Json | None) -> str:
    """Name of the holder; empty for none."""
    return str(_spec(body).get("holderIdentity") or "")
