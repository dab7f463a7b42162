"""Which pods other plans of the namespace need: those behind both sides of each step that moves traffic.

The old side has no traffic any more once it has moved, so no route says that a rollback would need its pods; the new side
has none before the first weight. A plan that has just succeeded needs them until its traffic has drained. Reads only; asked
before pods are taken away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeAlias, cast

from cutover.errors import NotFound, PlanError
from cutover.field_path import Json
from cutover.objects.at_once import at_once
from cutover.objects.endpoints import selects
from cutover.plan.parsing import parse
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status
from cutover.ports import PLANS, SNAPSHOTS, Cluster, Ref
from cutover.saga.tables import TOUCHED
from cutover.status.status import ACTIVE, Phase, Status, StepState
from cutover.steps.kind import StepContext
from cutover.steps.parts import UndoneEarly
from cutover.targets.claims import Owner
from cutover.targets.snapshots import Snapshot

_BACKWARD: Final = frozenset({Phase.ROLLING_BACK, Phase.STUCK})
_DRAINED_BY: Final = timedelta(minutes=6)
"""After the end of a run no drain of it goes on: it takes five minutes at most, and a gateway has one to report."""


@dataclass(frozen=True, slots=True)
class OtherPlan:
    """Another plan of the namespace that is active, or has just succeeded.

    Attributes:
        snapshots: those of its run that are known.
    """

    ref: Ref
    body: Json
    plan: Plan
    status: Status
    snapshots: dict[str, Snapshot]

    def shifts(self) -> Iterator[tuple[int, UndoneEarly]]:
        """The steps that move traffic and are still to be done, or may still be undone; of a run that is over all that it has done."""
        names, last = [step.name for step in self.status.steps], self.status.point_of_no_return
        limit = names.index(last) if last in names and self.status.phase in ACTIVE else -1
        for at, (step, status) in enumerate(zip(self.plan.steps, self.status.steps, strict=False)):
            to_come = status.state is StepState.PENDING and self.status.phase not in _BACKWARD
            if at > limit and (to_come or status.state in TOUCHED) and isinstance(step.kind, UndoneEarly):
                yield at, step.kind


Remembered: TypeAlias = Callable[[Ref, Json], OtherPlan | None]
"""What this process knows of a plan as it is in a body, because it drives that plan too; None: nothing."""


@dataclass(frozen=True, slots=True)
class Ways:
    """How other plans are read.

    Attributes:
        remembered: of most plans of a namespace nothing is read or parsed for this: they are driven here as well.
        context_of: what the kind of a step of another plan needs to read its sides, from that cluster.
    """

    remembered: Remembered
    context_of: Callable[[OtherPlan, int, Cluster], StepContext]


_Read: TypeAlias = Callable[[Json], Awaitable[OtherPlan]]
_ContextOf: TypeAlias = Callable[[OtherPlan, int], StepContext]


async def needed_elsewhere(
    cluster: Cluster,
    owner: Owner,
    now: datetime,
    labels: Mapping[str, str],
    ways: Ways,
) -> str:
    """Until when another plan needs pods with these labels, such as ``plan checkout ends, whose step …``; empty when none does.

    Which plans are active is asked of the API server, as for claims: another process may drive them. What they need follows
    from their specs and snapshots, so that nothing on a workload has to tell it.

    Args:
        cluster: the API server.
        owner: who asks.
        now: the time.
        labels: of the pods.
        ways: how other plans are read.
    """
    services, read = at_once(cluster, owner.namespace), partial(_read, cluster, ways.remembered)

    def reading(other: OtherPlan, at: int) -> StepContext:
        return ways.context_of(other, at, _as_stored(other, at, services))

    for listed in await cluster.list(PLANS, owner.namespace):
        if listed["metadata"]["uid"] == owner.uid:
            continue
        status = listed.get("status") or {}
        if status.get("phase") in ACTIVE:
            until = await _until_its_end(read, listed, labels, reading)
        elif ended := _just_succeeded(status, now):
            until = await _until_drained(read, listed, ended, labels, reading)
        else:
            continue
        if until:
            return until
    return ""


async def _until_its_end(read: _Read, listed: Json, labels: Mapping[str, str], context_of: _ContextOf) -> str:
    name = listed["metadata"]["name"]
    try:
        other = await read(listed)
    except NotFound:
        return ""
    except PlanError:
        way_out = "restore the spec, or abandon that plan"
        return f"plan {name} ends, whose spec cannot be read, so that nobody knows which pods it needs; {way_out}"
    for at, kind in other.shifts():
        if await _rests_on(kind, context_of(other, at), labels):
            way_out = "to end it sooner, abort or abandon it"
            return f"plan {name} ends, whose step {other.plan.steps[at].name} needs these pods; {way_out}"
    return ""


async def _until_drained(
    read: _Read, listed: Json, ended: datetime, labels: Mapping[str, str], context_of: _ContextOf
) -> str:
    """Counted from the end of the run: that it moved traffic before it is all that is known of when it did."""
    name = listed["metadata"]["name"]
    with suppress(NotFound, PlanError):
        other = await read(listed)
        for at, kind in other.shifts():
            context = context_of(other, at)
            drain = await kind.drain_since(context, ended)
            if drain and await _rests_on(kind, context, labels):
                return f"{drain.until:%H:%M:%S} UTC: {drain.why} in plan {name}"
    return ""


def _just_succeeded(status: Json, now: datetime) -> datetime | None:
    """When the run has ended as a success, if traffic that it has moved may still drain."""
    at = (status.get("run") or {}).get("finishedAt")
    if status.get("phase") != Phase.SUCCEEDED or not at:
        return None
    ended = datetime.fromisoformat(at)
    return ended if now - ended < _DRAINED_BY else None


class _NotBegun:
    """The cluster for a step that has not begun: it has stored nothing, and nobody has to be asked for that."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def get(self, ref: Ref) -> Json:
        if ref.resource == SNAPSHOTS:
            raise NotFound(f"{ref} not found")
        return await self._cluster.get(ref)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


def _as_stored(other: OtherPlan, at: int, cluster: Cluster) -> Cluster:
    begun = other.status.steps[at].state is not StepState.PENDING
    return cluster if begun else cast("Cluster", _NotBegun(cluster))


async def _rests_on(kind: UndoneEarly, context: StepContext, labels: Mapping[str, str]) -> bool:
    with suppress(NotFound):  # the object that has the traffic
        return any(selects(side.selector, labels) for side in await kind.both_sides(context))
    return False


async def _read(cluster: Cluster, remembered: Remembered, listed: Json) -> OtherPlan:
    """As it was last seen, where that is of the run that goes on; otherwise read. Raises NotFound, PlanError."""
    ref = Ref(PLANS, listed["metadata"]["namespace"], listed["metadata"]["name"])
    body = cluster.seen(ref)
    if body is None or _run(body) != _run(listed):
        body = await cluster.get(ref)
    return remembered(ref, body) or OtherPlan(ref, body, parse(body["spec"]), read_status(body.get("status")), {})


def _run(body: Json) -> tuple[str, Json]:
    """Which run it is, also after the plan was created again."""
    return body["metadata"]["uid"], ((body.get("status") or {}).get("run") or {}).get("number")
