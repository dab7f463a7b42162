"""Rolling back: steps that may have changed something are undone, the last one first. Called by `advance`.

Traffic is undone ahead of its turn where that is safe: users benefit at once, and later steps may take long to undo.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from cutover.saga.draft import Draft, clock, fence_if_new_process, position, seconds
from cutover.saga.end import abandon, release, time_left
from cutover.saga.tables import TOUCHED, PlanEvent, StepEvent
from cutover.saga.turn import STUCK_EVERY, Again, Command, Done, Failed, Pause, Turn, Verb, Wait
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import Current, Phase, StepState

_ACCOUNT_GONE: Final = "AccountUnusable"
"""Why an undo is stuck where nothing can be written any more, as after `kubectl delete -f` of the account with the plan."""


def backward(draft: Draft, verb: RequestVerb | None = None) -> Turn:
    """Undo one step after the other, until all are undone or a done one cannot be."""
    if verb is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    if draft.inputs.deleting and draft.inputs.terminating:
        return abandon(draft, Reason.DELETED, "the namespace is being deleted")
    at = _undo_in_progress(draft)
    if verb is RequestVerb.RETRY and not isinstance(draft.inputs.outcome, Done | Again):
        return _retry_undo(draft)
    if at >= 0 and draft.inputs.outcome is not None:
        return _take_outcome(draft, at)
    return _next(draft)


def _undo_in_progress(draft: Draft) -> int:
    """The position of the step whose undo was announced last; -1 when there is none."""
    at = position(draft.status)
    return at if at >= 0 and draft.status.steps[at].state is StepState.UNDOING else -1


def _next(draft: Draft) -> Turn:
    """The undo to be done now; it is announced first, and saved, if it was not yet."""
    steps, limit = draft.status.steps, _point_of_no_return(draft)
    left = _remaining(draft)
    if not left:
        _no_longer_stuck(draft)
        return _stop_at_point_of_no_return(draft, limit) if limit >= 0 else release(draft, "all changes were undone")
    at = _next_undo(draft, left[0])
    if steps[at].state is not StepState.UNDOING or at != _undo_in_progress(draft):
        return _announce_undo(draft, at)
    fence_if_new_process(draft)
    return draft.turn(Command(Verb.UNDO, at))


def _point_of_no_return(draft: Draft) -> int:
    """The position of the last step that is done and cannot be undone; -1 when there is none."""
    steps = zip(draft.status.steps, draft.rules.steps, strict=True)
    return max(
        (at for at, (step, rule) in enumerate(steps) if rule.irreversible and step.state is StepState.DONE), default=-1
    )


def _remaining(draft: Draft) -> list[int]:
    """The steps still to be undone, the last one first; none before the point of no return."""
    steps = draft.status.steps
    return [at for at in reversed(range(_point_of_no_return(draft) + 1, len(steps))) if steps[at].state in TOUCHED]


def _next_undo(draft: Draft, otherwise: int) -> int:
    """The undo that may be done ahead of its turn now; otherwise the given one."""
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


def _retry_undo(draft: Draft) -> Turn:
    """On request look at once at an undo that is stuck; one that has failed is attempted again."""
    draft.count_undo_attempt()
    draft.inputs = replace(draft.inputs, outcome=None)
    _no_longer_stuck(draft)
    draft.set(current=None)  # so that it is announced again, with a higher fence and its full time
    return _next(draft)


def _take_outcome(draft: Draft, at: int) -> Turn:
    """Take the outcome of the current undo."""
    step, outcome = draft.status.steps[at], draft.inputs.outcome
    draft.record_made(at)
    draft.inputs = replace(draft.inputs, outcome=None)
    match outcome:
        case Done(message=message):
            _no_longer_stuck(draft)
            draft.set_run(unreleased=None)
            draft.step_event(at, StepEvent.UNDONE, message)
            draft.notice("StepUndone", f"undid step {step.name}{f': {message}' if message else ''}")
            draft.set(current=None)
            return _next(draft)
        case Again(after=after, message=message, ready=ready, reached=reached):
            _no_longer_stuck(draft)
            current = with_progress(draft, reached)
            draft.set(current=replace(current, message=message, ready=ready, undo_failed=False))
            if _next_undo(draft, at) != at:
                return _next(draft)
            left = _time_left(draft)
            if left is not None and left <= timedelta():
                return abandon(draft, Reason.DELETED, f"the undo of step {step.name} made no progress: {message}")
            return draft.turn(None, seconds(after), left, None if left is None else STUCK_EVERY)
        case (
            Wait(reason=reason, message=message)
            | Failed(reason=reason, message=message)
            | Pause(reason=reason, message=message)
        ):
            draft.set(current=replace(draft.current, undo_failed=isinstance(outcome, Failed)))
            return _stuck(draft, step.name, reason, message)
    return draft.turn()


def _stuck(draft: Draft, name: str, reason: str, message: str) -> Turn:
    """Look again each minute; where the plan is deleted only for a while, and not without an account."""
    left = _time_left(draft)
    if left is not None and (left <= timedelta() or reason == _ACCOUNT_GONE):
        return abandon(draft, Reason.DELETED, f"undo of step {name} is stuck ({reason}: {message})")
    until = "" if left is None else f" until {clock(draft.now + left)}, then the plan is abandoned"
    how = "runs again only on retry" if draft.current.undo_failed else "is retried every minute"
    stuck = f"undo of step {name} is stuck, and {how}{until}: {message}"
    if draft.status.phase is not Phase.STUCK:
        draft.notice("Stuck", stuck, warning=True)
    draft.plan_event(PlanEvent.GET_STUCK, reason, stuck)
    draft.set(current=replace(draft.current, message=message))
    return draft.turn(None, STUCK_EVERY, left)


def with_progress(draft: Draft, reached: int) -> Current:
    """The current undo with its progress: further than ever before. A pod that gets ready again and again is no progress."""
    if reached <= draft.current.undo_progress:
        return draft.current
    draft.set_run(unreleased=None)
    return replace(draft.current, undo_progress=reached, progressed_at=draft.now)


def _time_left(draft: Draft) -> timedelta | None:
    """How long the undo of a deleted plan may still make no progress; None when the plan is not deleted."""
    return time_left(draft, 2 * STUCK_EVERY) if draft.inputs.deleting else None


def _no_longer_stuck(draft: Draft) -> None:
    if draft.status.phase is Phase.STUCK:
        failure = draft.status.failure
        draft.plan_event(PlanEvent.GET_UNSTUCK, failure.reason if failure else Reason.PROGRESSING)


def _stop_at_point_of_no_return(draft: Draft, limit: int) -> Turn:
    """Everything after the point of no return is undone; what comes before it stays."""
    name = draft.rules.steps[limit].name
    if draft.inputs.deleting:
        return abandon(draft, Reason.DELETED, f"step {name} is done and is irreversible")
    failure = draft.status.failure
    why = f"; cause: {failure.message}" if failure else ""
    message = f"the rollback stopped at step {name}, which is irreversible{why}; retry continues, abandon releases the targets"
    draft.set(current=None)
    draft.plan_event(PlanEvent.STOP_ROLLBACK, Reason.NO_RETURN, message)
    draft.set_run(paused_at=draft.now)
    draft.notice(Reason.NO_RETURN, message, warning=True)
    return draft.turn()
