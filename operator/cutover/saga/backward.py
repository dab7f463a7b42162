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


def backward(draft: Draft, wish: RequestVerb | None = None) -> Turn:
    """Undo one step after the other, until all are undone or one that is done cannot be."""
    if wish is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    if draft.inputs.deleting and draft.inputs.terminating:
        return abandon(draft, Reason.DELETED, "the namespace is being deleted")
    at = _in_hand(draft)
    if at >= 0 and draft.inputs.outcome is not None:
        return _look_at(draft, at)
    return _next(draft)


def _in_hand(draft: Draft) -> int:
    """The step whose undo was announced last; -1 when none was."""
    at = position(draft.status)
    return at if at >= 0 and draft.status.steps[at].state is StepState.UNDOING else -1


def _next(draft: Draft) -> Turn:
    """The undo that is to be done now: announced if it is not yet."""
    steps, wall = draft.status.steps, _wall(draft)
    left = _left(draft)
    if not left:
        _loosen(draft)
        return _stop_short(draft, wall) if wall >= 0 else release(draft, "everything is undone")
    at = _ahead(draft, left[0])
    if steps[at].state is not StepState.UNDOING or at != _in_hand(draft):
        return _begin(draft, at)
    fence_if_new_process(draft)
    return draft.turn(Command(Verb.UNDO, at))


def _wall(draft: Draft) -> int:
    """The last step that is done and cannot be undone; -1 when there is none."""
    walls = zip(draft.status.steps, draft.rules.steps, strict=True)
    return max(
        (at for at, (step, rule) in enumerate(walls) if rule.irreversible and step.state is StepState.DONE), default=-1
    )


def _left(draft: Draft) -> list[int]:
    """What is to be undone, the last step first; nothing before the wall is."""
    steps = draft.status.steps
    return [at for at in reversed(range(_wall(draft) + 1, len(steps))) if steps[at].state in TOUCHED]


def _ahead(draft: Draft, otherwise: int) -> int:
    """The undo that may be taken ahead of its turn now."""
    return next((at for at in _left(draft) if at in draft.inputs.ready_to_undo), otherwise)


def _begin(draft: Draft, at: int) -> Turn:
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


def _look_at(draft: Draft, at: int) -> Turn:
    """What became of the undo in hand."""
    step, outcome = draft.status.steps[at], draft.inputs.outcome
    draft.note_made(at)
    draft.inputs = replace(draft.inputs, outcome=None)
    match outcome:
        case Done(message=message):
            _loosen(draft)
            draft.step_event(at, StepEvent.UNDONE, message)
            draft.notice("StepUndone", f"step {step.name} is undone{f': {message}' if message else ''}")
            draft.set(current=None)
            return _next(draft)
        case Again(after=after, message=message, ready=ready, reached=reached):
            _loosen(draft)
            draft.set(current=replace(_moved(draft, reached), message=message, ready=ready))
            if _ahead(draft, at) != at:
                return _next(draft)
            left = _patience(draft)
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
                draft.plan_event(PlanEvent.STICK, reason, f"step {step.name} cannot be undone: {message}")
                draft.notice("Stuck", f"step {step.name} cannot be undone: {message}", warning=True)
            draft.set(
                reason=reason,
                message=f"step {step.name} cannot be undone: {message}",
                current=replace(draft.current, message=message),
            )
            return draft.turn(None, STUCK_EVERY)
    return draft.turn()


def _moved(draft: Draft, reached: int) -> Current:
    """The undo in hand, and when it has come further than ever; a pod that gets ready again and again is no progress."""
    if reached <= draft.current.furthest:
        return draft.current
    return replace(draft.current, furthest=reached, moved_at=draft.now)


def _patience(draft: Draft) -> timedelta | None:
    """How long the undo of a deleted plan may still come no further; None when nobody has deleted the plan."""
    if draft.inputs.deleted_at is None:
        return None
    since = draft.current.moved_at or draft.current.started_at
    return NO_PROGRESS - (draft.now - max(since, draft.inputs.deleted_at))


def _loosen(draft: Draft) -> None:
    if draft.status.phase is Phase.STUCK:
        failure = draft.status.failure
        draft.plan_event(PlanEvent.LOOSEN, failure.reason if failure else Reason.PROGRESSING)


def _stop_short(draft: Draft, wall: int) -> Turn:
    """Everything after the last irreversible step is undone; what comes before it stays."""
    name = draft.rules.steps[wall].name
    if draft.inputs.deleting:
        return abandon(draft, Reason.DELETED, f"step {name} is done and cannot be undone")
    failure = draft.status.failure
    why = f"; it turned back because {failure.message}" if failure else ""
    message = f"everything after step {name} is undone, and that step cannot be{why}; retry goes on, abandon lets go"
    draft.set(current=None)
    draft.plan_event(PlanEvent.STOP_SHORT, Reason.NO_RETURN, message)
    draft.set_run(paused_at=draft.now)
    draft.notice(Reason.NO_RETURN, message, warning=True)
    return draft.turn()
