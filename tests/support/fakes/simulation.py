"""Runs the real driver over the ports in memory, with time that passes only when nothing else can happen."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cutover.engine.driver import Driver
from cutover.errors import Unavailable
from cutover.objects.jobs import GATE_LABEL, STARTED_LABEL, state_of
from cutover.plan.status_document import read_status
from cutover.ports import (
    APPLIED_LABEL,
    CONFIG_MAPS,
    JOBS,
    MIGRATOR_LABEL,
    PLAN_LABEL,
    PLANS,
    PODS,
    SNAPSHOTS,
    STREAMED,
    Ports,
    Ref,
)
from cutover.runtime.notifier import with_notifications
from cutover.status.requests import RequestVerb, write
from cutover.status.status import ENDED, Phase, Status
from cutover.targets.ownership import fields_of
from cutover.testing import (
    Crash,
    CrashSwitch,
    MemoryCluster,
    MemoryMessenger,
    MemoryMetrics,
    MemoryRecorder,
    Spawner,
)
from cutover.testing.controllers import react
from support.fakes.field_owners import applied_by, keep_owners

_MAY_STAY = (MIGRATOR_LABEL, APPLIED_LABEL)


class Simulation:
    """One plan and its cluster. After a crash a new process starts, which knows nothing but the cluster.

    Attributes:
        crowded: other plans wait for their turn all the while.

    Args:
        owned: all targets have been applied by another field manager.
    """

    def __init__(
        self,
        body: dict[str, Any],
        *,
        switch: CrashSwitch | None = None,
        put: Callable[..., None],
        crowded: bool = False,
        owned: bool = False,
    ) -> None:
        self.crowded, self._owned = crowded, owned
        self.switch = switch or CrashSwitch()
        self.cluster = MemoryCluster(self.switch)
        put(self.cluster)
        if owned:
            keep_owners(self.cluster)
        for ref, target in self.cluster.objects.items() if owned else ():
            if ref.resource in STREAMED:
                target["metadata"]["managedFields"] = [applied_by("helm", target)]
        self.before = copy.deepcopy(self.cluster.objects)
        self.metrics = MemoryMetrics()
        self.messenger = MemoryMessenger()
        if not self.switch.lost:  # handing a message over has no answer that could be lost
            self.messenger.around = self.switch.around
        self.recorder = MemoryRecorder()
        self.clock = self.cluster.clock
        self.crashes = 0
        self.asked = False
        self.plan = self.cluster.put(PLANS, body)
        self.cluster.objects[self.plan]["status"] = {"observedGeneration": -1}
        self.trace: list[str] = []
        self._last = Status()
        self._start_process()

    def _start_process(self) -> None:
        self.cluster.restart()
        self.spawner = Spawner()
        self.messenger.restart()
        self.woken = False
        ports = Ports(
            with_notifications(self.cluster, self.messenger), self.metrics, self.messenger, self.recorder, self.clock
        )
        self.driver = Driver(ports, self.spawner, self._wake, lambda _: self.crowded)

    def _wake(self, ref: Ref) -> None:
        assert ref == self.plan
        self.woken = True

    @property
    def status(self) -> Status:
        body = self.cluster.objects.get(self.plan)
        if body is not None:
            self._last = read_status(body["status"])
        return self._last

    @property
    def phase(self) -> Phase | None:
        return self.status.phase

    async def turn(self) -> timedelta | None:
        """One turn; after a crash in it a new process starts and asks for another turn."""
        try:
            after = await self.driver.turn(self.plan)
            if await self.spawner.run():
                after = timedelta()
        except Unavailable:  # as the queue does; measurements run beside the turns
            self.crashes += 1
            await self.spawner.run()
            return timedelta(seconds=1)
        except Crash:
            self.crashes += 1
            self.spawner.drop()
            self._start_process()
            return timedelta()
        return after

    async def until(self, reached: Callable[[], bool], *, turns: int = 500) -> None:
        """Turn after turn; what the cluster does by itself and waiting for the clock happen in between."""
        for _ in range(turns):
            if reached():
                return
            after = await self.turn()
            if react(self.cluster) or self.woken or reached():
                self.woken = False
                continue
            assert after is not None, f"nothing will ever happen again; {self.status}"
            self.clock.pass_time(after)
        raise AssertionError(f"not reached in {turns} turns; {self.status}")

    async def run(self) -> Phase:
        """Until the plan has ended and released its claims."""
        await self.until(lambda: self.over)
        assert self.phase is not None
        return self.phase

    @property
    def over(self) -> bool:
        """It has ended and released its claims."""
        body = self.cluster.objects.get(self.plan)
        return body is None or (self.phase in ENDED and not self.bound)

    @property
    def bound(self) -> bool:
        body = self.cluster.objects.get(self.plan)
        return body is not None and bool(body["metadata"].get("finalizers"))

    def restart(self) -> None:
        """A new process, which knows nothing."""
        self.spawner.drop()
        self._start_process()

    def request(self, verb: RequestVerb, step: str = "") -> None:
        """What a person's annotation does."""
        self.asked = True
        key, value = write(verb, "alice", step)
        body = copy.deepcopy(self.cluster.objects[self.plan])
        body["metadata"].setdefault("annotations", {})[key] = value
        self.cluster.put(PLANS, body)

    def leftovers(self) -> list[str]:
        """Claims, snapshots and finalizers that should not be there after the end."""
        found = []
        for ref, body in self.cluster.objects.items():
            labels = body["metadata"].get("labels") or {}
            if ref.resource == SNAPSHOTS and self.phase is Phase.SUCCEEDED and body["metadata"].get("ownerReferences"):
                continue  # kept for a rollback on request, and gone with the plan
            if ref.resource == JOBS:
                found += _wrong_with_a_job(ref, body)
                continue
            if any(label.startswith("cutover.dev/") and label not in _MAY_STAY for label in labels):
                found.append(str(ref))
            if body["metadata"].get("finalizers"):
                found.append(f"finalizer of {ref}")
        return found

    def jobs(self) -> dict[str, str]:
        """The Jobs of steps that are there, and what became of each."""
        found = {}
        for ref, body in self.cluster.objects.items():
            if ref.resource == JOBS and GATE_LABEL not in body["metadata"]["labels"]:
                state = state_of(body)
                ended = "complete" if state.complete else state.failed or "unfinished"
                found[ref.name] = f"{ended}, started {body['metadata']['labels'][STARTED_LABEL]}"
        return found

    def specs(self) -> dict[Ref, Any]:
        """Spec, data, labels and annotations of everything but the plan, and the owners of fields if they are kept."""
        return specs_of(self.cluster.objects, owners=self._owned)

    def specs_before(self) -> dict[Ref, Any]:
        """The same, before the plan was there."""
        return specs_of(self.before, owners=self._owned)


def _wrong_with_a_job(ref: Ref, body: Any) -> list[str]:
    """A Job stays for its logs, owned by the plan; it is not claimed any more, and never runs again."""
    found = [f"claim on {ref}"] if PLAN_LABEL in body["metadata"]["labels"] else []
    if not body["metadata"].get("ownerReferences"):
        found.append(f"nobody owns {ref}")
    state = state_of(body)
    if not state.finished and not state.suspended:
        found.append(f"{ref} runs")
    return found


def specs_of(objects: dict[Ref, Any], *, owners: bool = False) -> dict[Ref, Any]:
    """Spec, labels and annotations of everything but plans, and the owners of fields if they are kept."""
    kept = {}
    for ref, body in objects.items():
        if ref.resource not in (PLANS, JOBS, PODS) and ("spec" in body or ref.resource == CONFIG_MAPS):
            metadata = body["metadata"]
            kept[ref] = (
                body.get("spec"),
                body.get("data"),
                metadata.get("labels") or {},
                metadata.get("annotations") or {},
                {entry["manager"]: set(fields_of(entry)) for entry in metadata.get("managedFields") or () if owners},
            )
    return kept
