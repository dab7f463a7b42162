"""The two sides of a shift: what each resolves to, and whether it is ready for its share of the traffic.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta

from cutover.errors import PlanError, Problem
from cutover.field_path import Json, find
from cutover.objects.endpoints import Side, behind, count_apart, count_ready, ready_endpoints, resolve, wanted
from cutover.ports import Ref
from cutover.routing.routes import Destination, number
from cutover.routing.shift import Role, pairs_of, temporary_fields_of
from cutover.steps.kind import StepContext
from cutover.steps.shared import ready_sides
from cutover.steps.shared.ready_sides import Load
from cutover.steps.standing import Standing
from cutover.targets.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Ready:
    """Ready endpoints of both sides."""

    old: int
    new: int


@dataclass(frozen=True, slots=True)
class Prefetched:
    """What `do` needs before it writes a weight.

    Attributes:
        ready: ready endpoints of both sides.
        body: the object; read only before the first weight, for the snapshot.
    """

    ready: Ready
    body: Json = None


@dataclass(frozen=True, slots=True)
class Shares:
    """What each side carries of the traffic; None: nothing."""

    old: float | None
    new: float | None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the two sides resolve to, and how many ready endpoints the old one had at the start of the run."""

    old: Side
    new: Side
    old_ready: int


def forget(context: StepContext) -> None:
    """Forget the sides, so that they are resolved again."""
    context.memo.pop(_memo(context), None)


async def endpoints(context: StepContext, old: Destination, new: Destination) -> Endpoints:
    """The sides, remembered from the start of the run; a new process resolves them again. Raises PlanError."""
    known = context.memo.get(_memo(context))
    if isinstance(known, Endpoints):
        return known
    sides, problems = list[Side](), list[Problem]()
    for field, side in (("from", old), ("to", new)):
        resolved = await resolve(context.cluster, context.namespace, side.host, side.subset)
        if isinstance(resolved, Side):
            sides.append(resolved)
        else:
            problems.append(Problem(f"{context.place}.traffic.{field}", resolved))
    if problems:
        raise PlanError(*problems)
    before, after = sides
    found = Endpoints(before, after, (await count_ready(context.cluster, context.namespace, before))[0])
    context.memo[_memo(context)] = found
    return found


def _memo(context: StepContext) -> str:
    return f"{context.place}.endpoints"


def both(snapshot: Snapshot) -> list[Side]:
    """The sides as the snapshot has them."""
    return [Side(**snapshot.facts[which]) for which in ("from", "to")]


async def workloads(context: StepContext, snapshot: Snapshot) -> frozenset[Ref]:
    """The workloads behind both sides."""
    return frozenset(await behind(context.cluster, context.namespace, *both(snapshot)))


async def resolved(context: StepContext, *names: Destination) -> list[Side]:
    """The sides as they are now; one that is not there is left out."""
    found = [await resolve(context.cluster, context.namespace, side.host, side.subset) for side in names]
    return [side for side in found if isinstance(side, Side)]


@dataclass(frozen=True, slots=True)
class _Needed:
    """How many ready endpoints a side needs, and how many of them it may lack while its workloads roll out a template."""

    whole: int
    lacking: int = 0


async def _needed(context: StepContext, side: Side, ready: int, exact: float) -> _Needed:
    """At least one, and no more than its workloads want. `exact`: its share of them."""
    needed = max(1, math.ceil(round(exact, 6)))  # 0.55 * 100 is slightly more than 55 as a float
    if ready >= needed:
        return _Needed(needed)
    asked, lacking = await wanted(context.cluster, context.namespace, side)
    return _Needed(min(needed, asked) if asked else needed, lacking)


# --- forward ----------------------------------------------------------------------------------------------------------


async def ready_now(context: StepContext, snapshot: Snapshot) -> Ready:
    """Ready endpoints of both sides as the snapshot has them."""
    return Ready(*await count_ready(context.cluster, context.namespace, *both(snapshot)))


async def short_of_new(context: StepContext, snapshot: Snapshot, new: Destination, ready: Ready, share: float) -> str:
    """What the new side lacks to get a share of what the old side had at the start, or has now where that is more.

    The old side may have grown since, for instance while the plan waited for an approval.
    """
    most = context.memo[_most(context)] = max(snapshot.facts["fromReady"], ready.old)
    needed = (await _needed(context, both(snapshot)[1], ready.new, share * most)).whole
    return "" if ready.new >= needed else f"{new} has {ready_endpoints(ready.new)} and needs {needed}"


def _most(context: StepContext) -> str:
    return f"{context.place}.most"


async def standing(
    context: StepContext,
    snapshot: Snapshot,
    names: tuple[Destination, Destination],
    shares: Shares,
    patience: timedelta,
) -> Standing:
    """Whether each side that carries traffic has the ready endpoints that its share asks for.

    An old side that had none before the step is not asked for any: the traffic is on its way to where it is answered.
    """
    counted = both(snapshot)
    most = max(snapshot.facts["fromReady"], context.memo.get(_most(context), 0))

    async def count() -> list[Load]:
        pods, entries = await count_apart(context.cluster, context.namespace, *counted, fresh=True)
        loads = []
        for at, (which, share) in enumerate((("from", shares.old), ("to", shares.new))):
            if share is None or (which == "from" and not snapshot.facts["fromReady"]):
                continue
            ready = pods[at] + entries[at]
            needed = await _needed(context, counted[at], ready, share * most)
            # A rollout, perhaps of a later step, may leave it fewer for a while.
            enough = max(1, needed.whole - needed.lacking)
            loads.append(Load(str(names[at]), ready, enough, streamed=not entries[at]))
        return loads

    services = frozenset(side.service for side in counted)
    return await ready_sides.standing(context, services, (shares, most), count, patience)


def shares_of(snapshot: Snapshot, body: Json) -> Shares:
    """What each side carries now: its largest share of any pair; of the new side also what has the headers of a match."""
    found = [
        (number(before.value) / pair.total, number(after.value) / pair.total)
        for pair in pairs_of(snapshot)
        if pair.total and (before := find(body, pair.old.path)) and (after := find(body, pair.new.path))
    ]
    routed = any(
        one.role == Role.MATCH and (at := find(body, one.path)) is not None and at.value == one.ours
        for one in temporary_fields_of(snapshot)
    )
    old, new = max((one for one, _ in found), default=0.0), max((one for _, one in found), default=0.0)
    return Shares(old or None, new or (0.0 if routed else None))
