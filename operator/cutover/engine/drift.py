"""What the steps of a run have written so far, by their snapshots, and what of it is looked after to the end. Used by the commands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cutover.field_path import Change, overlap, stand
from cutover.plan.spec import Plan
from cutover.ports import Ref
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import Done, Outcome
from cutover.status.status import Status, StepState
from cutover.steps import StepContext
from cutover.steps.kind import Kind


async def expected(plan: Plan, status: Status, step_context: Callable[[int], StepContext], ref: Ref) -> list[Change]:
    """The fields this run has written on an object so far, each as the last step that touched it knows it."""
    found: list[Change] = []
    for at in reversed(range(len(plan.steps))):
        if status.steps[at].state in TOUCHED:
            for change in await _written(plan, step_context(at), at, ref):
                if not any(overlap(change.path, known.path) for known in found):
                    found.append(change)
    return found


async def enforce(plan: Plan, status: Status, step_context: Callable[[int], StepContext]) -> Outcome:
    """See that what done steps have left still stands, by their last stage as long as that was in effect.

    Twice is harmless as it is for that stage. A later step that has taken its own snapshot of one of the fields has taken
    them over; before that it has written nothing. Where that snapshot is lost, it may have taken over any of them.
    """
    for at, step in enumerate(status.steps):
        kind, mine = plan.steps[at].kind, step_context(at)
        if step.state is not StepState.DONE or not kind.enforced or await _taken_over(plan, status, step_context, at):
            continue
        if await _stands(mine, kind):  # nothing is written then, not even a higher fence
            if refused := await kind.refused(mine):
                return refused
            continue
        mine = replace(mine, applied=True, reapply=step.reapply)
        outcome: Outcome = await kind.do(mine, len(kind.stages()) - 1, None)
        if not isinstance(outcome, Done):
            return outcome
    return Done()


async def _stands(step_context: StepContext, kind: Kind) -> bool:
    for target in kind.touches():
        ref = target.ref(step_context.namespace)
        snapshot = await step_context.targets.saved(ref)
        if snapshot is None or not stand(await step_context.targets.view(ref), kind.forward(snapshot)):
            return False
    return True


async def _taken_over(plan: Plan, status: Status, step_context: Callable[[int], StepContext], at: int) -> bool:
    for target in plan.steps[at].kind.touches():
        ref = target.ref(step_context(at).namespace)
        ours = await _written(plan, step_context(at), at, ref)
        if not ours:  # its snapshot is gone, which its undo says; a new one would be of who knows what
            return True
        for later in range(at + 1, len(plan.steps)):
            if status.steps[later].state not in TOUCHED:
                continue
            theirs = await _written(plan, step_context(later), later, ref)
            lost = status.steps[later].snapshot_taken and not theirs and _touches(plan, step_context(later), later, ref)
            if lost or any(overlap(own.path, other.path) for own in ours for other in theirs):
                return True
    return False


def _touches(plan: Plan, step_context: StepContext, at: int, ref: Ref) -> bool:
    return any(target.ref(step_context.namespace) == ref for target in plan.steps[at].kind.touches())


async def _written(plan: Plan, step_context: StepContext, at: int, ref: Ref) -> list[Change]:
    """What a step has written on an object; empty when nothing, or when its snapshot is gone."""
    if not _touches(plan, step_context, at, ref):
        return []
    snapshot = await step_context.targets.saved(ref)
    return list(plan.steps[at].kind.restores(snapshot)) if snapshot is not None else []
