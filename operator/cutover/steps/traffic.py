"""The kind `traffic`: shifts weight between two destinations of a VirtualService, one weight at a time."""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from cutover.branches import HEADER_ROUTES, MIRROR_FIELDS, OWN, Match, Mirror, header_route, left_behind, mirror
from cutover.course import Course, Stage, beside, pairs_of, puts, weights_of
from cutover.endpoints import Side, behind, count_ready, resolve, subsets, wanted
from cutover.errors import NotFound, PlanError, Problem
from cutover.fields import ABSENT, Change, Json, Path, find, readable, stand
from cutover.model import Duration, validations
from cutover.ports import VIRTUAL_SERVICES, Ref
from cutover.routes import Destination, Pair, VirtualService, number, pairs, surprises
from cutover.saga.turn import Again, Done, Hold, Outcome, StageRule
from cutover.snapshots import Snapshot
from cutover.steps.base import Kind, Target, Work, foreign_writer, old_side_not_ready, repaired_too_often
from cutover.targets import Foreign


@dataclass(frozen=True, slots=True)
class _Bearings:
    """What stands behind the two sides, and how many ready endpoints the old one had at the run's start."""

    old: Side
    new: Side
    old_ready: int


@dataclass(frozen=True, slots=True)
class _Look:
    """What is seen before a weight is written: ready endpoints of the new side, and before the first one the object."""

    ready: int
    body: Json = None


Weight = Annotated[int, Field(ge=1, le=100)]


class Traffic(Kind):
    """Shifts traffic to a new version by weight.

    Changes: the weights of `from` and `to` in the named routes, all of them in one write; they always add up to what they did.
    Before the first weight, where asked for: a mirror, which the next stage takes away, so that no request reaches the new
    version twice; and header routes of a name of their own, which the last stage takes away.
    Twice is harmless, because each field is brought to a value computed from the snapshot. Undo brings all of it back
    in one write, once the old side is ready to take the traffic. Somebody who lowers the weight of `to`, or takes away what
    was put beside it, wishes to stop, so that is not fought; a weight raised by somebody else is put back.
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                (
                    "!(has(self.match) && size(self.match) > 0 || has(self.mirror)) "
                    "|| !(has(self.virtualService.tcp) && size(self.virtualService.tcp) > 0 "
                    "|| has(self.virtualService.tls) && size(self.virtualService.tls) > 0)"
                ),
                "only http routes know headers and mirrors; take tcp and tls into a step of their own",
            ),
            ("self.weights.isSorted()", "weights must ascend; sort them"),
            (
                (
                    "self.from.host != self.to.host || has(self.from.subset) != has(self.to.subset) "
                    "|| (has(self.from.subset) && self.from.subset != self.to.subset) "
                    "|| has(self.from.port) != has(self.to.port) || (has(self.from.port) && self.from.port != self.to.port)"
                ),
                "='from and to are both ' + self.from.host + '; name two different destinations'",
            ),
        )
    )
    key: ClassVar[str] = "traffic"
    goes_ahead: ClassVar[bool] = True
    keeps: ClassVar[bool] = True

    virtual_service: VirtualService = Field(description="Where the weights stand.")
    from_: Destination = Field(alias="from", description="The destination that gives traffic away.")
    to: Destination = Field(description="The destination that gets it.")
    weights: tuple[Weight, ...] = Field(
        min_length=1,
        max_length=32,
        description="Percent for `to` of what the pair holds at the start, ascending. A weight it has already is skipped.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    match: tuple[Match, ...] = Field(
        default=(),
        max_length=8,
        description="Requests that go to the new version from before the first weight until the end of the step.",
    )
    mirror: Mirror | None = Field(
        default=None, description="Mirrors requests to the new version before the first weight."
    )
    dwell: Duration = Field(
        default=timedelta(),
        description="How long it stays at each weight, and before the first one with `match` alone.",
    )
    settle: Duration = Field(default=timedelta(), description="How long after each write nothing is judged.")

    @model_validator(mode="after")
    def _makes_sense(self) -> Traffic:
        for before, after in zip(self.weights, self.weights[1:], strict=False):
            if after <= before:
                raise ValueError(f"weights must ascend, and {after} comes after {before}; sort them and drop doubles")
        if self.from_ == self.to:
            raise ValueError(f"from and to are both {self.to}; name two different destinations")
        if twice := self.virtual_service.twice():
            raise ValueError(twice)
        if (self.match or self.mirror) and (self.virtual_service.tcp or self.virtual_service.tls):
            raise ValueError("only http routes know headers and mirrors; take tcp and tls into a step of their own")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One a weight; before them the mirror and the header routes, after them the end of these."""
        return tuple(stage.rule for stage in self._course().stages())

    def touches(self) -> tuple[Target, ...]:
        """The VirtualService."""
        return (Target(VIRTUAL_SERVICES, self.virtual_service.name),)

    def fields(self, target: Target, body: Json) -> list[str]:
        """The weights, and what stands beside them for a while."""
        del target
        found = [f".spec.{protocol}[].route[].weight" for protocol in self.virtual_service.protocols(body)]
        found += MIRROR_FIELDS if self.mirror else ()
        return [*found, HEADER_ROUTES] if self.match else found

    async def examine(self, work: Work) -> list[Problem]:
        """The routes and both destinations are there, hold traffic, and resolve to Services."""
        problems: list[Problem] = []
        place = f"{work.place}.traffic"
        try:
            body = await work.cluster.get(self._ref(work))
            found = self._pairs(work, body)
            self._beside(work, body, found)
            for says, mirrors in left_behind(self._ref(work), body, found) if work.targets.may_take(body) else ():
                problems.append(Problem(place, says, warning=not (mirrors and self.mirror)))
            for pair in found:
                if pair.total(body) == 0:
                    says = (
                        f"{self.from_} and {self.to} have no weight in {self._ref(work)}, so there is nothing to shift"
                    )
                    problems.append(Problem(place, f"{says}; give {self.from_} its weight first"))
            known = await subsets(work.cluster, work.namespace)
            problems += [Problem(place, says, warning=True) for says in surprises(body, found, known)]
        except NotFound:
            pass  # said by preflight for every target
        except PlanError as error:
            problems.extend(error.problems)
        try:
            work.memory.pop(self._memo(work), None)
            await self._bearings(work)
        except PlanError as error:
            problems.extend(error.problems)
        return problems

    async def look(self, work: Work, stage: int) -> Any:
        """Count the ready endpoints of the new side; before the first weight, also read what the snapshot will hold.

        That must not be a view from a stream, which may be behind: it would be brought back one day.
        """
        bearings = await self._bearings(work)
        counting = count_ready(work.cluster, work.namespace, bearings.new)
        if stage or work.targets.remembers(self._ref(work)):
            return _Look((await counting)[0])
        counts, body = await asyncio.gather(counting, work.cluster.get(self._ref(work)))
        return _Look(counts[0], body)

    async def do(self, work: Work, stage: int, looked: _Look | None) -> Outcome:
        """Write one weight, once the new side is ready for that share."""
        ref, course = self._ref(work), self._course()
        stages = course.stages()
        here = stages[stage]
        # On the first write there is no snapshot yet, and asking for one would only cost time.
        known = stage > 0 or work.targets.remembers(ref)
        snapshot = (await work.targets.saved(ref) if known else None) or await self._snapshot(work, looked)
        weights, others = course.changes(snapshot, here.weights), course.changes_beside(snapshot, stage)
        weights, stop = await self._mind_others(work, weights, kept=here.kept)
        stop = stop or await self._taken_away(work, others, stages[stage - 1] if stage else Stage(here.rule))
        if stop is not None:
            return stop
        if await self._raises(work, weights[1::2], [*filter(puts, others)]):
            ready = looked.ready if looked else await self._count(work, snapshot.facts["to"])
            if short := await self._short(work, snapshot, "to", ready, here.share):
                return Again(work.pause(), f"{here.rule.intent.partition(' for ')[0]} waits: {short}")
        if weights or others:
            await work.targets.change(ref, snapshot.uid, [*weights, *others])
        again = work.anew or work.applied  # of the last stage only after a person has resumed it
        return Done(skip=(here.last and not again) or (here.weights > 0 and not weights))

    async def look_back(self, work: Work) -> Any:
        """Count the ready endpoints of the old side."""
        snapshot = await work.targets.saved(self._ref(work))
        return None if snapshot is None else await self._count(work, snapshot.facts["from"])

    async def undo(self, work: Work, looked: Any) -> Outcome:
        """Bring all back in one write. A weight somebody else set is taken back too: it is traffic that counts."""
        ref = self._ref(work)
        snapshot = await work.targets.saved(ref)
        if snapshot is None:
            await work.targets.fence(ref)
            return Done()
        body = await work.targets.view(ref)
        changes = [
            Change(path, was, (was, found.value if (found := find(body, path)) else was))
            for path, was in weights_of(snapshot)
        ]
        if any(change.to != change.expects[1] for change in changes):
            short = await self._short_of_old(work, snapshot, looked)
            if short:
                return old_side_not_ready(work, f"traffic cannot go back yet: {short}")
        rest = [Change(path, was, (was, ours)) for path, was, ours in beside(snapshot)]
        try:
            await work.targets.change(ref, snapshot.uid, [*changes, *rest])
        except Foreign:  # what somebody else has done beside the weights keeps neither the traffic nor the rest
            body = await work.cluster.get(ref)
            ours = [one for one in rest if (found := find(body, one.path)) and found.value in one.expects]
            await work.targets.change(ref, snapshot.uid, [*changes, *ours])
            raise
        await work.targets.confirm(ref, snapshot.uid, [*changes, *rest])
        return Done()

    def marks(self, snapshot: Snapshot) -> list[Change]:
        """Both weights of each route, and what stood beside them for a while."""
        return self._course().marks(snapshot)

    async def ahead(self, work: Work) -> frozenset[Ref] | None:
        """The workloads behind both sides, when the old side can take the traffic now."""
        snapshot = await work.targets.saved(self._ref(work))
        if snapshot is None:
            return frozenset()
        if await self._short_of_old(work, snapshot, None):
            return None
        sides = [Side(**snapshot.facts[which]) for which in ("from", "to")]
        return frozenset(await behind(work.cluster, work.namespace, *sides))

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _ref(self, work: Work) -> Ref:
        return self.touches()[0].ref(work.namespace)

    def _course(self) -> Course:
        return Course(str(self.to), self.weights, self.dwell, self.settle, bool(self.match), self.mirror)

    def _pairs(self, work: Work, body: Json) -> list[Pair]:
        return pairs(body, self.virtual_service, self.from_, self.to, f"{work.place}.traffic")

    def _beside(self, work: Work, body: Json, found: list[Pair]) -> list[tuple[Path, Json]]:
        """The fields that are set beside the weights for a while, each with its value. Raises PlanError."""
        if (self.match or self.mirror) and (other := next((pair.route for pair in found if not pair.route.http), None)):
            says = f"route {other} is not of http, and only http routes know headers and mirrors; drop match and mirror"
            raise PlanError(Problem(f"{work.place}.traffic.virtualService", says))
        fields = [field for pair in found if self.mirror for field in mirror(pair, self.mirror.percent)]
        for pair in found if self.match else ():
            own = pair.route.body.get("name")
            name = f"{OWN}{work.targets.step}{f'-{own}' if own else ''}"
            path, route = header_route(pair, name, self.match, f"{work.place}.traffic")
            there = find(body, path)
            if (there is None or there.value is not ABSENT) and work.targets.may_take(body):
                says = f"{self._ref(work)} has a route {name} already, which an abandoned plan may have left"
                raise PlanError(Problem(f"{work.place}.traffic.match", f"{says}; take it out, or rename the step"))
            fields.append((path, route))
        return fields

    def _memo(self, work: Work) -> str:
        return f"{work.place}.bearings"

    async def _bearings(self, work: Work) -> _Bearings:
        """What the sides are, remembered since the run's start; a process that took over looks again."""
        known = work.memory.get(self._memo(work))
        if isinstance(known, _Bearings):
            return known
        sides, problems = list[Side](), list[Problem]()
        for field, side in (("from", self.from_), ("to", self.to)):
            resolved = await resolve(work.cluster, work.namespace, side.host, side.subset)
            if isinstance(resolved, Side):
                sides.append(resolved)
            else:
                problems.append(Problem(f"{work.place}.traffic.{field}", resolved))
        if problems:
            raise PlanError(*problems)
        old, new = sides
        bearings = _Bearings(old, new, (await count_ready(work.cluster, work.namespace, old))[0])
        work.memory[self._memo(work)] = bearings
        return bearings

    async def _snapshot(self, work: Work, looked: _Look | None) -> Snapshot:
        """The fields as they are, and what stood behind the two sides at the run's start."""
        ref, bearings = self._ref(work), await self._bearings(work)
        if self.match and (kept := await work.targets.saved(ref)):
            return kept  # taken just before a crash: the header route may stand there already
        body = (looked and looked.body) or await work.cluster.get(ref)
        found = self._pairs(work, body)
        weights = [(path, None) for pair in found for path in (pair.old, pair.new)]  # worked out stage by stage
        paths, ours = zip(*weights, *self._beside(work, body, found), strict=True)
        facts = {"from": asdict(bearings.old), "to": asdict(bearings.new), "fromReady": bearings.old_ready}
        return await work.targets.snapshot(ref, body, paths, facts, ours)

    async def _taken_away(self, work: Work, others: list[Change], before: Stage) -> Hold | None:
        """Whether somebody has taken away what we put beside the weights, which is a wish to stop."""
        ours = [change for change in filter(puts, others) if work.applied or before.has(change.path)]

        def gone(body: Json) -> Change | None:
            return next((one for one in ours if (at := find(body, one.path)) and at.value == one.expects[0]), None)

        ref = self._ref(work)
        if (
            not ours
            or work.anew
            or not gone(await work.targets.view(ref))
            or not (one := gone(await work.cluster.get(ref)))
        ):
            return None
        says = f"somebody has taken {readable(one.path)} out of {ref}, which this plan had put there"
        return Hold("TakenAway", f"{says}; resume puts it back, abort takes everything back")

    async def _mind_others(self, work: Work, changes: list[Change], *, kept: bool) -> tuple[list[Change], Hold | None]:
        """What somebody else has done to the weights meanwhile: the changes as they are to be made, or why to stop.

        With `kept` the weights are those of the stage before.
        """
        kept = kept or work.applied
        minded, lowered, raised = self._compare(work, changes, await work.targets.view(self._ref(work)), kept=kept)
        if lowered:  # a stream may be behind; nobody is held up without a fresh look
            body = await work.cluster.get(self._ref(work))
            minded, lowered, raised = self._compare(work, changes, body, kept=kept)
        if lowered:
            return minded, Hold("LoweredByHand", f"{lowered}; resume raises it again, abort takes everything back")
        if raised and repaired_too_often(work):
            return minded, await foreign_writer(work, self._ref(work), "the weights")
        return minded, None

    def _compare(self, work: Work, changes: list[Change], body: Json, *, kept: bool) -> tuple[list[Change], str, bool]:
        """The changes from what stands there, who has lowered what (empty: nobody), and whether somebody has raised."""
        minded, raised = list[Change](), False
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            found = [find(body, change.path) for change in (old, new)]
            if found[0] is None or found[1] is None:
                return changes, "", False  # said by `targets.change`
            live_old, live_new = found[0].value, found[1].value
            minded += [_also(old, live_old), _also(new, live_new)]
            goal = number(new.to)
            if number(live_new) == goal and number(live_old) == number(old.to):
                continue
            before = goal if kept else number(new.expects[-2])
            if number(live_new) >= goal:
                raised = True
            elif not work.anew and number(live_new) != before:
                ref, weight = self._ref(work), number(live_new)
                return (
                    minded,
                    f"somebody has lowered {self.to} to weight {weight} in {ref}, where this plan has {goal}",
                    False,
                )
        return minded, "", raised

    async def _raises(self, work: Work, weights: list[Change], others: list[Change]) -> bool:
        """Whether the new side gets more than it has; what takes from it waits for nothing."""
        body = await work.targets.view(self._ref(work))
        return not stand(body, others) or any(
            (found := find(body, weight.path)) is None or number(found.value) < number(weight.to) for weight in weights
        )

    async def _count(self, work: Work, side: dict[str, Any]) -> int:
        return (await count_ready(work.cluster, work.namespace, Side(**side)))[0]

    async def _short_of_old(self, work: Work, snapshot: Snapshot, ready: int | None) -> str:
        """What the old side lacks to take back what it had; empty when nothing is lacking."""
        share = max(number(old) / max(1, number(old) + number(new)) for (_, old), (_, new) in pairs_of(snapshot))
        if not share:
            return ""
        counted = await self._count(work, snapshot.facts["from"]) if ready is None else ready
        return await self._short(work, snapshot, "from", counted, share)

    async def _short(self, work: Work, snapshot: Snapshot, which: str, ready: int, share: float) -> str:
        """What a side lacks to take a share of the traffic; empty when it is ready for it."""
        needed = max(1, math.ceil(share * snapshot.facts["fromReady"]))
        if ready >= needed:
            return ""
        asked = await wanted(work.cluster, work.namespace, Side(**snapshot.facts[which]))
        if 0 < asked <= ready:
            return ""
        side = self.to if which == "to" else self.from_
        return f"{side} has {ready} ready endpoints, and needs {needed if not asked else min(needed, asked)}"


def _also(change: Change, live: Json) -> Change:
    """The same change, also from the value that stands there: a weight is traffic, and never left to chance."""
    return Change(change.path, change.to, (*change.expects, live))
