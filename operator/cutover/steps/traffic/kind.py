"""The kind `traffic`: shifts weight between two destinations of a VirtualService or an HTTPRoute, one weight at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

from cutover.errors import NotFound, Problem
from cutover.field_path import Change, Json, find
from cutover.objects.endpoints import Side
from cutover.ports import Ref
from cutover.routing.shift import REFUSED, ROLES, flat, sets, temporary_fields_of, weights_back
from cutover.saga.turn import Again, Done, Outcome
from cutover.steps.kind import Drain, StepContext
from cutover.steps.parts import Examines, LooksAhead, UndoneEarly
from cutover.steps.shared.backward import change_and_note, drain_of, old_side_not_ready
from cutover.steps.standing import Failing, Standing, Stands
from cutover.steps.traffic import drift, preconditions, sides, winners
from cutover.steps.traffic.back import EVERYTHING, WeightsBack, affordable, capacity
from cutover.steps.traffic.spec import TrafficSpec
from cutover.steps.traffic.temporary import temporary_fields
from cutover.targets.fields import Foreign
from cutover.targets.snapshots import Snapshot

_PARENTS_REPORT_WITHIN: Final = timedelta(minutes=1)
"""After this time a gateway that reports nothing keeps no pods waiting: some never report."""


class Traffic(Examines, LooksAhead, UndoneEarly, TrafficSpec):
    """Shifts traffic to a new version by weight.

    Changes: the weights of `from` and `to` in the named routes, all of them in one write, so that their sum stays the same.
    Before the first weight, where asked for: a mirror, which the next stage removes, so that no request reaches the new
    version twice; and header routes, which the last stage removes. With the first weight: a cookie for each side and routes
    for visitors who bring it, for the old side until it has no weight left, for the new side until the last stage.
    Idempotent, because each field is set to a value computed from the snapshot. Undo restores all of it in one
    write, once the old side is ready to take the traffic. A user who lowers the weight of `to`, or removes a temporary
    field, asks the plan to stop, so that is not repaired; a weight that another writer raises is.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """The routes and both destinations exist, have weight, and resolve to Services."""
        return await preconditions.examine(self, context)

    async def would_set(self, context: StepContext) -> list[tuple[Ref, Change]]:
        """The weights at the end; what is set only for a while is gone by then."""
        ref = self.ref(context)
        body = await context.targets.view(ref)
        fields = list[tuple[Ref, Change]]()
        for pair in self.pairs(context, body):
            share = self.shift().share_at(-1, pair.total, pair.new.weight)
            for side, weight in ((pair.old, pair.total - share), (pair.new, share)):
                fields.append((ref, Change(side.weight_path, to=weight, was=side.weight, ours=weight)))
        return fields

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """Count the ready endpoints of both sides; before the first weight, also read what the snapshot will hold.

        That must not be a view from a stream, which may be behind: a rollback would restore it.
        """
        endpoints = await self._endpoints(context)
        counting = sides.ready_now(context, self.ends, (endpoints.old, endpoints.new))
        if stage or context.targets.remembers(self.ref(context)):
            return sides.Prefetched(await counting)
        return sides.Prefetched(*await asyncio.gather(counting, context.cluster.get(self.ref(context))))

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Write one weight, once the new side is ready for that share."""
        ref, shift = self.ref(context), self.shift()
        here = shift.stages()[stage]
        # The snapshot comes before everything else: without it nothing that follows could be undone.
        # At the first write there is none yet, and asking for one would only cost time.
        known = stage > 0 or context.targets.remembers(ref)
        snapshot = (await context.targets.saved(ref) if known else None) or await self._snapshot(context)
        wanted, temporary = shift.weight_changes(snapshot, here.weights), shift.temporary_changes(snapshot, stage)
        # What others did comes before readiness: who lowered a weight must not wait for pods to be heard.
        found = await drift.detect(context, ref, self.to, wanted, kept=here.kept)
        standing = shift.standing(snapshot, stage, applied=context.applied)
        if stop := found.stop or await drift.removed_by_others(context, ref, standing):
            return stop
        if await drift.raises_new_side(context, ref, found.weights, [*filter(sets, temporary)]):
            if lost := await winners.lost(self, context, found.body, wait=True):
                return lost
            prefetched: sides.Prefetched | None = context.prefetched
            ready = prefetched.ready if prefetched else await sides.ready_now(context, self.ends, sides.both(snapshot))
            if short := await sides.short_of_new(context, snapshot, self.to, ready, here.share):
                return Again(context.next_look(), f"{here.rule.intent.partition(' for ')[0]} waits: {short}")
        body = await self._write(context, snapshot, found, temporary)
        if isinstance(body, Again):
            return body
        # Only what stands in the object can be refused, so the gateways are asked after the write.
        if refused := drift.not_served(self.where, body, snapshot, self.restores(snapshot)):
            return refused
        repeated = context.reapply or context.applied  # of the last stage only after a user has resumed it
        return Done(skip=(here.last and not repeated) or (here.weights > 0 and not found.weights))

    async def _write(
        self, context: StepContext, snapshot: Snapshot, found: drift.Drift, temporary: list[Change]
    ) -> Json | Again:
        """Weights and temporary fields in one write. The object; Again when another writer set a weight in between."""
        if not found.weights and not temporary:
            return found.body
        ref = self.ref(context)
        try:
            return await change_and_note(context, ref, snapshot, [*flat(found.weights), *temporary], found.body)
        except Foreign:
            if await found.outdated(context, ref):
                return Again(context.next_look(), f"another writer set the weight of {self.to} in {ref} just now")
            raise

    async def prefetch_undo(self, context: StepContext) -> Any:
        """Count the ready endpoints of both sides."""
        snapshot = await context.targets.saved(self.ref(context))
        return None if snapshot is None else await capacity(self, context, snapshot)

    async def undo(self, context: StepContext) -> Outcome:
        """Restore everything in one write, or as much weight as the old side can take, and the rest as its pods become ready.

        A weight that another writer set is restored too, because it is traffic.
        """
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            # Nothing was written; the fence makes a late write of a former process fail.
            await context.targets.fence(ref)
            return Done()
        body = await context.targets.view(ref)
        back = await self._affordable(context, snapshot, body, context.prefetched)
        if back.short and back.gets == back.has:
            return old_side_not_ready(context, back.short)
        temporary = [Change(one.path, to=one.was, was=one.was, ours=one.ours) for one in temporary_fields_of(snapshot)]
        try:
            await change_and_note(context, ref, snapshot, [*back.weights, *temporary], body)
        except Foreign:
            # Another writer changed a field. Weights are read again and restored; so are the temporary fields that are still ours.
            # One that is not must keep neither the traffic nor the rest from going back: it is reported after the write.
            body = await context.cluster.get(ref)
            ours = [one for one in temporary if (found := find(body, one.path)) and found.value in one.expects]
            back = await self._affordable(context, snapshot, body, context.prefetched)
            await change_and_note(context, ref, snapshot, [*back.weights, *ours], body)
            if ours != temporary:
                raise
        if back.short:
            return old_side_not_ready(context, back.short, reached=back.gets, moved=True)
        # Read back, not trusted: the answer of the write says nothing about who wrote after it.
        body = await context.targets.confirm(ref, snapshot.uid, [*back.weights, *temporary])
        return Done(message=self.where.refused(body, ()))

    async def _affordable(self, context: StepContext, snapshot: Snapshot, body: Json, found: Any) -> WeightsBack:
        """Readiness first: traffic that goes back to pods that are gone is lost. Where no weight moves, nothing is counted."""
        if all(change.to == change.ours for change in flat(weights_back(snapshot, body))):
            return affordable(snapshot, body, EVERYTHING, self.from_)
        return affordable(snapshot, body, found or await capacity(self, context, snapshot), self.from_)

    async def postcondition(self, context: StepContext) -> Standing:
        """Whether gateways serve what was written, and each side that carries traffic has ready pods for it.

        A gateway may report only long after the write that it continues with what it had before.
        """
        ref = self.ref(context)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            return Stands()  # nothing was written
        body = await context.targets.view(ref)
        if refused := await winners.not_served(self, context, body, snapshot):
            return Failing(refused.reason, refused.message)
        shares = sides.shares_of(snapshot, body)
        return await sides.standing(context, snapshot, self.ends, shares, self.unready_deadline)

    async def both_sides(self, context: StepContext) -> Sequence[Side]:
        """As they were when the step began; before that, as they are."""
        snapshot = await context.targets.saved(self.ref(context))
        return sides.both(snapshot) if snapshot else await sides.resolved(context, *self.ends)

    async def early_undo(self, context: StepContext) -> frozenset[Ref] | None:
        """The workloads behind both sides, when the old side can take the traffic now, or much of it."""
        snapshot = await context.targets.saved(self.ref(context))
        if snapshot is None:
            return frozenset()
        body = await context.targets.view(self.ref(context))
        if not (await self._affordable(context, snapshot, body, None)).worthwhile:
            return None
        return await sides.workloads(context, snapshot)

    async def drain_since(self, context: StepContext, moved: datetime) -> Drain | None:
        """For `drain`; where gateways report what they have taken up, also until they do, at most a minute."""
        ref, until = self.ref(context), moved + self.drain
        over = context.now >= max(until, moved + _PARENTS_REPORT_WITHIN)
        snapshot = await context.targets.saved(ref) if self.drain and not over else None
        if snapshot is None:
            return None
        why = f"traffic that step {context.targets.step} has moved drains"
        if until <= context.now < moved + _PARENTS_REPORT_WITHIN and await self._is_behind(context, ref):
            until = moved + _PARENTS_REPORT_WITHIN
            why = f"a gateway has not reported yet on what step {context.targets.step} has written"
        return await drain_of(context, until, why, sides.both(snapshot))

    async def _is_behind(self, context: StepContext, ref: Ref) -> bool:
        """Whether a gateway has not reported yet on the object as it is; of one that is gone nothing comes any more."""
        with suppress(NotFound):
            return self.where.behind(await context.targets.view(ref))
        return False

    async def _endpoints(self, context: StepContext) -> sides.Endpoints:
        return sides.known(context) or await self._look_up(context, await context.targets.view(self.ref(context)))

    async def _look_up(self, context: StepContext, body: Json) -> sides.Endpoints:
        return await sides.look_up(context, self.ends, self.pairs(context, body))

    async def _snapshot(self, context: StepContext) -> Snapshot:
        """The fields as they are, and what the two sides resolve to now: a Service may have lost a port since the run began."""
        ref = self.ref(context)
        if self.asks_for_http and (kept := await context.targets.saved(ref)):
            return kept  # taken just before a crash: the temporary fields may be set already
        prefetched: sides.Prefetched | None = context.prefetched
        body = (prefetched and prefetched.body) or await context.cluster.get(ref)
        found, endpoints = self.pairs(context, body), await self._look_up(context, body)
        weights = [
            (destination.weight_path, None) for pair in found for destination in (pair.old, pair.new)
        ]  # computed stage by stage
        fields = temporary_fields(self, context, body, found)
        paths, ours = zip(*weights, *(field[1:] for field in fields), strict=True)
        facts = endpoints.facts() | {ROLES: [role for role, _, _ in fields], REFUSED: self.where.refusals(body)}
        return await context.targets.snapshot(ref, body, paths, facts, ours)
