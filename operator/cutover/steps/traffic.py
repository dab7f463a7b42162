"""The kind `traffic`: shifts weight between two destinations of a VirtualService or an HTTPRoute, one weight at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from cutover.errors import Denied, NotFound, PlanError, Problem, Rejected
from cutover.field_path import Change, Json, Path, find, in_order, write
from cutover.objects.endpoints import Side, behind, count_ready, subsets
from cutover.ports import HTTP_ROUTES, Ref
from cutover.routing.branches import Match, Mirror, Stickiness
from cutover.routing.http_routes import HttpRoute, no_prefix, no_subset
from cutover.routing.routes import Branch, Destination, Pair, Routing, pairs
from cutover.routing.shift import REFUSED, ROLES, Course, Role, back, beside, puts
from cutover.routing.virtual_services import VirtualService
from cutover.saga.turn import Again, Done, Failed, Outcome, StageRule
from cutover.schema.model import Duration, validations
from cutover.steps import foreign_weights, sides
from cutover.steps.kind import Kind, StepContext, Target
from cutover.steps.preconditions import lacks_the_right
from cutover.steps.rollouts import old_side_not_ready
from cutover.targets.foreign import command
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Foreign


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
    version twice; and header routes, which the last stage takes away. With the first weight: a cookie of each side and routes
    that keep whoever brings it, of the old side until it has nothing left, of the new one until the last stage.
    Twice is harmless, because each field is brought to a value computed from the snapshot. Undo brings all of it back
    in one write, once the old side is ready to take the traffic. Somebody who lowers the weight of `to`, or takes away what
    was put beside it, wishes to stop, so that is not fought; a weight raised by somebody else is put back.
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            (
                "has(self.virtualService) != has(self.httpRoute)",
                "exactly one of virtualService and httpRoute says where the weights stand",
            ),
            (
                ("!has(self.httpRoute) || !has(self.from.subset) && !has(self.to.subset)"),
                "Gateway API knows no subsets; make a Service for each version, and name that",
            ),
            (
                (
                    "!(has(self.match) && size(self.match) > 0 || has(self.mirror) || has(self.stickiness)) || !has(self.virtualService) "
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

    virtual_service: VirtualService | None = Field(
        default=None, description="Where the weights stand, with Istio's own API. Exactly one of this and httpRoute."
    )
    http_route: HttpRoute | None = Field(default=None, description="Where the weights stand, with the Gateway API.")
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
    stickiness: Stickiness | None = Field(
        default=None,
        description="Visitors stay on the version that answered first, from the first weight until the end.",
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
        given = [one for one in (self.virtual_service, self.http_route) if one is not None]
        if len(given) != 1:
            found = "both; keep one" if given else "none; add one"
            raise ValueError(
                f"exactly one of virtualService and httpRoute says where the weights stand, and it has {found}"
            )
        if twice := self.where.twice():
            raise ValueError(twice)
        if self._asks_for_http and not self.where.only_http():
            raise ValueError("only http routes know headers and mirrors; take tcp and tls into a step of their own")
        if self.http_route and (subset := self.from_.subset or self.to.subset):
            raise ValueError(no_subset(subset))
        if self.http_route and (says := no_prefix(self.match)):
            raise ValueError(says)
        return self

    @property
    def _asks_for_http(self) -> bool:
        return bool(self.match or self.mirror or self.stickiness)

    @property
    def where(self) -> Routing:
        """The object in which the weights stand."""
        return self.virtual_service or self.http_route  # type: ignore[return-value]  # one of them, as the model says

    def stages(self) -> tuple[StageRule, ...]:
        """One a weight; before them the mirror and the header routes, after them the end of these."""
        return tuple(stage.rule for stage in self._course().stages())

    def touches(self) -> tuple[Target, ...]:
        """The object in which the weights stand."""
        return (Target(self.where.resource, self.where.name),)

    def fields(self, target: Target, body: Json) -> list[str]:
        """The weights, and what stands beside them for a while."""
        del target
        mirrors, sticks = self.mirror is not None, self.stickiness is not None
        return self.where.fields(body, self.match, mirrors=mirrors, sticks=sticks)

    async def examine(self, context: StepContext) -> list[Problem]:
        """The routes and both destinations are there, hold traffic, and resolve to Services."""
        problems: list[Problem] = []
        place = f"{context.place}.traffic"
        try:
            body = await context.cluster.get(self._ref(context))
            found = self._pairs(context, body)
            free = context.targets.may_take(
                body
            )  # else it waits for a plan that goes on, and that takes away what is its own
            fields = self._beside(context, body, found) if free else []
            problems += [*await self._tried(context, body, fields), *self._too_few(context, found)]
            problems += self._left(context, body, found) if free else ()
            known = await subsets(context.cluster, context.namespace)
            match = (*self.match, *([self.stickiness.match("")] if self.stickiness else ()))
            told = [*self.where.surprises(body, found, known, match)]
            if self.http_route:
                told += self.http_route.rivals(body, await context.cluster.list(HTTP_ROUTES, context.namespace), found)
            problems += [Problem(place, says, warning=True) for says in told]
        except NotFound:
            pass  # said by preflight for every target
        except PlanError as error:
            problems.extend(error.problems)
        try:
            sides.forget(context)
            await self._bearings(context)
        except PlanError as error:
            problems.extend(error.problems)
        return problems

    async def look(self, context: StepContext, stage: int) -> Any:
        """Count the ready endpoints of the new side; before the first weight, also read what the snapshot will hold.

        That must not be a view from a stream, which may be behind: it would be brought back one day.
        """
        bearings = await self._bearings(context)
        counting = count_ready(context.cluster, context.namespace, bearings.new)
        if stage or context.targets.remembers(self._ref(context)):
            return _Look((await counting)[0])
        counts, body = await asyncio.gather(counting, context.cluster.get(self._ref(context)))
        return _Look(counts[0], body)

    async def do(self, context: StepContext, stage: int, looked: _Look | None) -> Outcome:
        """Write one weight, once the new side is ready for that share."""
        ref, course = self._ref(context), self._course()
        here = course.stages()[stage]
        # On the first write there is no snapshot yet, and asking for one would only cost time.
        known = stage > 0 or context.targets.remembers(ref)
        snapshot = (await context.targets.saved(ref) if known else None) or await self._snapshot(context, looked)
        weights, others = course.changes(snapshot, here.weights), course.changes_beside(snapshot, stage)
        minded = await foreign_weights.mind(context, ref, self.to, weights, kept=here.kept)
        standing = course.standing(snapshot, stage, applied=context.applied)
        stop, weights = minded.stop or await foreign_weights.taken_away(context, ref, standing), minded.weights
        if stop is not None:
            return stop
        if await foreign_weights.raises(context, ref, weights[1::2], [*filter(puts, others)]):
            ready = looked.ready if looked else await sides.count(context, snapshot.facts["to"])
            if short := await sides.short(context, snapshot, ("to", self.to), ready, here.share):
                return Again(context.pause(), f"{here.rule.intent.partition(' for ')[0]} waits: {short}")
        body = minded.body
        try:
            if weights or others:
                body = await context.targets.change(ref, snapshot.uid, [*weights, *others], body)
        except Foreign:
            if await minded.overtaken(context, ref):
                return Again(context.pause(), f"{self.to} was given another weight in {ref} just now")
            raise
        if refused := foreign_weights.refused(self.where, body, snapshot, self.restores(snapshot)):
            return refused
        again = context.reapply or context.applied  # of the last stage only after a person has resumed it
        return Done(skip=(here.last and not again) or (here.weights > 0 and not weights))

    async def look_back(self, context: StepContext) -> Any:
        """Count the ready endpoints of the old side."""
        snapshot = await context.targets.saved(self._ref(context))
        return None if snapshot is None else await sides.count(context, snapshot.facts["from"])

    async def undo(self, context: StepContext, looked: Any) -> Outcome:
        """Bring all back in one write. A weight somebody else set is taken back too: it is traffic that counts."""
        ref = self._ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            await context.targets.fence(ref)
            return Done()
        body = await context.targets.view(ref)
        changes = back(snapshot, body)
        if any(change.to != change.ours for change in changes):
            short = await sides.short_of_old(context, snapshot, self.from_, looked)
            if short:
                return old_side_not_ready(context, f"traffic cannot go back yet: {short}")
        rest = [Change(one.path, to=one.was, was=one.was, ours=one.ours) for one in beside(snapshot)]
        try:
            await context.targets.change(ref, snapshot.uid, [*changes, *rest], body)
        except Foreign:
            # A weight set just now is looked at anew; what was done beside the weights keeps neither the traffic nor the rest.
            body = await context.cluster.get(ref)
            ours = [one for one in rest if (found := find(body, one.path)) and found.value in one.expects]
            changes = back(snapshot, body)
            await context.targets.change(ref, snapshot.uid, [*changes, *ours], body)
            if ours != rest:
                raise
        body = await context.targets.confirm(ref, snapshot.uid, [*changes, *rest])
        return Done(message=self.where.refused(body, ()))

    async def refused(self, context: StepContext) -> Failed | None:
        """A gateway may say only long after the write that it goes on with what it had before."""
        ref = self._ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            return None
        return foreign_weights.refused(self.where, await context.targets.view(ref), snapshot, self.restores(snapshot))

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Both weights of each route, and what stood beside them for a while."""
        return self._course().restores(snapshot)

    async def ahead(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads behind both sides, when the old side can take the traffic now."""
        snapshot = await context.targets.saved(self._ref(context))
        if snapshot is None:
            return frozenset()
        if await sides.short_of_old(context, snapshot, self.from_, None):
            return None
        both = [Side(**snapshot.facts[which]) for which in ("from", "to")]
        return frozenset(await behind(context.cluster, context.namespace, *both))

    # --- pieces -------------------------------------------------------------------------------------------------------

    def _ref(self, context: StepContext) -> Ref:
        return self.touches()[0].ref(context.namespace)

    def _course(self) -> Course:
        return Course(
            str(self.to),
            self.weights,
            self.dwell,
            self.settle,
            bool(self.match),
            self.mirror,
            self.stickiness is not None,
        )

    def _pairs(self, context: StepContext, body: Json) -> list[Pair]:
        return pairs(body, self.where, self.from_, self.to, f"{context.place}.traffic")

    def _beside(self, context: StepContext, body: Json, found: list[Pair]) -> list[tuple[Role, Path, Json]]:
        """The fields that are set beside the weights for a while, each with its value. Raises PlanError.

        Of routes that come in one write the last stands highest: the headers of a match go before a cookie.
        """
        place, where = f"{context.place}.traffic", self.where
        if self._asks_for_http and (other := next((pair.route for pair in found if not pair.route.http), None)):
            says = f"route {other} is not of http, and only http routes know headers and mirrors; drop match and mirror"
            raise PlanError(Problem(f"{place}.virtualService", says))
        fields = list[tuple[Role, Path, Json]]()
        for pair in found:
            fields += [
                (Role.MIRROR, *field) for field in (where.mirror(pair, self.mirror.percent) if self.mirror else ())
            ]
            fields += self._stickiness(context, body, pair)
            if self.match:
                wanted = Branch(context.targets.step, pair.new, self.match)
                fields.append((Role.MATCH, *where.branch(body, pair, wanted, f"{place}.match")))
        if says := where.too_many(body, [field[1:] for field in fields]):
            raise PlanError(Problem(place, says))
        return fields

    def _stickiness(self, context: StepContext, body: Json, pair: Pair) -> list[tuple[Role, Path, Json]]:
        """For each side the cookie that its answers set, and the route of those who bring it.

        The value is of this run and step alone: a cookie of any other means nothing.
        """
        fields, place = list[tuple[Role, Path, Json]](), f"{context.place}.traffic.stickiness"
        owner, step = context.targets.owner, context.targets.step
        for role, side, aim in ((Role.KEEPS_OLD, "from", pair.old), (Role.KEEPS_NEW, "to", pair.new)):
            if self.stickiness:
                value = f"{owner.uid[:8]}-{owner.run}-{step}-{side}"
                wanted = Branch(f"{step}-stays-{side}", aim, (self.stickiness.match(value),))
                fields.append((role, *self.where.cookie(pair.route, aim, self.stickiness.sets(value), place)))
                fields.append((role, *self.where.branch(body, pair, wanted, place)))
        return fields

    def _left(self, context: StepContext, body: Json, found: list[Pair]) -> Iterator[Problem]:
        """What an abandoned plan has left, with the command that takes it away; where we mirror too, a mirror would stay for ever."""
        for left in self.where.left_behind(body, found):
            fields = [(at, was) for path, was in left.fields if (at := find(body, path)) is not None]
            says = f"{left.message}; take it away: {command(self._ref(context), *fields)}"
            yield Problem(f"{context.place}.traffic", says, warning=not (left.mirrors and self.mirror))

    def _too_few(self, context: StepContext, found: list[Pair]) -> list[Problem]:
        """Weights that cannot express what is asked."""
        problems = []
        for pair in found:
            both = f"{self.from_} and {self.to}"
            if pair.total == 0:
                says = f"{both} have no weight in {self._ref(context)}, so there is nothing to shift"
                problems.append(Problem(f"{context.place}.traffic", f"{says}; give {self.from_} its weight first"))
            elif says := self._course().too_coarse(pair.total):
                where = f"{both} hold {pair.total} together in {self.where.word} {pair.route} of {self._ref(context)}"
                out = "give them weights that add up to 100"
                problems.append(Problem(f"{context.place}.traffic.weights", f"{where}, and {says}; {out}"))
        return problems

    async def _tried(self, context: StepContext, body: Json, fields: list[tuple[Role, Path, Json]]) -> list[Problem]:
        """Whether the server takes what is put beside the weights, and keeps all of it: a definition that is older drops some.

        Istio's keep what we write since their first version, and are not asked.
        """
        if not fields or not self.where.drops:
            return []
        place, ref = f"{context.place}.traffic", self._ref(context)
        found = [(at, value) for _, path, value in fields if (at := find(body, path)) is not None]
        writes = [one for at, value in found for one in write(at, value) if one["op"] != "test"]
        try:
            after = await context.cluster.try_out(ref, in_order(writes), context.targets.owner.account)
        except (Rejected, Denied) as refused:
            if await lacks_the_right(context, ref, refused):
                return []  # said by preflight with all other rights
            return [Problem(place, f"the server refuses {ref} with what is asked: {refused}")]
        kept = all((at := find(after, path)) is not None and at.value == value for _, path, value in fields)
        return [] if kept else [Problem(place, f"{ref} would not keep all that is written to it; {self.where.drops}")]

    async def _bearings(self, context: StepContext) -> sides.Bearings:
        return await sides.bearings(context, self.from_, self.to)

    async def _snapshot(self, context: StepContext, looked: _Look | None) -> Snapshot:
        """The fields as they are, and what stood behind the two sides at the run's start."""
        ref, bearings = self._ref(context), await self._bearings(context)
        if self._asks_for_http and (kept := await context.targets.saved(ref)):
            return kept  # taken just before a crash: what is to be put there may stand there already
        body = (looked and looked.body) or await context.cluster.get(ref)
        found = self._pairs(context, body)
        weights = [(aim.at, None) for pair in found for aim in (pair.old, pair.new)]  # worked out stage by stage
        fields = self._beside(context, body, found)
        paths, ours = zip(*weights, *(field[1:] for field in fields), strict=True)
        facts = {"from": asdict(bearings.old), "to": asdict(bearings.new), "fromReady": bearings.old_ready}
        facts |= {ROLES: [role for role, _, _ in fields], REFUSED: self.where.refusals(body)}
        return await context.targets.snapshot(ref, body, paths, facts, ours)
