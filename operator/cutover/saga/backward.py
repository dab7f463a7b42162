"""The way back: the last step that may have changed something first, traffic ahead of its turn where that is safe."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cutover.saga.draft import Draft, fence_if_new_process, position, seconds
from cutover.saga.end import abandon, release
from cutover.saga.tables import TOUCHED, PlanEvent, StepEvent
from cutover.saga.turn import NO_PROGRESS, STUCK_EVERY, Again, Command, Done, Failed, Pause, Turn, Verb, Wait
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import Current, Phase, StepState


def backward(draft: Draft, verb: RequestVerb | None = None) -> Turn:
    """Undo one step after the other, until all are undone or one that is done cannot be."""
    if verb is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    if draft.inputs.deleting and draft.inputs.terminating:
        return abandon(draft, Reason.DELETED, "the namespace is being deleted")
    at = _undo_in_progress(draft)
    if at >= 0 and draft.inputs.outcome is not None:
        return _take_outcome(draft, at)
    return _next(draft)


def _undo_in_progress(draft: Draft) -> int:
    """The step whose undo was announced last; -1 when none was."""
    at = position(draft.status)
    return at if at >= 0 and draft.status.steps[at].state is StepState.UNDOING else -1


def _next(draft: Draft) -> Turn:
    """The undo that is to be done now: announced if it is not yet."""
    steps, last = draft.status.steps, _point_of_no_return(draft)
    left = _remaining(draft)
    if not left:
        _no_longer_stuck(draft)
        return _stop_at_point_of_no_return(draft, last) if last >= 0 else release(draft, "everything is undone")
    at = _next_undo(draft, left[0])
    if steps[at].state is not StepState.UNDOING or at != _undo_in_progress(draft):
        return _announce_undo(draft, at)
    fence_if_new_process(draft)
    return draft.turn(Command(Verb.UNDO, at))


def _point_of_no_return(draft: Draft) -> int:
    """The last step that is done and cannot be undone; -1 when there is none."""
    walls = zip(draft.status.steps, draft.rules.steps, strict=True)
    return max(
        (at for at, (step, rule) in enumerate(walls) if rule.irreversible and step.state is StepState.DONE), default=-1
    )


def _remaining(draft: Draft) -> list[int]:
    """What is to be undone, the last step first; nothing before the last is."""
    steps = draft.status.steps
    return [at for at in reversed(range(_point_of_no_return(draft) + 1, len(steps))) if steps[at].state in TOUCHED]


def _next_undo(draft: Draft, otherwise: int) -> int:
    """The undo that may be taken ahead of its turn now."""
    return next((at for at in _remaining(draft) if at in draft.inputs.ready_to_undo), otherwise)


def _announce_undo(draft: Draft, at: int) -> Turn:
    rule, step = draft.rules.steps[at], draft.status.steps[at]
    if step.state is not StepState.UNDOING:
        draft.step_event(at, StepEvent.UNDO, step.message)
    if not rule.undoes:
        draft.step_event(at, StepEvent.UNDONE, step.message)
        draft.set(current=None)
        return _next(draft)
    draft.raise_fence()
    draft.set(current=Current(step=rule.name, intent="undo", started_at=draft.now))
    return draft.turn(Command(Verb.UNDO, at))


def _take_outcome(draft: Draft, at: int) -> Turn:
    """What became of the undo in hand."""
    step, outcome = draft.status.steps[at], draft.inputs.outcome
    draft.record_made(at)
    draft.inputs = replace(draft.inputs, outcome=None)
    match outcome:
        case Done(message=message):
            _no_longer_stuck(draft)
            draft.step_event(at, StepEvent.UNDONE, message)
            draft.notice("StepUndone", f"step {step.name} is undone{f': {message}' if message else ''}")
            draft.set(current=None)
            return _next(draft)
        case Again(after=after, message=message, ready=ready, reached=reached):
            _no_longer_stuck(draft)
            draft.set(current=replace(_with_progress(draft, reached), message=message, ready=ready))
            if _next_undo(draft, at) != at:
                return _next(draft)
            left = _time_left(draft)
            if left is not None and left <= timedelta():
                return abandon(draft, Reason.DELETED, f"the undo of step {step.name} made no progress")
            return draft.turn(None, seconds(after), left)
        case (
            Wait(reason=reason, message=message)
            | Failed(reason=reason, message=message)
            | Pause(reason=reason, message=message)
        ):
            if draft.inputs.deleting:
                return abandon(draft, Reason.DELETED, f"step {step.name} cannot be undone ({reason}: {message})")
            if draft.status.phase is Phase.ROLLING_BACK:
                draft.plan_event(PlanEvent.GET_STUCK, reason, f"step {step.name} cannot be undone: {message}")
                draft.notice("Stuck", f"step {step.name} cannot be undone: {message}", warning=True)
            draft.set(
                reason=reason,
                message=f"step {step.name} cannot be undone: {message}",
                current=replace(draft.current, message=message),
            )
            return draft.turn(None, STUCK_EVERY)
    return draft.turn()


def _with_progress(draft: Draft, reached: int) -> Current:
    """The undo in hand, and when it has come further than ever; a pod that gets ready again and again is no progress."""
    if reached <= draft.current.undo_progress:
        return draft.current
    return replace(draft.current, undo_progress=reached, progressed_at=draft.now)


def _time_left(draft: Draft) -> timedelta | None:
    """How long the undo of a deleted plan may still come no further; None when nobody has deleted the plan."""
    if draft.inputs.deleted_at is None:
        return None
    since = draft.current.progressed_at or draft.current.started_at
    return NO_PROGRESS - (draft.now - max(since, draft.inputs.deleted_at))


def _no_longer_stuck(draft: Draft) -> None:
    if draft.status.phase is Phase.STUCK:
        failure = draft.status.failure
        draft.plan_event(PlanEvent.GET_UNSTUCK, failure.reason if failure else Reason.PROGRESSING)


def _stop_at_point_of_no_return(draft: Draft, last: int) -> Turn:
    """Everything after the last irreversible step is undone; what comes before it stays."""
    name = draft.rules.steps[last].name
    if draft.inputs.deleting:
        return abandon(draft, Reason.DELETED, f"step {name} is done and cannot be undone")
    failure = draft.status.failure
    why = f"; it turned back because {failure.message}" if failure else ""
    message = f"everything after step {name} is undone, and that step cannot be{why}; retry goes on, abandon lets go"
    draft.set(current=None)
    draft.plan_event(PlanEvent.STOP_ROLLBACK, Reason.NO_RETURN, message)
    draft.set_run(paused_at=draft.now)
    draft.notice(Reason.NO_RETURN, message, warning=True)
    return draft.turn()
