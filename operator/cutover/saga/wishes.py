"""What people ask for: whether it makes sense now, what is recorded, and how a plan is held and goes on."""

from __future__ import annotations

from dataclasses import replace

from cutover.requests import Request, RequestVerb
from cutover.saga.draft import Draft, position
from cutover.saga.tables import PlanEvent, Reason, StepEvent
from cutover.status import ENDED, Answer, Phase, RequestRecord, Status, StepState


def answer_requests(draft: Draft) -> RequestVerb | None:
    """Record every new token with its answer; return the strongest wish that was accepted."""
    known = {record.verb: record.token for record in draft.status.requests}
    wish: RequestVerb | None = None
    for request in draft.inputs.requests:
        if known.get(request.verb) == request.token:
            continue
        refusal = _refusal(draft, request) if wish is not RequestVerb.ABORT else "abort beats every other request"
        record = RequestRecord(
            verb=request.verb,
            token=request.token,
            answer=Answer.REJECTED if refusal else Answer.ACCEPTED,
            at=draft.now,
            run=draft.run.number,
            by=request.by,
            step=request.step,
            message=refusal,
        )
        draft.set(requests=(*(old for old in draft.status.requests if old.verb != request.verb), record))
        who = f" by {request.by}" if request.by else ""
        if refusal:
            draft.notice("RequestRejected", f"{request.verb}{who} was rejected: {refusal}", warning=True)
        else:
            draft.notice("RequestAccepted", f"{request.verb}{who} was accepted")
            wish = wish or request.verb
    return wish


def _refusal(draft: Draft, request: Request) -> str:
    """Why a request makes no sense now; empty when it does."""
    status = draft.status
    phase = status.phase
    if phase in ENDED:
        return f"the run has ended ({phase})"
    if status.reason == Reason.RELEASING:
        return "the run is over and only lets go of its targets"
    match request.verb:
        case RequestVerb.ABORT:
            return "the plan is unwinding already" if phase in (Phase.UNWINDING, Phase.STUCK) else ""
        case RequestVerb.HOLD:
            if phase in (Phase.UNWINDING, Phase.STUCK):
                return "the plan is unwinding; that is not stopped halfway"
            return "the plan is held already" if status.reason == Reason.HELD_BY_PERSON else ""
        case RequestVerb.RESUME:
            if status.reason == Reason.HELD_BY_PERSON:
                return ""
            if status.reason == Reason.SUSPENDED:
                return "spec.suspend is true; set it to false instead"
            return f"only a held plan can be resumed, and this one is {phase}"
        case RequestVerb.APPROVE:
            return _no_approval(status, request)


def _no_approval(status: Status, request: Request) -> str:
    waiting = status.current.step if status.current and status.phase is Phase.WAITING else ""
    if not waiting:
        return "no step waits for an approval now"
    if not request.step:
        return f"it does not name the step; add step={waiting}"
    return "" if request.step == waiting else f"step {waiting} waits for an approval, not {request.step}"


def hold_or_resume(draft: Draft, wish: RequestVerb | None) -> None:
    """Stop on purpose, or go on; nothing is undone."""
    status, suspended = draft.status, draft.inputs.suspended
    if status.phase is not Phase.HELD:
        if wish is RequestVerb.HOLD:
            _hold(draft, Reason.HELD_BY_PERSON, "held by a person; resume to go on, abort to take everything back")
        elif suspended:
            _hold(draft, Reason.SUSPENDED, "spec.suspend is true; set it to false to go on")
        return
    if wish is RequestVerb.HOLD:
        draft.set(reason=str(Reason.HELD_BY_PERSON), message="held by a person; resume to go on")
    elif wish is RequestVerb.RESUME and suspended:
        draft.set(reason=str(Reason.SUSPENDED), message="spec.suspend is true; set it to false to go on")
    elif (
        wish is RequestVerb.RESUME
        or (status.reason == Reason.SUSPENDED and not suspended)
        or status.reason == Reason.UNREADABLE
    ):
        _resume(draft)


def _hold(draft: Draft, reason: Reason, message: str) -> None:
    draft.plan_event(PlanEvent.HOLD, reason, message)
    draft.set_run(held_at=draft.now)
    draft.notice(reason, message)


def _resume(draft: Draft) -> None:
    """Start the clocks again where they stopped."""
    stopped = draft.now - (draft.run.held_at or draft.now)
    current = draft.status.current
    if current is not None:
        applied = current.applied_at + stopped if current.applied_at else None
        draft.set(current=replace(current, started_at=current.started_at + stopped, applied_at=applied))
        at = position(draft.status)
        if draft.status.steps[at].state is StepState.WAITING:
            draft.step_event(at, StepEvent.GO)
    draft.plan_event(PlanEvent.RESUME, Reason.PROGRESSING)
    draft.set_run(held_at=None)
    draft.notice("Resumed", "the plan goes on")
