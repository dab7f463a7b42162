"""User requests: whether one is accepted now, what is recorded, and how a plan is paused and resumed.

Called by `advance` before anything else is decided, so that an abort is never too late by a turn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Final, NamedTuple

from cutover.saga.draft import Draft, position
from cutover.saga.tables import PlanEvent, StepEvent
from cutover.saga.turn import Rules
from cutover.status.phases import ON_PURPOSE, RELEASING, STOPPED, WITHOUT_SPEC
from cutover.status.reasons import Reason
from cutover.status.requests import Answer, Request, RequestRecord, RequestVerb
from cutover.status.state import State
from cutover.status.status import ENDED, Current, Phase, Status, StepState

_STAGE_FLAGS: Final[Mapping[RequestVerb, str]] = {RequestVerb.APPROVE: "approved", RequestVerb.SKIP: "gates_skipped"}
"""Verbs that are saved with the current stage, so that no later request undoes them; of all others one is done in a turn."""
_RELEASING: Final = (
    "the run is over and releases its targets; it ends by itself within minutes, and abandon ends it at once"
)
_BEING_DELETED: Final = "the plan is being deleted; create it again to start a new run"


def digest_of(rules: Rules, number: int, step: str) -> str:
    """The digest of what an approval approves: this step of this spec in this run."""
    return f"sha256:{hashlib.sha256(f'{rules.spec_hash}/{number}/{step}'.encode()).hexdigest()[:16]}"


def unanswered(status: Status, requests: Iterable[Request]) -> tuple[Request, ...]:
    """The requests whose token has no answer yet."""
    known = {record.verb: record.token for record in status.requests}
    return tuple(request for request in requests if known.get(request.verb) != request.token)


def answer_requests(draft: Draft) -> RequestVerb | None:
    """Record every new token with its answer; return the strongest request that was accepted."""
    verb: RequestVerb | None = None
    for request in unanswered(draft.status, draft.inputs.requests):
        refusal = f"{verb} was requested at the same time and takes precedence" if verb else _refusal(draft, request)
        record_answer(draft, request, refusal)
        if refusal:
            continue
        if request.verb in _STAGE_FLAGS:
            draft.set(current=replace(draft.current, **{_STAGE_FLAGS[request.verb]: True}))  # type: ignore[arg-type]
        else:
            verb = request.verb
    return verb


def record_answer(draft: Draft, request: Request, refusal: str) -> None:
    """Record one answer, in place of the last one of this verb, and publish it."""
    record = RequestRecord(
        verb=request.verb,
        token=request.token,
        answer=Answer.REJECTED if refusal else Answer.ACCEPTED,
        at=draft.now,
        run=draft.run.number,
        by=request.by,
        step=request.step,
        message=refusal[:256],
    )
    draft.set(requests=(*(old for old in draft.status.requests if old.verb != request.verb), record))
    who = f" by {request.by}" if request.by else ""
    if refusal:
        draft.notice("RequestRejected", f"{request.verb}{who} was rejected: {refusal}", warning=True)
    else:
        draft.notice("RequestAccepted", f"{request.verb}{who} was accepted")


def gates_skipped(status: Status) -> bool:
    """Whether the gates of the current step are treated as passed on request."""
    return status.current is not None and status.current.gates_skipped


# --- whether a request is accepted ------------------------------------------------------------------------------------


def _refusal(draft: Draft, request: Request) -> str:
    """Why a request is rejected now; empty when it is accepted."""
    status = draft.status
    if status.phase in ENDED:
        return _after_the_end(draft, request.verb)
    if status.state in RELEASING:
        return "" if request.verb is RequestVerb.ABANDON else _RELEASING
    return _WHILE_ACTIVE[request.verb](draft, request)


def _after_the_end(draft: Draft, verb: RequestVerb) -> str:
    status = draft.status
    if status.phase is Phase.REFUSED and verb is RequestVerb.RETRY:
        return _BEING_DELETED if draft.inputs.deleting else ""
    if status.phase is Phase.SUCCEEDED and verb is RequestVerb.ROLLBACK:
        return _refuse_rollback_of_success(draft)
    return f"the run has ended ({status.phase}); apply a changed spec to start a new run"


def _refuse_rollback_of_success(draft: Draft) -> str:
    status = draft.status
    if draft.inputs.deleting:
        return _BEING_DELETED
    if not draft.rules.steps:
        return "the spec cannot be read, so how to undo its steps is not known; fix the spec first"
    if draft.run.spec_hash != draft.rules.spec_hash:
        return "after an upgrade of the CRD the spec is no longer the one of this run"
    if status.point_of_no_return:
        return f"step {status.point_of_no_return} is done and is irreversible"
    keep = draft.run.keep_until
    if keep is None or keep <= draft.now:
        return "the snapshots of this run are no longer kept (spec.keepSnapshots)"
    return ""


def _refuse_rollback(draft: Draft, request: Request) -> str:
    status = draft.status
    if status.phase in (Phase.ROLLING_BACK, Phase.STUCK):
        return "the plan is rolling back already"
    if status.phase is Phase.PENDING and request.verb is RequestVerb.ROLLBACK:
        return "no step has started yet; abort stops the plan"
    if status.state is State.PAST_POINT_OF_NO_RETURN:
        return f"step {status.point_of_no_return} is done and is irreversible; retry continues, abandon releases the targets"
    return ""


def _refuse_abandon(draft: Draft, _: Request) -> str:
    return "no step has started yet; abort stops the plan" if draft.status.phase is Phase.PENDING else ""


def failed_step(status: Status) -> int:
    """The step that `retry` would do again, of a plan that is paused; -1 when there is none."""
    if status.phase is not Phase.PAUSED:
        return -1
    for at, step in enumerate(status.steps):
        if step.state in (StepState.FAILED, StepState.UNDOING):
            return at
        if step.state is StepState.UNDONE and status.state is State.PAST_POINT_OF_NO_RETURN:
            return at
    return -1


def _refuse_retry(draft: Draft, _: Request) -> str:
    phase = draft.status.phase
    if phase is Phase.STUCK:
        return ""
    if draft.inputs.outdated_crd:
        return draft.inputs.outdated_crd
    return "" if failed_step(draft.status) >= 0 else f"there is no failed step to retry; the plan is {phase}"


def _refuse_pause(draft: Draft, _: Request) -> str:
    status = draft.status
    if status.phase in (Phase.ROLLING_BACK, Phase.STUCK):
        return "the plan is rolling back; a rollback cannot be paused"
    paused = status.phase is Phase.PAUSED or status.state is State.PAUSED_BEFORE_START
    return "the plan is paused already" if paused and status.state not in STOPPED else ""


def _refuse_resume(draft: Draft, _: Request) -> str:
    status = draft.status
    if status.state in (State.SUSPENDED_BEFORE_START, State.SUSPENDED):
        return "spec.suspend is true; set it to false instead"
    if status.state in (State.OUTDATED_CRD_BEFORE_START, State.OUTDATED_CRD):
        return f"the plan continues by itself once the CRD is upgraded; {draft.inputs.outdated_crd}"
    if status.state is State.PAUSED_BEFORE_START:
        return ""
    if status.phase is not Phase.PAUSED:
        return f"only a paused plan can be resumed, and this one is {status.phase}"
    at = failed_step(status)
    if at >= 0:
        return f"step {status.steps[at].name} has failed; retry runs it again, skip treats its gates as passed, abort rolls back"
    return ""


def _refuse_skip(draft: Draft, request: Request) -> str:
    status = draft.status
    current = status.current
    if current is None or status.phase not in (Phase.RUNNING, Phase.WAITING, Phase.PAUSED) or not current.stage:
        return "there is no current step whose gates could be skipped"
    if request.step != current.step:
        return f"it must name the current step; write step={current.step}"
    if status.steps[position(status)].state is StepState.FAILED and status.state is not State.GATE_FAILED:
        return f"step {current.step} failed itself, not one of its gates; retry runs it again"
    return ""


def _refuse_approve(draft: Draft, request: Request) -> str:
    status = draft.status
    waiting = status.current.step if status.current and status.phase is Phase.WAITING else ""
    if not waiting:
        return "no step waits for an approval now"
    if status.state is State.OUTSIDE_WINDOW:
        return f"step {waiting} waits for the plan's window, not for an approval"
    if not request.step:
        return f"it does not name the step; add step={waiting}"
    if request.step != waiting:
        return f"step {waiting} waits for an approval, not {request.step}"
    wanted = digest_of(draft.rules, draft.run.number, waiting)
    if request.digest and request.digest != wanted:
        return f"the approved digest is not that of the waiting step, which has digest={wanted}; review it again"
    return ""


_WHILE_ACTIVE: Final[Mapping[RequestVerb, Callable[[Draft, Request], str]]] = {
    RequestVerb.ABORT: _refuse_rollback,
    RequestVerb.ROLLBACK: _refuse_rollback,
    RequestVerb.ABANDON: _refuse_abandon,
    RequestVerb.PAUSE: _refuse_pause,
    RequestVerb.RETRY: _refuse_retry,
    RequestVerb.RESUME: _refuse_resume,
    RequestVerb.SKIP: _refuse_skip,
    RequestVerb.APPROVE: _refuse_approve,
}


# --- pause and resume -------------------------------------------------------------------------------------------------


class Stop(NamedTuple):
    """What stops a plan until it is over: the event, and what explains it."""

    event: PlanEvent
    reason: Reason
    message: str


def pause_or_resume(draft: Draft, verb: RequestVerb | None) -> None:
    """Stop on purpose, or continue; nothing is undone."""
    status, stop = draft.status, stopped_by(draft)
    if status.phase is not Phase.PAUSED:
        if verb is RequestVerb.PAUSE:
            pause(draft, PlanEvent.PAUSE, Reason.PAUSED_BY_PERSON, _paused_by(draft))
        elif stop is not None:
            pause(draft, *stop, warning=stop.event is PlanEvent.OUTDATE)
        return
    stopped = status.state in STOPPED
    if stopped and verb is RequestVerb.PAUSE:
        draft.plan_event(PlanEvent.PAUSE, Reason.PAUSED_BY_PERSON, _paused_by(draft))
    elif stopped and stop is not None:
        draft.plan_event(*stop)
    elif (
        stopped
        or verb is RequestVerb.RESUME
        or status.state is State.PAUSED_WITHOUT_SPEC
        or (status.state is State.GATE_FAILED and gates_skipped(status))
    ):
        resume(draft)
        if stop is not None and draft.state is not State.RELEASING:  # what is over is not stopped
            pause(draft, *stop)


def stopped_by(draft: Draft) -> Stop | None:
    """Why nothing begins or goes forward now, until that is over; None when nothing stops it."""
    if draft.inputs.suspended:
        to = "start" if draft.status.phase is Phase.PENDING else "continue"
        return Stop(PlanEvent.SUSPEND, Reason.SUSPENDED, f"spec.suspend is true; set it to false to {to}")
    outdated = draft.inputs.outdated_crd
    return Stop(PlanEvent.OUTDATE, Reason.OUTDATED_CRD, outdated) if outdated else None


def _paused_by(draft: Draft) -> str:
    by = next((record.by for record in draft.status.requests if record.verb == RequestVerb.PAUSE), "")
    return f"paused {f'by {by}' if by else 'on request'}; resume continues, abort rolls back"


def pause(draft: Draft, event: PlanEvent, reason: Reason | str, message: str, *, warning: bool = False) -> None:
    """Stop by an event that leads to a state of a paused plan; the clocks stop too."""
    draft.plan_event(event, reason, message)
    draft.set_run(paused_at=draft.now)
    draft.notice(reason, message, warning=warning)


def resume(draft: Draft) -> None:
    """Start the clocks again where they stopped. What was paused because time was up gets its full time again."""
    status = draft.status
    stopped = draft.now - (draft.run.paused_at or draft.now)
    on_purpose = status.state in ON_PURPOSE | STOPPED | WITHOUT_SPEC
    if not on_purpose:
        draft.renew_time()
    if status.current is not None:
        _resume_stage(draft, status.current, stopped, on_purpose=on_purpose)
    if not on_purpose:
        steps = draft.status.steps
        draft.set(steps=tuple(replace(step, reapply=step.state is StepState.DONE) for step in steps))
    draft.set(failure=None)
    if status.current is not None:
        draft.plan_event(PlanEvent.RESUME, Reason.PROGRESSING)
    elif all(step.state is StepState.DONE for step in draft.status.steps):
        draft.plan_event(PlanEvent.RESUME_RELEASING, Reason.RELEASING)
    else:
        draft.plan_event(PlanEvent.RESUME_CLAIMING, Reason.CLAIMING)
    draft.set_run(paused_at=None)
    draft.notice("Resumed", "the plan continues")


def _resume_stage(draft: Draft, current: Current, stopped: timedelta, *, on_purpose: bool) -> None:
    if on_purpose:
        applied = current.applied_at + stopped if current.applied_at else None
        started = current.started_at + stopped
    else:  # another writer may have changed the target since: the stage is applied and its gates are evaluated again
        applied, started = None, draft.now
    reapply = current.reapply or not on_purpose
    draft.set(current=replace(current, started_at=started, applied_at=applied, reapply=reapply, message=""))
    at = position(draft.status)
    if draft.status.steps[at].state in (StepState.WAITING, StepState.FAILED):
        draft.step_event(at, StepEvent.CONTINUE)
