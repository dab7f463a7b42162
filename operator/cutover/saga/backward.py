"""The way back, and the end of a run."""

from __future__ import annotations

from dataclasses import replace

from cutover.saga.draft import Draft, fence_if_taken_over, seconds
from cutover.saga.tables import TOUCHED, PlanEvent, Reason, StepEvent
from cutover.saga.turn import STUCK_EVERY, Again, Command, Done, Failed, Turn, Verb, Wait
from cutover.status import Current, Phase, StepState


def backward(draft: Draft) -> Turn:
    """Undo the last step that may have changed something; strictly in reverse order."""
    at = next(
        (place for place in reversed(range(len(draft.status.steps))) if draft.status.steps[place].state in TOUCHED),
        None,
    )
    if at is None:
        return _let_go(draft)
    step = draft.status.steps[at]
    if step.state is not StepState.UNDOING:
        return _begin_undo(draft, at)
    match draft.inputs.outcome:
        case None:
            fence_if_taken_over(draft)
            return draft.turn(Command(Verb.UNDO, at))
        case Done():
            _loosen(draft)
            draft.step_event(at, StepEvent.UNDONE)
            draft.notice("StepUndone", f"step {step.name} is undone")
            draft.inputs = replace(draft.inputs, outcome=None)
            return backward(draft)
        case Again(after=after, message=message, ready=ready):
            _loosen(draft)
            draft.set(current=replace(draft.current, message=message, ready=ready))
            return draft.turn(None, seconds(after))
        case Wait(reason=reason, message=message) | Failed(reason=reason, message=message):
            if draft.status.phase is Phase.UNWINDING:
                draft.plan_event(PlanEvent.STICK, reason, f"step {step.name} cannot be undone: {message}")
                draft.notice("Stuck", f"step {step.name} cannot be undone: {message}", warning=True)
            draft.set(current=replace(draft.current, message=message))
            return draft.turn(None, STUCK_EVERY)


def _begin_undo(draft: Draft, at: int) -> Turn:
    rule = draft.rules.steps[at]
    draft.step_event(at, StepEvent.UNDO, draft.status.steps[at].message)
    if not rule.undoes:
        draft.step_event(at, StepEvent.UNDONE, draft.status.steps[at].message)
        draft.inputs = replace(draft.inputs, outcome=None)
        return backward(draft)
    draft.raise_fence()
    draft.set(current=Current(step=rule.name, intent="undo", started_at=draft.now))
    return draft.turn(Command(Verb.UNDO, at))


def _loosen(draft: Draft) -> None:
    if draft.status.phase is Phase.STUCK:
        failure = draft.status.failure
        draft.plan_event(PlanEvent.LOOSEN, failure.reason if failure else Reason.PROGRESSING)


def _let_go(draft: Draft) -> Turn:
    draft.set(reason=str(Reason.RELEASING), message="everything is undone; letting go of the targets", current=None)
    return draft.turn(Command(Verb.RELEASE))


def releasing(draft: Draft) -> Turn:
    """Let go of the targets, then end."""
    match draft.inputs.outcome:
        case None:
            fence_if_taken_over(draft)
            return draft.turn(Command(Verb.RELEASE))
        case Done():
            return _end(draft)
        case Again(after=after, message=message):
            draft.set(message=message)
            return draft.turn(None, seconds(after))
        case Wait(message=message) | Failed(message=message):
            draft.set(message=message)
            return draft.turn(None, STUCK_EVERY)


def _end(draft: Draft) -> Turn:
    failure = draft.status.failure
    if failure is None:
        message = f"all {len(draft.status.steps)} steps are done"
        draft.plan_event(PlanEvent.FINISH, Reason.COMPLETED, message)
        draft.notice("Succeeded", message)
    else:
        message = f"everything is as it was before; it turned back because {failure.message}"
        draft.plan_event(PlanEvent.FINISH, failure.reason, message)
        draft.notice("RolledBack", message, warning=True)
    return draft.turn(Command(Verb.UNBIND) if draft.inputs.bound else None)
