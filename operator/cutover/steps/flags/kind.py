"""The kind `flags`: sets keys of a ConfigMap and restarts the workloads that read it, until every pod runs with the values.

A pod reads a variable when its container starts, and the kubelet brings a mounted file up to date some time later, unseen.
So a pod is certain to run with a value only if it was made after the value was written. To tell such pods from others takes
neither a clock nor a time: the restart writes a mark into the pod template after the ConfigMap was written, and a pod that
carries the mark was made from that template.

Undo writes the old values, then takes the mark off again. That alone is the restart back: the template is what it was, byte for
byte, its pods are made anew, and no second rollout is needed to tidy up. One sort of pods would escape it: made from the old
template, but started (or started again) while our values stood, because the restart had not come to its end. Which ones were
running before is kept in the snapshot; if others of the old template are found, the template gets a second mark first, and
loses it when every pod carries that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from cutover.errors import NotFound, PlanError, Problem
from cutover.field_path import Change, Json, find
from cutover.objects.gitops import manager_of
from cutover.objects.workloads import Rollout, ending, fingerprint
from cutover.ports import Ref
from cutover.saga.turn import Again, Done, Failed, Outcome
from cutover.steps.flags import preconditions
from cutover.steps.flags.preconditions import unlisted_readers
from cutover.steps.flags.restart import (
    RESTARTED_BY,
    any_undo_blocked,
    progress,
    restart_id,
    restarted_by,
    restarted_by_of_pod,
    running_pods,
    second_id,
)
from cutover.steps.flags.spec import FlagsSpec
from cutover.steps.kind import StepContext
from cutover.steps.other_writers import foreign_writer, forget_written, note_written, repaired_too_often
from cutover.steps.rollouts import blocked, pod_counts, restored, stuck_after
from cutover.targets.fields import Foreign
from cutover.targets.snapshots import Snapshot


class Flags(FlagsSpec):
    """Sets keys of a ConfigMap and restarts the workloads that read it.

    Changes: the keys named here, then one annotation of each workload's pod template. Twice is harmless, because each field is
    brought to a value kept in the snapshots, all of which are taken before the first write. Undo brings the old values back
    (a key that was not there goes), then the annotation, and waits for the old pods.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """The ConfigMap takes the values, all its readers are named, and each restart would come to an end."""
        return await preconditions.examine(self, context)

    # --- forward ------------------------------------------------------------------------------------------------------

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Write the values, restart, and see that each pod carries the mark and no other is left."""
        del stage, prefetched
        taken = await self._snapshots(context)
        flags, *workloads = taken
        if message := await self._reverted_by(context, taken):
            return Failed("ForeignWriter", message)
        if await repaired_too_often(context, flags, values := self.forward(taken[flags])):
            return await foreign_writer(context, flags, "the values of this step")
        body = await context.targets.change(flags, taken[flags].uid, values)
        note_written(context)
        bodies = {ref: await context.targets.change(ref, taken[ref].uid, self.forward(taken[ref])) for ref in workloads}
        for ref, workload in bodies.items():
            rollout = Rollout.of(workload, ref.resource)
            if not rollout.complete and (hindrance := blocked(context, ref, rollout)):
                return hindrance
        outcome = await progress(context, bodies, {ref: taken[ref].ours[0] for ref in bodies})
        if isinstance(outcome, Again) and (who := manager_of(body)):
            return replace(outcome, message=f"{outcome.message}; {who} owns {flags} and may put it back")
        return outcome

    async def _saved(self, context: StepContext) -> dict[Ref, Snapshot]:
        return {ref: kept for ref in self.refs(context) if (kept := await context.targets.saved(ref))}

    async def _snapshots(self, context: StepContext) -> dict[Ref, Snapshot]:
        """What stands in each target before the first write to any, and which containers run; those that exist count."""
        refs = self.refs(context)
        if all(context.targets.remembers(ref) for ref in refs):
            return await self._saved(context)
        if unnamed := await unlisted_readers(self, context):
            raise PlanError(*unnamed)
        bodies = await asyncio.gather(*(context.cluster.get(ref) for ref in refs))
        pods = await asyncio.gather(
            *(running_pods(context, ref, body) for ref, body in zip(refs[1:], bodies[1:], strict=True))
        )
        keys = [("data", key) for key in self.set_]
        taken = {refs[0]: await context.targets.snapshot(refs[0], bodies[0], keys, ours=tuple(self.set_.values()))}
        for ref, body, running in zip(refs[1:], bodies[1:], pods, strict=True):
            facts = {
                "running": sorted({fingerprint(pod) for pod in running} - {""}),
                "stood": pod_counts(body, ref.resource),
            }
            taken[ref] = await context.targets.snapshot(ref, body, [RESTARTED_BY], facts, [restart_id(context)])
        return taken

    async def _reverted_by(self, context: StepContext, taken: Mapping[Ref, Snapshot]) -> str:
        """Who has put an old value back after a restart began: pods that carry the mark may have read it already."""
        flags, *workloads = taken
        begun = [restarted_by(await context.targets.view(ref)) == taken[ref].ours[0] for ref in workloads]
        if not any(begun) or not self._reverted_keys(await context.targets.view(flags), taken[flags]):
            return ""
        body = await context.cluster.get(flags)  # a stream may be behind
        if not (lost := self._reverted_keys(body, taken[flags])):
            return ""
        who, what = manager_of(body) or "somebody", f"{', '.join(lost)} of {flags}"
        return f"{who} has put {what} back while pods restarted; make it leave that alone, or change it there"

    def _reverted_keys(self, body: Json, snapshot: Snapshot) -> list[str]:
        """Keys that have their value of before again."""
        return [
            str(change.path[-1])
            for change in self.forward(snapshot)
            if (found := find(body, change.path)) and found.value == change.was != change.to
        ]

    # --- back ---------------------------------------------------------------------------------------------------------

    async def undo(self, context: StepContext, prefetched: Any) -> Outcome:
        """Write the old values, take the mark off, and see that no pod carries it. What is gone is passed over."""
        del prefetched
        forget_written(context)
        refs, taken = self.refs(context), await self._saved(context)
        if len(taken) < len(refs):  # not all were taken, so nothing was written
            for ref in refs:
                await context.targets.fence(ref)
            return Done()
        flags, *workloads = refs
        gone: dict[Ref, str] = {}
        if await self._ours_stand(context, taken[flags]):
            for ref in workloads:
                await _write_back(context, ref, taken[ref], self._mark_late, gone)
        await _write_back(context, flags, taken[flags], self._values_back, gone)
        found = {ref: await _write_back(context, ref, taken[ref], self._mark_back, gone) for ref in workloads}
        bodies = {ref: body for ref, body in found.items() if body is not None}
        before = {ref: taken[ref].values[0][1] for ref in bodies}
        back = {ref for ref, body in bodies.items() if restored(context, Rollout.of(body, ref.resource), taken[ref])}
        left = {ref: body for ref, body in bodies.items() if ref not in back}
        outcome = any_undo_blocked(context, left) or await progress(context, bodies, before, back)
        if not isinstance(outcome, Done):
            return stuck_after(context, outcome) if isinstance(outcome, Again) else outcome
        for ref in (ref for ref in refs if ref not in gone):
            await context.targets.confirm(ref, taken[ref].uid, self.restores(taken[ref]))
        return replace(outcome, message=f"skipped: {'; '.join(gone.values())}") if gone else outcome

    async def _ours_stand(self, context: StepContext, snapshot: Snapshot) -> bool:
        """Whether a pod that starts now reads one of our values."""
        try:
            body = await context.targets.view(self.refs(context)[0])
        except NotFound:
            return False
        changes = [change for change in self.forward(snapshot) if change.to != change.was]
        return any((found := find(body, change.path)) and found.value == change.to for change in changes)

    async def _mark_late(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """A restart that was never begun, though our values stood: without the mark nobody would look for such pods later."""
        begun = restarted_by(await context.targets.view(ref)) != snapshot.values[0][1]
        return [] if begun else self.forward(snapshot)

    async def _values_back(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        del context, ref
        return self.restores(snapshot)

    async def _mark_back(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """Off, unless a pod of the old template may have started with our values: then the second mark comes first."""
        (off,), ours = self.restores(snapshot), snapshot.ours[0]
        second = replace(off, to=second_id(ours))
        body = await context.targets.view(ref)
        if restarted_by(body) == ours:
            pods, known = await running_pods(context, ref, body), snapshot.facts["running"]
            old = [pod for pod in pods if restarted_by_of_pod(pod) not in (ours, second.to) and not ending(pod)]
            return [off] if all(fingerprint(pod) in known for pod in old) else [second]
        if restarted_by(body) == second.to:
            all_new = {restarted_by_of_pod(pod) for pod in await running_pods(context, ref, body)} <= {second.to}
            return [off] if all_new and restored(context, Rollout.of(body, ref.resource), snapshot) else [second]
        return [off]


_ChangesFor: TypeAlias = Callable[[StepContext, Ref, Snapshot], Awaitable[list[Change]]]
"""What is to be written to a target on rollback; nothing to leave it."""


async def _write_back(
    context: StepContext, ref: Ref, snapshot: Snapshot, changes_for: _ChangesFor, gone: dict[Ref, str]
) -> Json | None:
    """Write to one target; that it is gone is noted, and hinders no other. The object, if it was to be written."""
    try:
        changes = await changes_for(context, ref, snapshot)
        return await context.targets.change(ref, snapshot.uid, changes) if changes else None
    except NotFound as missing:
        gone[ref] = str(missing)
    except Foreign as foreign:
        if foreign.reason != "TargetReplaced":
            raise
        gone[ref] = str(foreign)
    return None
