"""The kind `deploy`: changes fields of a workload's spec and waits until that very rollout is complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from cutover.errors import Denied, PlanError, Problem, Rejected
from cutover.field_path import ABSENT, Change, Path
from cutover.objects.volumes import lost_volumes
from cutover.objects.workloads import Rollout, pod_labels
from cutover.ports import Ref
from cutover.routing.resources import carried
from cutover.saga.turn import Again, Done, Failed, Outcome, Wait
from cutover.steps.deploy import preconditions
from cutover.steps.deploy.dry_run import Foreseen, foresee, would_set
from cutover.steps.deploy.spec import DeploySpec
from cutover.steps.kind import StepContext
from cutover.steps.parts import Examines, LooksAhead
from cutover.steps.shared.other_writers import foreign_writer, forget_written, note_written, repaired_too_often
from cutover.steps.shared.rollouts import (
    blocked,
    kept,
    look_again,
    needs_manual_deletion,
    pod_counts,
    restored,
    since_kept,
    stuck_after,
    undo_blocked,
    why_pods_wait,
)
from cutover.steps.shared.silent_nodes import restored_elsewhere
from cutover.targets.snapshots import Snapshot

_LOOK_AGAIN: Final = 30.0
"""Seconds; the workload is streamed, so this only makes up for a lost event."""
_REPLICAS: Final[Path] = ("spec", "replicas")
_PAUSED: Final[Path] = ("spec", "paused")


class Deploy(Examines, LooksAhead, DeploySpec):
    """Rolls out a workload.

    Changes: the images and replicas named here, and what `patch` changes. Which fields these are, a dry run of the server
    tells before the first write, and the snapshot has each with its old value and ours. Idempotent, because each
    field is set to a value and a field that has it is not written; after a crash the snapshot that exists is the one
    that counts. Undo restores the values from the snapshot and waits for the old pods.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """Nothing else manages the replicas, the server accepts the change, and the rollout is not paused."""
        return await preconditions.examine(self, context)

    async def would_set(self, context: StepContext) -> list[tuple[Ref, Change]]:
        """What the server would make of it, also where that is what is there."""
        return await would_set(self, context)

    async def prefetch(self, context: StepContext, stage: int) -> Any:
        """Ask what will change, unless there is a snapshot that has it."""
        del stage
        known = context.targets.remembers(self.rolls_out().ref(context.namespace))
        return None if known else await foresee(self, context, weigh=True)

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Set the fields, then report the progress of the rollout."""
        del stage
        ref = self.rolls_out().ref(context.namespace)
        known = await context.targets.saved(ref) if context.targets.remembers(ref) else None
        if known and await repaired_too_often(context, ref, self.forward(known)):
            return await foreign_writer(context, ref, "the fields of this step")
        # Before the snapshot: until it is taken the engine asks each time whether all that is done still stands.
        if needed := await preconditions.still_needed(context, ref, self.replicas):
            return Again(context.next_look(soonest=1.0), needed)
        if needed := await self._needed_elsewhere(context, ref, self.replicas):
            return Again(_LOOK_AGAIN, needed)
        if draining := await self._draining(context, ref, self.replicas):
            return draining
        snapshot = known or await self._snapshot(context)
        changes = self.forward(snapshot)
        body = await context.targets.change(ref, snapshot.uid, changes)
        rollout = Rollout.of(body, ref.resource)
        note_written(context)  # after the write: from here on another value is another writer's
        if rollout.at_rest:
            return Done(ready=rollout.text)
        outcome, why = blocked(context, ref, rollout), await why_pods_wait(context, ref, body)
        if outcome:
            return replace(outcome, message=f"{outcome.message}{why}") if isinstance(outcome, Failed) else outcome
        message = f"{rollout.text} pods of the new template are ready{why}"
        return Again(look_again(context, _LOOK_AGAIN), message, rollout.text)

    async def undo(self, context: StepContext) -> Outcome:
        """Restore the fields, wait until the old pods are available again, and read the fields back.

        A Deployment that was paused is paused again last: while paused, it would not bring the old pods back.
        """
        forget_written(context)
        ref = self.rolls_out().ref(context.namespace)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            # Nothing was written; the fence makes a late write of a former process fail.
            await context.targets.fence(ref)
            return Done()
        changes = self.restores(snapshot)
        if waits := await self._keeps_pods(context, ref, snapshot, changes):
            return kept(context, waits)
        context = since_kept(context)
        sooner = [change for change in changes if change.path != _PAUSED or not change.to]
        body = await context.targets.restore(ref, snapshot.uid, sooner)
        rollout = Rollout.of(body, ref.resource)
        elsewhere = "" if rollout.complete else await restored_elsewhere(context, ref, body, snapshot)
        if elsewhere or restored(context, rollout, snapshot):
            await context.targets.restore(ref, snapshot.uid, changes)
            await context.targets.confirm(ref, snapshot.uid, changes)
            return Done(ready=rollout.text, message=elsewhere)
        message = f"{rollout.text} pods of the old template are ready"
        why = await why_pods_wait(context, ref, body)
        again = Again(look_again(context, _LOOK_AGAIN), f"{message}{why}", rollout.text, reached=rollout.reached)
        if sooner != changes and not rollout.current:  # the pause may be our own write, not yet seen by the controller
            return again
        return (
            undo_blocked(context, ref, rollout)
            or needs_manual_deletion(context, ref, body, rollout)
            or stuck_after(context, again)
        )

    async def _keeps_pods(
        self, context: StepContext, ref: Ref, snapshot: Snapshot, changes: Sequence[Change]
    ) -> Again | Wait | None:
        """Why an undo may not take pods away yet. Traffic before pods: fewer under the same weight would lose requests."""
        if busy := await self._still_carries(context, ref, snapshot):
            return Wait("StillCarriesTraffic", busy)
        least = next((1 if change.to is ABSENT else change.to for change in changes if change.path == _REPLICAS), None)
        if needed := await self._needed_elsewhere(context, ref, least):
            return Wait("NeededElsewhere", needed)
        return await self._draining(context, ref, least)

    async def _snapshot(self, context: StepContext) -> Snapshot:
        """The fields before the first write, and what they will be."""
        ref = self.rolls_out().ref(context.namespace)
        try:
            prefetched = context.prefetched
            foreseen = prefetched if isinstance(prefetched, Foreseen) else await foresee(self, context, weigh=True)
        except (PlanError, Rejected, Denied):
            # A process that died in between may have written already what the server now refuses a second time.
            if known := await context.targets.saved(ref):
                return known
            raise
        # Checked before the first step too, but the workload may have changed since.
        before, place = foreseen.body["spec"], f"{context.place}.deploy"
        lost = lost_volumes(ref, place, before, foreseen.after, irreversible=context.irreversible)
        if problems := [*foreseen.mistakes, *(problem for problem in lost if not problem.warning)]:
            raise PlanError(*problems)
        paths, ours = [path for path, _, _ in foreseen.fields], [after for _, _, after in foreseen.fields]
        facts = {"carried": foreseen.carried, "stood": pod_counts(foreseen.body, ref.resource)}
        return await context.targets.snapshot(ref, foreseen.body, paths, facts, ours)

    async def _lowered(self, context: StepContext, ref: Ref, replicas: int | None) -> int | None:
        """How many replicas there are, if these are fewer; None if they are not."""
        if replicas is None:
            return None
        has: int = (await context.targets.view(ref))["spec"].get("replicas", 1)
        return has if replicas < has else None

    async def _needed_elsewhere(self, context: StepContext, ref: Ref, replicas: int | None) -> str:
        """Why replicas cannot go down yet: another plan may move traffic to these pods, or back to them. Empty when they can."""
        has = await self._lowered(context, ref, replicas)
        needed = "" if has is None else await context.needed_elsewhere(ref)
        return needed and f"{ref} cannot go from {has} to {replicas} replicas before {needed}"

    async def _draining(self, context: StepContext, ref: Ref, replicas: int | None) -> Again | None:
        """Why replicas cannot go down yet: traffic has just moved, and requests may still come to these pods."""
        has = await self._lowered(context, ref, replicas)
        if has is None or not (drain := await context.draining(ref)):
            return None
        rest = (drain.until - context.now).total_seconds()
        return Again(rest, f"{ref} keeps its {has} replicas until {drain.until:%H:%M:%S} UTC: {drain.why}")

    async def _still_carries(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> str:
        """Why replicas cannot go down yet: the pods have more weight than before the step. Empty when they can."""
        was = next((value for path, value in snapshot.values if path == _REPLICAS), None)
        if was is None:
            return ""
        body = await context.targets.view(ref)
        spec, least = body["spec"], 1 if was is ABSENT else was
        if spec.get("replicas", 1) <= least:
            return ""
        now = await carried(context.cluster, context.namespace, pod_labels(spec))
        before = snapshot.facts.get("carried", 0)
        if sum(now.values()) <= before:
            return ""
        given = ", ".join(f"{weight} from {giver}" for giver, weight in sorted(now.items()))
        return (
            f"{ref} cannot go from {spec.get('replicas', 1)} to {least} replicas while it has weight {given} "
            f"({before} before this step); restore the weights first"
        )
