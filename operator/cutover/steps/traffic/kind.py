"""The kind `traffic`: shifts weight between two destinations of a VirtualService or an HTTPRoute, one weight at a time."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

from cutover.errors import Problem
from cutover.field_path import Change, Json, find
from cutover.objects.endpoints import Side, behind, count_ready
from cutover.ports import Ref
from cutover.routing.shift import REFUSED, ROLES, adds, back, temporary_fields_of
from cutover.saga.turn import Again, Done, Failed, Outcome
from cutover.steps.kind import StepContext
from cutover.steps.rollouts import old_side_not_ready
from cutover.steps.traffic import drift, preconditions, sides
from cutover.steps.traffic.spec import TrafficSpec
from cutover.steps.traffic.temporary import temporary_fields
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Foreign


@dataclass(frozen=True, slots=True)
class _Look:
    """What is seen before a weight is written: ready endpoints of the new side, and before the first one the object."""

    ready: int
    body: Json = None


class Traffic(TrafficSpec):
    """Shifts traffic to a new version by weight.

    Changes: the weights of `from` and `to` in the named routes, all of them in one write; they always add up to what they did.
    Before the first weight, where asked for: a mirror, which the next stage takes away, so that no request reaches the new
    version twice; and header routes, which the last stage takes away. With the first weight: a cookie of each side and routes
    that keep whoever brings it, of the old side until it has nothing left, of the new one until the last stage.
    Twice is harmless, because each field is brought to a value computed from the snapshot. Undo brings all of it back
    in one write, once the old side is ready to take the traffic. Somebody who lowers the weight of `to`, or takes away what
    was put beside it, wishes to stop, so that is not fought; a weight raised by somebody else is put back.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """The routes and both destinations are there, hold traffic, and resolve to Services."""
        return await preconditions.examine(self, context)

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """Count the ready endpoints of the new side; before the first weight, also read what the snapshot will hold.

        That must not be a view from a stream, which may be behind: it would be brought back one day.
        """
        endpoints = await self._endpoints(context)
        counting = count_ready(context.cluster, context.namespace, endpoints.new)
        if stage or context.targets.remembers(self.ref(context)):
            return _Look((await counting)[0])
        counts, body = await asyncio.gather(counting, context.cluster.get(self.ref(context)))
        return _Look(counts[0], body)

    async def do(self, context: StepContext, stage: int, prefetched: _Look | None) -> Outcome:
        """Write one weight, once the new side is ready for that share."""
        ref, shift = self.ref(context), self.shift()
        here = shift.stages()[stage]
        # On the first write there is no snapshot yet, and asking for one would only cost time.
        known = stage > 0 or context.targets.remembers(ref)
        snapshot = (await context.targets.saved(ref) if known else None) or await self._snapshot(context, prefetched)
        weights, others = shift.changes(snapshot, here.weights), shift.temporary_changes(snapshot, stage)
        found = await drift.detect(context, ref, self.to, weights, kept=here.kept)
        standing = shift.standing(snapshot, stage, applied=context.applied)
        stop, weights = found.stop or await drift.removed_by_others(context, ref, standing), found.weights
        if stop is not None:
            return stop
        if await drift.raises_new_side(context, ref, weights[1::2], [*filter(adds, others)]):
            ready = prefetched.ready if prefetched else await sides.count(context, snapshot.facts["to"])
            if short := await sides.short(context, snapshot, ("to", self.to), ready, here.share):
                return Again(context.next_look(), f"{here.rule.intent.partition(' for ')[0]} waits: {short}")
        body = found.body
        try:
            if weights or others:
                body = await context.targets.change(ref, snapshot.uid, [*weights, *others], body)
        except Foreign:
            if await found.outdated(context, ref):
                return Again(context.next_look(), f"{self.to} was given another weight in {ref} just now")
            raise
        if refused := drift.not_served(self.where, body, snapshot, self.restores(snapshot)):
            return refused
        again = context.reapply or context.applied  # of the last stage only after a person has resumed it
        return Done(skip=(here.last and not again) or (here.weights > 0 and not weights))

    async def prefetch_undo(self, context: StepContext) -> Any:
        """Count the ready endpoints of the old side."""
        snapshot = await context.targets.saved(self.ref(context))
        return None if snapshot is None else await sides.count(context, snapshot.facts["from"])

    async def undo(self, context: StepContext, prefetched: Any) -> Outcome:
        """Bring all back in one write. A weight somebody else set is taken back too: it is traffic that counts."""
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            await context.targets.fence(ref)
            return Done()
        body = await context.targets.view(ref)
        changes = back(snapshot, body)
        if any(change.to != change.ours for change in changes):
            short = await sides.short_of_old(context, snapshot, self.from_, prefetched)
            if short:
                return old_side_not_ready(context, f"traffic cannot go back yet: {short}")
        rest = [Change(one.path, to=one.was, was=one.was, ours=one.ours) for one in temporary_fields_of(snapshot)]
        try:
            await context.targets.change(ref, snapshot.uid, [*changes, *rest], body)
        except Foreign:
            # A weight set just now is prefetched at anew; what was done beside the weights keeps neither the traffic nor the rest.
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
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            return None
        return drift.not_served(self.where, await context.targets.view(ref), snapshot, self.restores(snapshot))

    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads behind both sides, when the old side can take the traffic now."""
        snapshot = await context.targets.saved(self.ref(context))
        if snapshot is None:
            return frozenset()
        if await sides.short_of_old(context, snapshot, self.from_, None):
            return None
        both = [Side(**snapshot.facts[which]) for which in ("from", "to")]
        return frozenset(await behind(context.cluster, context.namespace, *both))

    async def _endpoints(self, context: StepContext) -> sides.Endpoints:
        return await sides.endpoints(context, self.from_, self.to)

    async def _snapshot(self, context: StepContext, prefetched: _Look | None) -> Snapshot:
        """The fields as they are, and what stood behind the two sides at the run's start."""
        ref, endpoints = self.ref(context), await self._endpoints(context)
        if self.asks_for_http and (kept := await context.targets.saved(ref)):
            return kept  # taken just before a crash: what is to be put there may stand there already
        body = (prefetched and prefetched.body) or await context.cluster.get(ref)
        found = self.pairs(context, body)
        weights = [
            (destination.at, None) for pair in found for destination in (pair.old, pair.new)
        ]  # worked out stage by stage
        fields = temporary_fields(self, context, body, found)
        paths, ours = zip(*weights, *(field[1:] for field in fields), strict=True)
        facts = {"from": asdict(endpoints.old), "to": asdict(endpoints.new), "fromReady": endpoints.old_ready}
        facts |= {ROLES: [role for role, _, _ in fields], REFUSED: self.where.refusals(body)}
        return await context.targets.snapshot(ref, body, paths, facts, ours)
