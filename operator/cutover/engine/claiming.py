"""The commands before the first step and after the last: examine, claim, claim again for a rollback, release.

Called by `commands.py`. Errors are left to it; only what all-or-none needs is caught here.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from cutover.engine import residue
from cutover.engine.command_context import CommandContext
from cutover.engine.drift import written_fields
from cutover.errors import Denied, NotFound, Rejected
from cutover.field_path import find, readable
from cutover.objects import jobs
from cutover.ports import APPLIED_LABEL, JOBS, Cluster
from cutover.preflight import preflight
from cutover.preflight.look import Look
from cutover.saga.turn import Again, Done, Failed, Outcome, Wait
from cutover.status.reasons import Reason
from cutover.status.status import ENDED, Phase, StepState
from cutover.targets import snapshots
from cutover.targets.claims import Busy
from cutover.targets.fields import Foreign
from cutover.targets.finalizer import set_finalizer


async def examine(context: CommandContext) -> Outcome:
    """Find everything that is missing; when nothing is, add the finalizer."""
    cost = Look(context.cluster)
    look = replace(context, cluster=cost.reader)
    # First: a spec that has been applied already needs no account and no permissions any more.
    if await _already_applied(context, look.cluster):
        return Done(skip=True)
    contexts = [look.step_context(at) for at in range(len(context.plan.steps))]
    found = await preflight.missing(context.plan, look.cluster, context.metrics, context.ref.namespace, contexts)
    if problems := [problem for problem in found.problems if not problem.warning]:
        return Again(None, "; ".join(map(str, problems)), pause=cost.pause)
    for ref in context.all_targets():
        if owner := await look.targets().claimed_by(ref):
            return Wait("TargetBusy", f"{ref} is claimed by plan {owner}; waiting for it to end")
    # The finalizer comes before the first claim: a deletion from here on must release what was claimed.
    await set_finalizer(context.cluster, context.ref, context.body, wanted=True)
    note = f"warnings: {'; '.join(map(str, found.problems))}" if found.problems else ""
    return Done(message=note, risks=found.risks)


async def _already_applied(context: CommandContext, cluster: Cluster) -> bool:
    """Whether a plan that was created again (a replace, a restored backup) finds the label of its spec on all its targets."""
    targets = context.all_targets()
    if not targets or context.status.run is None or context.status.run.number > 1:
        return False
    for ref in targets:
        try:
            body = await cluster.get(ref)
        except NotFound:
            return False
        if (body["metadata"].get("labels") or {}).get(APPLIED_LABEL) != _applied_label(context):
            return False
    return True


def _applied_label(context: CommandContext) -> str:
    return context.status.run.spec_hash[:32] if context.status.run else ""


async def claim(context: CommandContext) -> Outcome:
    """Claim all targets or none, after what earlier runs have left is deleted."""
    targets = context.targets()
    if context.status.history:
        await _drop_former_snapshots(context)
        await jobs.delete_former(context.cluster, targets.owner)
    try:
        for ref in context.all_targets():
            await targets.claim(ref)
    except (Busy, NotFound, Denied, Rejected) as no:
        for ref in context.all_targets():  # also those that an earlier attempt has claimed
            await targets.release(ref)
        if isinstance(no, Denied | Rejected):
            raise
        return Wait("TargetBusy", str(no))
    return Done()


async def _drop_snapshots(context: CommandContext) -> None:
    owner = context.targets().owner
    await snapshots.drop(context.cluster, owner.namespace, owner.uid, owner.run)


async def _drop_former_snapshots(context: CommandContext) -> None:
    owner = context.targets().owner
    await snapshots.drop_former(context.cluster, owner.namespace, owner.uid, owner.run)


async def _set_snapshot_owner(context: CommandContext, *, owned: bool) -> None:
    targets = context.targets()
    marks = snapshots.labels(targets.owner.uid, targets.owner.run)
    await snapshots.give(context.cluster, context.ref, marks, owned=owned, still_ours=targets.still_ours)


async def reclaim(context: CommandContext) -> Outcome:
    """Claim all targets again, if each field still has the value that the run left; otherwise claim none.

    The claims come before the comparison: nothing may change between it and the first undo.
    """
    await set_finalizer(context.cluster, context.ref, context.body, wanted=True)
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
    await _set_snapshot_owner(context, owned=False)
    if JOBS in context.plan.makes():
        await jobs.reopen(context.cluster, context.targets().owner)
    return Done()


async def _changed_since_success(context: CommandContext) -> str:
    """What is no longer as the run left it; empty when everything is."""
    for ref in context.all_targets():
        body = await context.cluster.get(ref)
        for change in await written_fields(context, ref):
            found = find(body, change.path)
            if found is None or found.value != change.ours:
                return f"{readable(change.path)} of {ref} is no longer what this run left"
    for at, step in enumerate(context.status.steps):
        targets = context.targets(step.name)
        for ref in context.targets_of(at):
            if step.state is StepState.DONE and step.snapshot_taken and await targets.saved(ref) is None:
                return f"the snapshot of step {step.name} for {ref} is gone"
    return ""


async def release(context: CommandContext) -> Outcome:
    """After a success leave its label and keep the snapshots for a while; after anything else delete them.

    Each part is idempotent, because after a crash the whole command is carried out again. The snapshots are deleted last: what an
    abandoned plan leaves behind is known only from them.
    """
    abandoned, succeeded = context.status.phase is Phase.ABANDONED, _has_succeeded(context)
    keeps_snapshots = succeeded and bool(context.plan.keep_snapshots)
    if _rolled_back_before_first_step(context):
        await _outdate_claims(context)
    if keeps_snapshots:
        await _set_snapshot_owner(context, owned=True)
    await _release_claims(context, abandoned=abandoned)
    left = await residue.residue_of(context) if abandoned else ""
    if not keeps_snapshots:
        await _drop_snapshots(context)
    return Done(message=left)


def _has_succeeded(context: CommandContext) -> bool:
    return context.status.failure is None and context.status.phase not in ENDED


def _rolled_back_before_first_step(context: CommandContext) -> bool:
    none_begun = all(step.state is StepState.PENDING for step in context.status.steps)
    return context.status.failure is not None and context.status.phase is not Phase.ABANDONED and none_begun


async def _release_claims(context: CommandContext, *, abandoned: bool) -> None:
    # The claims of an abandoned plan are void: where one may not be removed, the others and the snapshots still are.
    refused, targets = (Denied, Rejected) if abandoned else (), context.targets()
    if JOBS in context.plan.makes():
        with suppress(*refused):
            await jobs.release(context.cluster, targets.owner, abandoned=abandoned)
    label = _label_to_leave(context)
    for ref in context.all_targets():
        with suppress(*refused):
            await targets.release(ref, label, fenced=not abandoned)


def _label_to_leave(context: CommandContext) -> str | None:
    """The value for the label of a success; empty removes it, None leaves it: after a rollback what it was is true again."""
    failure = context.status.failure
    if _has_succeeded(context):
        return _applied_label(context)
    rolled_back_success = failure is not None and failure.reason == Reason.ROLLBACK
    return "" if context.status.phase is Phase.ABANDONED or rolled_back_success else None


async def _outdate_claims(context: CommandContext) -> None:
    """The run was rolled back while it claimed: raise the fence, so that a late claim of a suspended process fails."""
    for ref in context.all_targets():
        with suppress(Busy, Foreign, NotFound, Denied, Rejected):
            await context.targets().claim(ref)
