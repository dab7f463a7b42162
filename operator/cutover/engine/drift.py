"""Drift: what other writers changed of what a run has written. Finds it, and restores it where a kind is enforced.

The snapshots of the steps say what was written. Called by the driver (`target_problem`) and by the commands.
"""

from __future__ import annotations

from dataclasses import replace

from cutover.engine.command_context import CommandContext
from cutover.errors import Conflict, Denied, NotFound, Rejected
from cutover.field_path import Change, overlap, stand
from cutover.ports import PLAN_LABEL, Ref
from cutover.preflight import accounts
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import Done, Failed, Outcome, Pause
from cutover.status.status import StepState
from cutover.steps.kind import StepContext
from cutover.steps.parts import Enforced, WritesFields
from cutover.targets.fields import Foreign


async def written_fields(context: CommandContext, ref: Ref) -> list[Change]:
    """The fields this run has written on an object so far, each as set by the last step that wrote it."""
    found: list[Change] = []
    for at in reversed(range(len(context.plan.steps))):
        if context.status.steps[at].state in TOUCHED:
            for change in await _fields_of_step(context, at, ref):
                if not any(overlap(change.path, known.path) for known in found):
                    found.append(change)
    return found


async def target_problem(context: CommandContext) -> Failed | Pause | None:
    """Whether a target is gone, or our labels were removed from it; claims it again when nothing else was changed.

    Reads only targets that are not streamed as claimed, or not known to this process yet. Raises Unavailable.
    """
    uid = context.body["metadata"]["uid"]
    for ref in context.all_targets():
        try:
            body = context.cluster.seen(ref) or await context.cluster.get(ref)
            if (body["metadata"].get("labels") or {}).get(PLAN_LABEL) == uid:
                continue
            await context.targets().claim_again(ref, await written_fields(context, ref))
        except NotFound:
            return Failed("TargetGone", f"{ref} is gone")
        except Foreign as foreign:
            return Pause(
                "ClaimLost", f"the label {PLAN_LABEL} was removed from {ref}, and {foreign}; fix it and resume"
            )
        except (Denied, Rejected) as refused:
            why = await accounts.explained(context.plan, context.ref, context.cluster, refused)
            return Pause("ClaimLost", f"{ref} cannot be claimed again: {why}")
        except Conflict:
            continue  # another write is in progress; its event starts the next turn
    return None


async def enforce(context: CommandContext) -> Outcome:
    """Restore what done steps have set, by carrying out their last stage again, as long as that was in effect.

    Idempotent, as that stage is. A step is left out once a later one has taken a snapshot of one of its fields: from
    then on that field belongs to the later step. Where that snapshot is lost, any of them may.
    """
    for at, step in enumerate(context.status.steps):
        kind, mine = context.plan.steps[at].kind, context.step_context(at)
        if (
            step.state is not StepState.DONE
            or not isinstance(kind, Enforced)
            or await _overwritten_by_later_step(context, at)
        ):
            continue
        if await _all_stand(mine, kind):  # then nothing is written, not even a higher fence
            if refused := await kind.refused(mine):
                return refused
            continue
        mine = replace(mine, applied=True, reapply=step.reapply)
        outcome: Outcome = await kind.do(mine, len(kind.stages()) - 1)
        if not isinstance(outcome, Done):
            return outcome
    return Done()


async def _all_stand(step_context: StepContext, kind: WritesFields) -> bool:
    for target in kind.touches():
        ref = target.ref(step_context.namespace)
        snapshot = await step_context.targets.saved(ref)
        if snapshot is None or not stand(await step_context.targets.view(ref), kind.forward(snapshot)):
            return False
    return True


async def _overwritten_by_later_step(context: CommandContext, at: int) -> bool:
    for target in context.plan.steps[at].kind.touches():
        ref = target.ref(context.step_context(at).namespace)
        ours = await _fields_of_step(context, at, ref)
        if not ours:  # its snapshot is gone, which its undo reports; a new one would store unknown values
            return True
        for later in range(at + 1, len(context.plan.steps)):
            if context.status.steps[later].state not in TOUCHED:
                continue
            theirs = await _fields_of_step(context, later, ref)
            lost = context.status.steps[later].snapshot_taken and not theirs and _touches(context, later, ref)
            if lost or any(overlap(own.path, other.path) for own in ours for other in theirs):
                return True
    return False


def _touches(context: CommandContext, at: int, ref: Ref) -> bool:
    return ref in context.targets_of(at)


async def _fields_of_step(context: CommandContext, at: int, ref: Ref) -> list[Change]:
    """The fields a step has written on an object; empty when it has written none, or its snapshot is gone."""
    kind = context.plan.steps[at].kind
    if not isinstance(kind, WritesFields) or not _touches(context, at, ref):
        return []
    snapshot = await context.step_context(at).targets.saved(ref)
    return kind.restores(snapshot) if snapshot is not None else []
