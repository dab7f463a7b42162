"""The two sides of a shift: what each resolves to, and whether it is ready for its share of the traffic.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from cutover.errors import PlanError, Problem
from cutover.field_path import Json, find
from cutover.objects.endpoints import Side, behind, resolve, wanted
from cutover.objects.serving import Count, count
from cutover.objects.subsets import KnownRules, labels_in
from cutover.ports import DESTINATION_RULES, Ref
from cutover.routing.routes import Destination, Pair, number
from cutover.routing.shift import Role, pairs_of, temporary_fields_of
from cutover.steps.kind import StepContext
from cutover.steps.shared import ready_sides
from cutover.steps.shared.ready_sides import Load
from cutover.steps.standing import Failing, Standing
from cutover.targets.snapshots import Snapshot

Names = tuple[Destination, Destination]
"""How the step names its sides: the old one and the new one."""


@dataclass(frozen=True, slots=True)
class Ready:
    """Ready endpoints of both sides."""

    old: Count
    new: Count


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

    def facts(self) -> dict[str, Any]:
        """As a snapshot keeps them."""
        return {"from": asdict(self.old), "to": asdict(self.new), "fromReady": self.old_ready}


def forget(context: StepContext) -> None:
    """Forget the sides, so that they are resolved again."""
    context.memo.pop(_memo(context), None)


def known(context: StepContext) -> Endpoints | None:
    """The sides as they are remembered; a new process remembers nothing."""
    found: Endpoints | None = context.memo.get(_memo(context))
    return found


async def look_up(context: StepContext, names: Names, pairs: Sequence[Pair]) -> Endpoints:
    """Resolve the sides at the ports that these pairs name, and remember them; how many endpoints the old one had is counted once a run.

    Raises:
        PlanError: with everything that is missing.
    """
    asked = [{pair.old.port for pair in pairs}, {pair.new.port for pair in pairs}]
    sides, problems = list[Side](), list[Problem]()
    for field, side, numbers in zip(("from", "to"), names, asked, strict=True):
        resolved = await resolve(context.cluster, context.namespace, side.host, side.subset, numbers)
        if isinstance(resolved, Side):
            sides.append(resolved)
        else:
            problems.append(Problem(f"{context.place}.traffic.{field}", resolved))
    if problems:
        raise PlanError(*problems)
    before, after = await _meant(context, *sides)
    former = known(context)
    ready = former.old_ready if former else (await count(context.cluster, context.namespace, before))[0].total
    found = context.memo[_memo(context)] = Endpoints(before, after, ready)
    return found


async def _meant(context: StepContext, before: Side, after: Side) -> tuple[Side, Side]:
    """Both sides at the ports that may be meant: where the routes name none of several, not at one at which the old side answers nothing anyway."""
    if None not in before.asked or len(before.ports) == 1:
        return before, after
    at_each = await count(
        context.cluster, context.namespace, *(replace(before, ports=(port,)) for port in before.ports)
    )
    used = {port.number for port, found in zip(before.ports, at_each, strict=True) if found.total}
    return _only_at(before, used), _only_at(after, used)


def _only_at(side: Side, used: set[int]) -> Side:
    ports = tuple(port for port in side.ports if port.number in used or port.number in side.asked)
    return replace(side, ports=ports or side.ports)


def _memo(context: StepContext) -> str:
    return f"{context.place}.endpoints"


def both(snapshot: Snapshot) -> list[Side]:
    """The sides as the snapshot has them."""
    return [Side.of(snapshot.facts[which]) for which in ("from", "to")]


async def workloads(context: StepContext, snapshot: Snapshot) -> frozenset[Ref]:
    """The workloads behind both sides."""
    return frozenset(await behind(context.cluster, context.namespace, *both(snapshot)))


async def resolved(context: StepContext, *names: Destination) -> list[Side]:
    """The sides as they are now; one that is not there is left out."""
    found = [await resolve(context.cluster, context.namespace, side.host, side.subset) for side in names]
    return [side for side in found if isinstance(side, Side)]


async def as_now(context: StepContext, names: Names, known: Sequence[Side], *, wait: bool = False) -> Sequence[Side]:
    """These sides with the labels that their subsets have now; a subset that no DestinationRule defines any more has no endpoints.

    As long as no rule has changed, this is a look at a number. `wait`: a new process must know.
    """
    if not any(side.subset for side in known):
        return known
    found = await context.cluster.outlines(DESTINATION_RULES, context.namespace, wait=wait)
    if not found.number:
        return known
    key, about = f"{context.place}.subsets", (found.number, known)
    remembered = context.memo.get(key)
    if remembered is None or remembered[0] != about:
        rules = KnownRules(found.bodies, all=found.complete)
        sides = [await _as_ruled(context, name, side, rules) for name, side in zip(names, known, strict=True)]
        remembered = context.memo[key] = about, sides
    now: Sequence[Side] = remembered[1]
    return now


async def _as_ruled(context: StepContext, name: Destination, side: Side, rules: KnownRules) -> Side:
    labels = labels_in(rules, context.namespace, name.host, name.subset) if side.subset and name.subset else {}
    if not isinstance(labels, str) and labels.items() <= (side.selector or {}).items():
        return side
    # A stream may be behind, so a loss is read before it counts.
    resolved = await resolve(context.cluster, context.namespace, name.host, name.subset, side.asked)
    return resolved if isinstance(resolved, Side) else replace(side, selector=None)


async def counted(context: StepContext, names: Names, known: Sequence[Side]) -> Ready:
    """Ready endpoints of both sides, before one gets more."""
    return Ready(*await count(context.cluster, context.namespace, *await as_now(context, names, known, wait=True)))


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


async def short_of_new(context: StepContext, snapshot: Snapshot, new: Destination, ready: Ready, share: float) -> str:
    """What the new side lacks to get a share of what the old side had at the start, or has now where that is more.

    The old side may have grown since, for instance while the plan waited for an approval.
    """
    most = context.memo[_most(context)] = max(snapshot.facts["fromReady"], ready.old.total)
    side = both(snapshot)[1]
    needed = (await _needed(context, side, ready.new.total, share * most)).whole
    if ready.new.total >= needed:
        return ""
    why = "" if ready.new.total else await lost(context, new, side)
    return why or f"{new} has {ready.new} and needs {needed}"


async def lost(context: StepContext, name: Destination, side: Side) -> str:
    """Why a side has no endpoint any more at the ports that the routes name, no matter what its pods do; empty when it may have."""
    resolved = await resolve(context.cluster, context.namespace, name.host, name.subset, side.asked)
    return resolved if isinstance(resolved, str) else ""


def _most(context: StepContext) -> str:
    return f"{context.place}.most"


async def standing(
    context: StepContext,
    snapshot: Snapshot,
    names: Names,
    shares: Shares,
    patience: timedelta,
) -> Standing:
    """Whether each side that carries traffic has the ready endpoints that its share asks for.

    An old side that had none before the step is not asked for any: the traffic is on its way to where it is answered.
    """
    now = await as_now(context, names, both(snapshot), wait=context.certain)
    most = max(snapshot.facts["fromReady"], context.memo.get(_most(context), 0))
    carry = [
        (at, share)
        for at, share in enumerate((shares.old, shares.new))
        if share is not None and (at or snapshot.facts["fromReady"])
    ]
    if why := await _lost_way(context, [(names[at], now[at]) for at, _ in carry]):
        return Failing("SideNotReady", why)

    async def loads() -> list[Load]:
        ready = await count(context.cluster, context.namespace, *now, fresh=True)
        found = []
        for at, share in carry:
            needed = await _needed(context, now[at], ready[at].total, share * most)
            # A rollout, perhaps of a later step, may leave it fewer for a while.
            found.append(Load(str(names[at]), ready[at], max(1, needed.whole - needed.lacking)))
        return found

    services = frozenset(side.service for side in now)
    return await ready_sides.standing(context, services, (shares, most, now), loads, patience)


async def _lost_way(context: StepContext, loaded: Sequence[tuple[Destination, Side]]) -> str:
    """Which side carries traffic that nothing can answer, as no EndpointSlice tells it: the number of a port is in the Service alone, a subset in a rule.

    Read before what cannot be taken back, and once it has been found, in each turn until it is not so any more.
    """
    key = f"{context.place}.{context.attempt}.lost"
    undefined = any(name.subset and side.selector is None for name, side in loaded)
    if not (context.certain or undefined or context.memo.get(key)):
        return ""
    found = [(name, why) for name, side in loaded if (why := await lost(context, name, side))]
    context.memo[key] = bool(found)
    return "; ".join(f"{name} carries traffic, and {why}" for name, why in found)


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
