"""The kind `flags`: sets keys of a ConfigMap and restarts the workloads that read it, until every pod runs with the values.

A pod reads a variable when its container starts, and the kubelet updates a mounted file some time later, unseen.
So a pod is certain to run with a value only if it was created after the value was written. No clock and no delay is needed to
tell such pods from others: the restart writes an annotation into the pod template after the ConfigMap, and a pod that
carries the annotation was created from that template.

Undo writes the old values, then removes the annotation. That alone restarts the pods: the template is what it was, byte for
byte, its pods are recreated, and no second rollout is needed to clean up. One sort of pods would escape it: created from the old
template, but started (or restarted) while our values were in place, because the restart was not complete. Which pods were
running before is kept in the snapshot; if others of the old template are found, the template gets a second annotation value first, and
loses it when every pod carries that value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from cutover.errors import NotFound, PlanError, Problem
from cutover.field_path import ABSENT, Change, Json, find
from cutover.objects.gitops import manager_of
from cutover.objects.workloads import Rollout, ending, fingerprint
from cutover.ports import Ref
from cutover.saga.turn import Again, Done, Failed, Outcome, Wait
from cutover.steps.flags import preconditions
from cutover.steps.flags.preconditions import unlisted_readers
from cutover.steps.flags.restart import (
    RESTARTED_BY,
    any_undo_blocked,
    pod_restarted_by,
    progress,
    restart_id,
    restarted_by,
    running_pods,
    second_id,
)
from cutover.steps.flags.spec import FlagsSpec
from cutover.steps.kind import StepContext
from cutover.steps.parts import Examines
from cutover.steps.shared.other_writers import foreign_writer, forget_written, note_written, repaired_too_often
from cutover.steps.shared.rollouts import blocked, pod_counts, restored, stuck_after
from cutover.targets.fields import Foreign
from cutover.targets.snapshots import Snapshot


class Flags(Examines, FlagsSpec):
    """Sets keys of a ConfigMap and restarts the workloads that read it.

    Changes: the keys named here, then one annotation of each workload's pod template. Idempotent, because each field is
    set to a value kept in the snapshots, all of which are taken before the first write. Undo restores the old values
    (a key that did not exist is removed), then the annotation, and waits for the old pods.
    """

    async def examine(self, context: StepContext) -> list[Problem]:
        """The ConfigMap accepts the values, all its readers are named, and each restart can complete."""
        return await preconditions.examine(self, context)

    async def would_set(self, context: StepContext) -> list[tuple[Ref, Change]]:
        """The keys; which run has restarted the workloads does not matter."""
        ref = self.refs(context)[0]
        body = await context.targets.view(ref)
        found = [(key, find(body, ("data", key)), value) for key, value in self.set_.items()]
        return [
            (ref, Change(("data", key), to=value, was=at.value if at else ABSENT, ours=value))
            for key, at, value in found
        ]

    # --- forward ------------------------------------------------------------------------------------------------------

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Write the values, restart, and wait until every pod carries the annotation."""
        del stage
        # All snapshots before the first write: an undo with only some of them could not tell what to restore.
        taken = await self._snapshots(context)
        flags, *workloads = taken
        if message := await self._reverted_by(context, taken):
            return Failed("ForeignWriter", message)
        if await repaired_too_often(context, flags, values := self.forward(taken[flags])):
            return await foreign_writer(context, flags, "the values of this step")
        # The values before the annotation: a pod that carries the annotation must have been created after the values.
        body = await context.targets.change(flags, taken[flags].uid, values)
        note_written(context)
        bodies = {ref: await context.targets.change(ref, taken[ref].uid, self.forward(taken[ref])) for ref in workloads}
        for ref, workload in bodies.items():
            rollout = Rollout.of(workload, ref.resource)
            if not rollout.complete and (outcome := blocked(context, ref, rollout)):
                return outcome
        done = await progress(context, bodies, {ref: taken[ref].ours[0] for ref in bodies})
        if isinstance(done, Again) and (who := manager_of(body)):
            return replace(done, message=f"{done.message}; {who} manages {flags} and may revert it")
        return done

    async def _saved(self, context: StepContext) -> dict[Ref, Snapshot]:
        return {ref: kept for ref in self.refs(context) if (kept := await context.targets.saved(ref))}

    async def _snapshots(self, context: StepContext) -> dict[Ref, Snapshot]:
        """Each target before the first write to any, and which containers run; existing snapshots count."""
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
        """Who has reverted a value after a restart began: pods that carry the annotation may have read the old value."""
        flags, *workloads = taken
        begun = [restarted_by(await context.targets.view(ref)) == taken[ref].ours[0] for ref in workloads]
        if not any(begun) or not self._reverted_keys(await context.targets.view(flags), taken[flags]):
            return ""
        body = await context.cluster.get(flags)  # a stream may be behind; nobody is blamed without a read
        if not (lost := self._reverted_keys(body, taken[flags])):
            return ""
        who, what = manager_of(body) or "another writer", f"{', '.join(lost)} of {flags}"
        return f"{who} has reverted {what} while pods restarted; stop it from reverting that, or change it there"

    def _reverted_keys(self, body: Json, snapshot: Snapshot) -> list[str]:
        """Keys that have their old value again."""
        return [
            str(change.path[-1])
            for change in self.forward(snapshot)
            if (found := find(body, change.path)) and found.value == change.was != change.to
        ]

    # --- undo ---------------------------------------------------------------------------------------------------------

    async def undo(self, context: StepContext) -> Outcome:
        """Write the old values, remove the annotation, and wait until no pod carries it. A target that was deleted is skipped."""
        forget_written(context)
        refs, taken = self.refs(context), await self._saved(context)
        if len(taken) < len(refs):  # not all snapshots were taken, so nothing was written
            # The fence makes a late write of a former process fail.
            for ref in refs:
                await context.targets.fence(ref)
            return Done()
        gone: dict[Ref, str] = {}
        bodies = await self._restore(context, taken, gone)
        outcome = await self._undo_progress(context, taken, bodies)
        if not isinstance(outcome, Done):
            return stuck_after(context, outcome) if isinstance(outcome, Again) else outcome
        # Only when every pod is back: fields are read back last, so that a late change of another writer is seen.
        for ref in (ref for ref in refs if ref not in gone):
            await context.targets.confirm(ref, taken[ref].uid, self.restores(taken[ref]))
        return replace(outcome, message=f"skipped: {'; '.join(gone.values())}") if gone else outcome

    async def _undo_progress(
        self, context: StepContext, taken: Mapping[Ref, Snapshot], bodies: Mapping[Ref, Json]
    ) -> Again | Done | Wait:
        before = {ref: taken[ref].values[0][1] for ref in bodies}
        back = {ref for ref, body in bodies.items() if restored(context, Rollout.of(body, ref.resource), taken[ref])}
        waiting = {ref: body for ref, body in bodies.items() if ref not in back}
        return any_undo_blocked(context, waiting) or await progress(context, bodies, before, back)

    async def _restore(
        self, context: StepContext, taken: Mapping[Ref, Snapshot], gone: dict[Ref, str]
    ) -> dict[Ref, Json]:
        """Write the old values and start the restarts back. The workloads as they are then; deleted targets go into `gone`."""
        flags, *workloads = self.refs(context)
        # While our values are in place a pod may start with them. The annotation comes first, so that such pods are found.
        if await self._ours_in_place(context, taken[flags]):
            for ref in workloads:
                await _write_back(context, ref, taken[ref], self._late_restart, gone)
        # The old values before the restart back: a pod that starts from here on must read them.
        await _write_back(context, flags, taken[flags], self._old_values, gone)
        found = {ref: await _write_back(context, ref, taken[ref], self._restart_back, gone) for ref in workloads}
        return {ref: body for ref, body in found.items() if body is not None}

    async def _ours_in_place(self, context: StepContext, snapshot: Snapshot) -> bool:
        """Whether a pod that starts now would read one of our values."""
        try:
            body = await context.targets.view(self.refs(context)[0])
        except NotFound:
            return False
        changes = [change for change in self.forward(snapshot) if change.to != change.was]
        return any((found := find(body, change.path)) and found.value == change.to for change in changes)

    async def _late_restart(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """A restart that never began although our values were in place: without the annotation such pods would not be found later."""
        begun = restarted_by(await context.targets.view(ref)) != snapshot.values[0][1]
        return [] if begun else self.forward(snapshot)

    async def _old_values(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        del context, ref
        return self.restores(snapshot)

    async def _restart_back(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """Remove it, unless a pod of the old template may have started with our values: then the second value comes first."""
        (off,), ours = self.restores(snapshot), snapshot.ours[0]
        second = replace(off, to=second_id(ours))
        body = await context.targets.view(ref)
        if restarted_by(body) == ours:
            pods, known = await running_pods(context, ref, body), snapshot.facts["running"]
            old = [pod for pod in pods if pod_restarted_by(pod) not in (ours, second.to) and not ending(pod)]
            return [off] if all(fingerprint(pod) in known for pod in old) else [second]
        if restarted_by(body) == second.to:
            all_new = {pod_restarted_by(pod) for pod in await running_pods(context, ref, body)} <= {second.to}
            return [off] if all_new and restored(context, Rollout.of(body, ref.resource), snapshot) else [second]
        return [off]


_ChangesFor: TypeAlias = Callable[[StepContext, Ref, Snapshot], Awaitable[list[Change]]]
"""What an undo writes to a target; nothing leaves it as it is."""


async def _write_back(
    context: StepContext, ref: Ref, snapshot: Snapshot, changes_for: _ChangesFor, gone: dict[Ref, str]
) -> Json | None:
    """Write to one target. A deleted one is noted and does not block the others. Returns the object if it was to be written."""
    try:
        changes = await changes_for(context, ref, snapshot)
        return await context.targets.restore(ref, snapshot.uid, changes) if changes else None
    except NotFound as missing:
        gone[ref] = str(missing)
    except Foreign as foreign:
        if foreign.reason != "TargetReplaced":
            raise
        gone[ref] = str(foreign)
    return None
