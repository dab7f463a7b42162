"""The commands before the first step: examine, claim, claim again for a rollback.

Called by `commands.py`. Errors are left to it; only what all-or-none needs is caught here.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from cutover.engine.command_context import CommandContext
from cutover.engine.drift import differences
from cutover.engine.releasing import set_snapshot_owner
from cutover.errors import Denied, NotFound, PlanError, Problem, Rejected
from cutover.field_path import Path, overlap, readable
from cutover.objects import jobs
from cutover.ports import APPLIED_LABEL, DAEMON_SETS, JOBS, WORKLOADS, Cluster, Ref
from cutover.preflight import preflight, reader
from cutover.preflight.look import Look
from cutover.preflight.rollouts import rollout_changes
from cutover.saga.turn import Again, Done, Failed, Outcome, Pause, Wait
from cutover.status.reasons import Reason
from cutover.status.status import StepState
from cutover.steps.parts import LooksFirst, WritesFields
from cutover.targets import snapshots
from cutover.targets.claims import Busy
from cutover.targets.finalizer import set_finalizer
from cutover.targets.foreign import shown


async def examine(context: CommandContext) -> Outcome:
    """Find everything that is missing; when nothing is, add the finalizer."""
    if (rest := context.rests.left(context.ref, context.now)) > timedelta():
        return Again(None, "", pause=rest.total_seconds())
    look = Look(context.cluster)
    try:
        async with look:
            outcome = await _look(replace(context, cluster=look.reader), look)
    finally:  # also of a look that got no answer
        context.rests.begin(context.ref, context.now, timedelta(seconds=look.pause))
    if isinstance(outcome, Done) and not outcome.skip:
        if problems := await _seen_by_jobs(context):
            return Again(None, "; ".join(map(str, problems)), pause=look.pause)
        # The finalizer comes before the first claim: a deletion from here on must release what was claimed.
        await set_finalizer(context.cluster, context.ref, context.body, wanted=True)
    return outcome


async def _look(context: CommandContext, look: Look[Cluster]) -> Outcome:
    # First: a spec that has been applied already needs no account and no permissions any more.
    if applied := await _already_applied(context):
        return applied
    contexts = [context.step_context(at) for at in range(len(context.plan.steps))]
    found = await preflight.missing(context.plan, context.cluster, context.metrics, context.ref.namespace, contexts)
    if problems := [problem for problem in found.problems if not problem.warning]:
        return Again(None, "; ".join(map(str, problems)), pause=look.pause)
    if busy := await _busy(context):
        return busy
    bodies = await reader.targets(context.plan, context.cluster, context.ref.namespace)
    context.run_cache.examined = {ref: body for ref, body in bodies.items() if context.targets().unclaimed(body)}
    note = f"warnings: {'; '.join(map(str, found.problems))}" if found.problems else ""
    return Done(message=note, risks=found.risks)


async def _seen_by_jobs(context: CommandContext) -> list[Problem]:
    """What Jobs of the plan find missing, or which of them still look; nothing else is missing by then."""
    kinds = ((at, step.kind) for at, step in enumerate(context.plan.steps))
    looks = (kind.look(context.step_context(at)) for at, kind in kinds if isinstance(kind, LooksFirst))
    return [problem for part in await asyncio.gather(*looks) for problem in part]


async def _busy(context: CommandContext) -> Wait | None:
    for ref in context.all_targets():
        if owner := await context.targets().claimed_by(ref):
            return Wait("TargetBusy", f"{ref} is claimed by plan {owner}; waiting for it to end")
    return await _needed_elsewhere(context)


async def _needed_elsewhere(context: CommandContext) -> Wait | None:
    """Why the plan does not begin: it would take pods away that another one needs, and would have to wait in the middle."""
    bodies = await reader.targets(context.plan, context.cluster, context.ref.namespace)
    for change in rollout_changes(context.plan, bodies, context.ref.namespace):
        has, gets = (spec.get("replicas", 1) for spec in (bodies[change.ref]["spec"], change.after))
        if change.ref.resource != DAEMON_SETS and gets < has and (needed := await context.needed_elsewhere(change.ref)):
            return Wait("TargetBusy", f"{change.ref} cannot go from {has} to {gets} replicas before {needed}")
    return None


async def _already_applied(context: CommandContext) -> Outcome | None:
    """What becomes of a plan that was created again and finds the label of its spec on all its targets; None: it does not.

    The label says what was, not what is: a plan from an old backup must not undo what was decided after it.
    """
    if not await _marked(context):
        return None
    if changed := await _changed_since_applied(context):
        more = f"; {len(changed) - 1} more fields differ" if len(changed) > 1 else ""
        why = f"this spec was applied before, as the label {APPLIED_LABEL} says, and since then {changed[0]}{more}"
        way_out = (
            "to run the plan over what is there now, request retry; to keep what is there, leave the plan as it is"
        )
        return await _busy(context) or Pause(str(Reason.APPLIED_THEN_CHANGED), f"{why}; {way_out}")
    return Done(skip=True)


async def _changed_since_applied(context: CommandContext) -> list[str]:
    """The fields that do not have the value which the spec gives them; of each field the last step that sets it counts."""
    changed, later = list[str](), list[tuple[Ref, Path]]()
    for at in reversed(range(len(context.plan.steps))):
        kind = context.plan.steps[at].kind
        if not isinstance(kind, WritesFields):
            continue
        try:
            fields = await kind.would_set(context.step_context(at))
        except (PlanError, Rejected) as error:
            changed.insert(0, f"step {context.plan.steps[at].name} no longer fits: {error}")
            continue
        changed[:0] = [
            f"{readable(change.path)} of {ref} is {shown(change.was)}, where this spec sets {shown(change.to)}"
            for ref, change in fields
            if change.was != change.to and not any(ref == other and overlap(change.path, path) for other, path in later)
        ]
        later += [(ref, change.path) for ref, change in fields]
    return changed


async def _marked(context: CommandContext) -> bool:
    """Whether all targets carry the label of this spec, and no user wants it run over them all the same."""
    targets, run = context.all_targets(), context.status.run
    if not targets or run is None or run.number > 1 or run.over_applied:
        return False
    for ref in targets:
        try:
            body = await context.cluster.get(ref)
        except NotFound:
            return False
        if (body["metadata"].get("labels") or {}).get(APPLIED_LABEL) != context.applied_label:
            return False
    return True


async def claim(context: CommandContext) -> Outcome:
    """Claim all targets or none, after what earlier runs have left is deleted."""
    targets, examined = context.targets(), context.run_cache.examined
    if context.status.history:
        await _drop_former_snapshots(context)
        await jobs.delete_former(context.cluster, targets.owner)
    try:
        for ref in context.all_targets():
            body = await targets.claim(ref, examined.pop(ref, None))
            if body is not None and ref.resource in WORKLOADS and ref in context.targets_of(0):
                context.run_cache.claimed[ref] = body
    except (Busy, NotFound, Denied, Rejected) as no:
        for ref in context.all_targets():  # also those that an earlier attempt has claimed
            await targets.release(ref)
        if isinstance(no, Denied | Rejected):
            raise
        return Wait("TargetBusy", str(no))
    return Done()


async def _drop_former_snapshots(context: CommandContext) -> None:
    owner = context.targets().owner
    await snapshots.drop_former(context.cluster, owner.namespace, owner.uid, owner.run)


async def reclaim(context: CommandContext) -> Outcome:
    """Claim all targets again, if each field still has the value that the run left; otherwise claim none.

    The claims come before the comparison: nothing may change between it and the first undo. The snapshots come before the claims,
    which may take long: a foreground deletion of the plan deletes what the plan owns.
    """
    await set_finalizer(context.cluster, context.ref, context.body, wanted=True)
    await set_snapshot_owner(context, owned=False)
    try:
        outcome = await _claim_as_left(context)
    except (Denied, Rejected):  # which keep the success, as other answers than Done do
        await set_snapshot_owner(context, owned=True)
        raise
    if not isinstance(outcome, Done):
        await set_snapshot_owner(context, owned=True)
    return outcome


async def _claim_as_left(context: CommandContext) -> Outcome:
    outcome = await claim(context)
    if not isinstance(outcome, Done):
        return outcome
    context.run_cache.snapshots.clear()  # the rollback needs those that still exist, not the ones remembered here
    try:
        why = await _changed_since_success(context)
    except (NotFound, Denied, Rejected) as no:
        why = str(no)
    if why:
        for ref in context.all_targets():
            await context.targets().release(ref)
        return Failed("Changed", why)
    if JOBS in context.plan.makes():
        await jobs.reopen(context.cluster, context.targets().owner)
    return Done()


async def _changed_since_success(context: CommandContext) -> str:
    """What is no longer as the run left it; empty when everything is."""
    for at, step in enumerate(context.status.steps):
        if step.state is StepState.DONE and (changed := await differences(context, at, read=True)):
            return f"{readable(changed[0].change.path)} of {changed[0].ref} is no longer what this run left"
    for at, step in enumerate(context.status.steps):
        targets = context.targets(step.name)
        for ref in context.targets_of(at):
            if step.state is StepState.DONE and step.snapshot_taken and await targets.saved(ref) is None:
                return f"the snapshot of step {step.name} for {ref} is gone"
    return ""
