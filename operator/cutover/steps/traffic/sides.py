"""The two sides of a shift: what each resolves to, and whether it is ready for its share of the traffic.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

from cutover.errors import PlanError, Problem
from cutover.field_path import Json, find
from cutover.objects.endpoints import Side, behind, resolve, wanted
from cutover.objects.hosts import service_of
from cutover.objects.serving import Count, count
from cutover.objects.subsets import KnownRules, labels_in
from cutover.ports import DESTINATION_RULES, SERVICES, Outlines, Ref
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
    """Ready endpoints of both sides, and why nothing that is sent to the new one arrives; empty when it does."""

    old: Count
    new: Count
    lost: str = ""


@dataclass(frozen=True, slots=True)
class Now:
    """Both sides as they are by now.

    Attributes:
        sides: what they resolve to; one that does not any more, as it was.
        lost: of each why nothing that is sent to it arrives, no matter what its pods do; empty where it may.
    """

    sides: tuple[Side, Side]
    lost: tuple[str, str] = ("", "")

    async def count(self, context: StepContext, *, fresh: bool = False) -> Ready:
        """Their ready endpoints; of one that is lost none."""
        found = await count(context.cluster, context.namespace, *self.sides, fresh=fresh)
        old, new = (Count(0) if why else one for one, why in zip(found, self.lost, strict=True))
        return Ready(old, new, self.lost[1])


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
    said = await _said(context, names, wait=True)  # before they are read: what changes afterwards is news
    asked = [{pair.old.port for pair in pairs}, {pair.new.port for pair in pairs}]
    sides, problems = list[Side](), list[Problem]()
    looks = (
        resolve(context.cluster, context.namespace, side.host, side.subset, numbers)
        for side, numbers in zip(names, asked, strict=True)
    )
    for field, resolved in zip(("from", "to"), await asyncio.gather(*looks), strict=True):
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
    context.memo[_now(context)] = said, Now((before, after))
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


def both(snapshot: Snapshot) -> tuple[Side, Side]:
    """The sides as the snapshot has them."""
    return Side.of(snapshot.facts["from"]), Side.of(snapshot.facts["to"])


async def workloads(context: StepContext, snapshot: Snapshot) -> frozenset[Ref]:
    """The workloads behind both sides."""
    return frozenset(await behind(context.cluster, context.namespace, *both(snapshot)))


async def resolved(context: StepContext, *names: Destination) -> list[Side]:
    """The sides as they are now; one that is not there is left out."""
    found = [await resolve(context.cluster, context.namespace, side.host, side.subset) for side in names]
    return [side for side in found if isinstance(side, Side)]


# --- what has become of them ------------------------------------------------------------------------------------------


async def as_now(
    context: StepContext, names: Names, known: tuple[Side, Side], *, wait: bool = False, afresh: Collection[int] = ()
) -> Now:
    """The sides as their Services and the DestinationRules have them by now. As long as these stay the same, this asks nobody.

    Which port a number is stands in the Service alone, and which pods a subset has in a rule: no EndpointSlice tells either.

    Args:
        context: of the step.
        names: as the step names them.
        known: as they were.
        wait: a new process waits until it knows what is streamed.
        afresh: which of them are read in any case.
    """
    said = await _said(context, names, wait=wait)
    was: tuple[object, Now] = context.memo.get(_now(context), (None, Now(known)))
    sides, lost = list(was[1].sides), list(was[1].lost)
    changed = said is not None and said != was[0]
    for at in range(len(names)) if changed else afresh:
        name, before = names[at], known[at]
        found = await resolve(context.cluster, context.namespace, name.host, name.subset, before.asked)
        lost[at] = found if isinstance(found, str) else ""
        sides[at] = before if isinstance(found, str) else _only_at(found, {port.number for port in before.ports})
    (old, new), (no_old, no_new) = sides, lost
    now = Now((old, new), (no_old, no_new))
    context.memo[_now(context)] = said if changed else was[0], now
    return now


async def _said(context: StepContext, names: Names, *, wait: bool) -> object | None:
    """What is streamed of the Services and subsets of both sides; None while it is not."""
    namespace, subsets = context.namespace, [name for name in names if name.subset]
    services = await context.cluster.outlines(SERVICES, namespace, wait=wait)
    rules = await context.cluster.outlines(DESTINATION_RULES, namespace, wait=wait) if subsets else Outlines(number=1)
    if not services.number or not rules.number:
        return None
    key, numbers = f"{context.place}.said", (services.number, rules.number)
    said: tuple[object, object] = context.memo.get(key, (None, None))
    if said[0] != numbers:
        mine = [(namespace, service_of(name.host, namespace)) for name in names]
        own = [one for one in services.bodies if (one["metadata"]["namespace"], one["metadata"]["name"]) in mine]
        known = KnownRules(rules.bodies, all=rules.complete)
        labels = [labels_in(known, namespace, name.host, name.subset or "") for name in subsets]
        said = context.memo[key] = numbers, (own, labels)
    return said[1]


def _now(context: StepContext) -> str:
    return f"{context.place}.now"


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


async def ready_now(context: StepContext, names: Names, known: tuple[Side, Side]) -> Ready:
    """Ready endpoints of both sides, before one gets more."""
    return await (await as_now(context, names, known, wait=True)).count(context)


async def short_of_new(context: StepContext, snapshot: Snapshot, new: Destination, ready: Ready, share: float) -> str:
    """What the new side lacks to get a share of what the old side had at the start, or has now where that is more.

    The old side may have grown since, for instance while the plan waited for an approval.
    """
    most = context.memo[_most(context)] = max(snapshot.facts["fromReady"], ready.old.total)
    side = both(snapshot)[1]
    needed = (await _needed(context, side, ready.new.total, share * most)).whole
    if ready.new.total >= needed:
        return ""
    return ready.lost or f"{new} has {ready.new} and needs {needed}"


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
    most = max(snapshot.facts["fromReady"], context.memo.get(_most(context), 0))
    carry = [
        (at, share)
        for at, share in enumerate((shares.old, shares.new))
        if share is not None and (at or snapshot.facts["fromReady"])
    ]
    afresh = [at for at, _ in carry] if context.certain else ()
    now = await as_now(context, names, both(snapshot), wait=context.certain, afresh=afresh)
    if lost := [f"{names[at]} carries traffic, and {now.lost[at]}" for at, _ in carry if now.lost[at]]:
        return Failing("SideNotReady", "; ".join(lost))

    async def loads() -> list[Load]:
        ready = await now.count(context, fresh=True)
        found = []
        for at, share in carry:
            counted = (ready.old, ready.new)[at]
            needed = await _needed(context, now.sides[at], counted.total, share * most)
            # A rollout, perhaps of a later step, may leave it fewer for a while.
            found.append(Load(str(names[at]), counted, max(1, needed.whole - needed.lacking)))
        return found

    services = frozenset(side.service for side in now.sides)
    return await ready_sides.standing(context, services, (shares, most, now), loads, patience)


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
