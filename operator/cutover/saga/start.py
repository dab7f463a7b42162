"""Before the first step: a new spec, what is missing, the window, the claims. Called by `advance`."""

from __future__ import annotations

from datetime import timedelta

from cutover.saga.backward import backward
from cutover.saga.draft import Draft, fence_if_new_process, moment, seconds
from cutover.saga.end import ended
from cutover.saga.forward import start
from cutover.saga.requests import stopped_by
from cutover.saga.stop_conditions import fail
from cutover.saga.tables import PlanEvent
from cutover.saga.turn import BUSY_EVERY, PREFLIGHT_EVERY, Again, Command, Done, Failed, Pause, Turn, Verb, Wait
from cutover.status.limits import with_risks
from cutover.status.phases import STOPPED
from cutover.status.reasons import Reason
from cutover.status.requests import Answer, RequestRecord, RequestVerb
from cutover.status.state import State
from cutover.status.status import ACTIVE, ENDED, PastRun, Phase, Run, Status, StepStatus

_HISTORY = 5
"""Earlier runs in the status."""
_QUIET = timedelta(seconds=10)
"""How long preflight gets no answer before it says so: a short interruption is no news."""
_UNREAD = "not everything that the plan needs could be read"


def take_spec(draft: Draft) -> None:
    """A spec that was not seen before begins a new run, unless one is active. Requests that are there already are ignored.

    Where a run has ended and the generation is unchanged, no new spec was written: an upgraded CRD may add or drop
    a field of the same one, and that must not run a plan again.
    """
    status, rules = draft.status, draft.rules
    known = status.phase in ENDED and status.observed_generation == rules.generation
    if status.observed_generation != rules.generation:
        draft.set(observed_generation=rules.generation)
    unseen = status.run is None or (status.run.spec_hash != rules.spec_hash and not known)
    if not unseen or status.phase in ACTIVE or draft.inputs.deleting:
        if status.run is None:  # deleted before the operator has seen it
            _new_run(draft)
        return
    _new_run(draft)
    run = draft.run
    draft.set(
        requests=tuple(
            RequestRecord(
                verb=request.verb,
                token=request.token,
                answer=Answer.IGNORED,
                at=draft.now,
                run=run.number,
                by=request.by,
                step=request.step,
                message="it was requested before this spec was first seen",
            )
            for request in draft.inputs.requests
        )
    )


def _new_run(draft: Draft) -> None:
    before = draft.status.run
    run = Run(
        number=before.number + 1 if before else 1,
        generation=draft.rules.generation,
        spec_hash=draft.rules.spec_hash,
        started_at=draft.now,
        fence=before.fence if before else 0,
        keep_until=before.keep_until if before else None,  # until the claim has deleted the snapshots of that run
        steps_digest=draft.rules.steps_digest,
    )
    draft.set(
        run=run,
        history=_history(draft.status),
        tally=None,
        report=(),
        failure=None,
        current=None,
        point_of_no_return="",
        steps=_none_begun(draft),
    )
    draft.status = with_risks(draft.status, (), draft.now)  # those found for the former spec are gone
    draft.plan_event(PlanEvent.SEEN, Reason.PREFLIGHT)


def _none_begun(draft: Draft) -> tuple[StepStatus, ...]:
    return tuple(StepStatus(name=rule.name, kind=rule.kind) for rule in draft.rules.steps)


def _history(status: Status) -> tuple[PastRun, ...]:
    """The last run, in front of those before it; one that was never begun is left out."""
    run, phase = status.run, status.phase
    if run is None or phase is None or phase is Phase.PENDING:
        return status.history
    past = PastRun(
        number=run.number,
        phase=phase,
        reason=status.reason,
        message=status.message[:256],
        started_at=run.started_at,
        finished_at=run.finished_at,
        steps_digest=run.steps_digest,
        steps_done=status.tally.steps_done if status.tally else 0,
    )
    return (past, *status.history)[:_HISTORY]


def refused(draft: Draft, verb: RequestVerb | None) -> Turn:
    """Nothing was changed. On request it is examined again: what was missing may be there now."""
    return _examine_again(draft) if verb is RequestVerb.RETRY else ended(draft)


def _examine_again(draft: Draft) -> Turn:
    if draft.state is State.APPLIED_THEN_CHANGED:
        draft.set_run(over_applied=True)
    draft.plan_event(PlanEvent.SEEN, Reason.PREFLIGHT)
    # With the spec as it is read now: an upgraded operator or CRD may read what could not be read before.
    draft.set_run(spec_hash=draft.rules.spec_hash, steps_digest=draft.rules.steps_digest)
    draft.set(steps=_none_begun(draft))
    _restart_preflight(draft)
    return pending(draft, None)


def pending(draft: Draft, verb: RequestVerb | None) -> Turn:
    """Not begun: requests and deletion first, then what is missing."""
    inputs, state = draft.inputs, draft.status.state
    if inputs.deleting or verb is RequestVerb.ABORT:
        why = Reason.DELETED if inputs.deleting else Reason.ABORTED
        draft.plan_event(PlanEvent.REFUSE, why, "stopped before anything was changed")
        draft.notice(why, "stopped before anything was changed")
        return ended(draft)
    if verb is RequestVerb.PAUSE:
        message = "paused before the first step; resume to continue"
        draft.plan_event(PlanEvent.PAUSE, Reason.PAUSED_BY_PERSON, message)
    elif state is State.PAUSED_BEFORE_START and verb is RequestVerb.RESUME:
        _restart_preflight(draft)
    if draft.status.state is not State.PAUSED_BEFORE_START:
        if stop := stopped_by(draft):
            draft.plan_event(*stop)
        elif state in STOPPED:
            _restart_preflight(draft)
    if draft.status.state is State.PAUSED_BEFORE_START or draft.status.state in STOPPED:
        return draft.remove_finalizer()
    return _preflight(draft)


def _restart_preflight(draft: Draft) -> None:
    """Count the start deadline from now: while the plan waited on purpose, nothing had to be there."""
    draft.set_run(started_at=draft.now)
    draft.plan_event(PlanEvent.EXAMINE, Reason.PREFLIGHT)


def _preflight(draft: Draft) -> Turn:
    match draft.inputs.outcome:
        case None:
            return _examine(draft)
        case Done() as found:
            return _all_there(draft, found)
        case Again(after=None, message=message, pause=pause):
            return _still_missing(draft, message, pause)
        case Again(after=after, message=message):
            return _unanswered(draft, message, after)
        case Wait(message=message):
            draft.plan_event(PlanEvent.BUSY, Reason.TARGET_BUSY, message)
            return draft.remove_finalizer(BUSY_EVERY)
        case Failed(reason=reason, message=message):
            return _refuse(draft, reason, message)
        case Pause(
            message=message
        ):  # another writer has changed what was applied, and only a user knows which is right
            return _refuse(draft, Reason.APPLIED_THEN_CHANGED, message, PlanEvent.FIND_CHANGED)


def _all_there(draft: Draft, found: Done) -> Turn:
    draft.status = with_risks(draft.status, found.risks, draft.now)
    if found.skip:
        message = "every target carries the label of this spec, and its values: it was applied before"
        draft.plan_event(PlanEvent.FIND_APPLIED, Reason.ALREADY, message)
        draft.notice(Reason.ALREADY, message)
        return ended(draft)
    if not draft.inputs.opening.open:
        return _wait_for_first_window(draft)
    draft.plan_event(PlanEvent.BEGIN, Reason.CLAIMING)
    # Before the claims: they carry the new number, so that writes of an earlier run fail from here on.
    draft.raise_fence()
    note = found.message
    draft.notice(
        "Started", f"run {draft.run.number} started; {note or 'all prerequisites are met'}", warning=bool(note)
    )
    return draft.turn(Command(Verb.CLAIM))


def _examine(draft: Draft) -> Turn:
    if draft.status.state is State.BEFORE_WINDOW:
        if not draft.inputs.opening.open:
            return _wait_for_first_window(draft)
        _restart_preflight(draft)
    return draft.turn(Command(Verb.EXAMINE))


def _wait_for_first_window(draft: Draft) -> Turn:
    """All prerequisites are met, and the window is closed: nothing is claimed until it opens, and the spec may still be changed."""
    opens_at = draft.inputs.opening.opens_at
    if opens_at is None:
        message = "no window remains in which the plan could start; change spec.window or spec.windows"
        return _refuse(draft, Reason.WINDOW_OVER, message)
    message = f"ready; starts when the window opens at {moment(opens_at)}"
    if draft.status.state is not State.BEFORE_WINDOW:
        draft.notice(Reason.OUTSIDE, message)
    draft.plan_event(PlanEvent.WAIT_FOR_WINDOW, Reason.OUTSIDE, message)
    return draft.remove_finalizer(opens_at - draft.now)


def _unanswered(draft: Draft, message: str, after: float | None) -> Turn:
    """Something could not be read, so what is missing is not known. While the API server as a whole is away this is not even saved.

    The deadline counts only once it has been said, so that no single look decides.
    """
    waited, deadline = _waited(draft), draft.rules.start_deadline
    known = draft.status.state is State.UNANSWERED
    if not known and waited < min(_QUIET, deadline):
        return draft.turn(None, seconds(after))
    since = draft.status.message.partition("; ")[0] if known else f"{_UNREAD} since {moment(draft.now)}"
    message = f"{since}; {message}"
    if known and waited >= deadline:
        return _refuse(draft, Reason.UNANSWERED, message)
    draft.plan_event(PlanEvent.GET_NO_ANSWER, Reason.UNANSWERED, message)
    if not known:
        draft.notice(Reason.UNANSWERED, message, warning=True)
    return draft.turn(None, seconds(after))


def _waited(draft: Draft) -> timedelta:
    """How long the plan has waited for what it needs; no deadline runs while another plan has claimed a target."""
    if draft.status.state is State.TARGET_BUSY:
        draft.set_run(started_at=draft.now)
    return draft.now - draft.run.started_at


def _refuse(draft: Draft, reason: Reason | str, message: str, event: PlanEvent = PlanEvent.REFUSE) -> Turn:
    draft.plan_event(event, reason, message)
    draft.notice("Refused", message, warning=True)
    return ended(draft)


def _still_missing(draft: Draft, message: str, least: float) -> Turn:
    if not message:  # it was not looked yet, so nothing new is known
        return _rest(draft, timedelta(seconds=least))
    waited = _waited(draft)
    if waited >= draft.rules.start_deadline:
        return _refuse(draft, Reason.PREFLIGHT, message)
    draft.plan_event(PlanEvent.EXAMINE, Reason.PREFLIGHT, message)
    passed, after = 0.0, float(PREFLIGHT_EVERY[-1])
    for pause in PREFLIGHT_EVERY[:-1]:
        passed += pause
        if waited.total_seconds() < passed:
            after = float(pause)
            break
    return draft.turn(None, timedelta(seconds=max(after, least)), draft.rules.start_deadline - waited)


def _rest(draft: Draft, least: timedelta) -> Turn:
    """Until the next look. The deadline is not put off for it: what the last look has found still counts."""
    status = draft.status
    if status.state not in (State.PREFLIGHT, State.UNANSWERED) or not status.message:
        return draft.turn(None, least)
    left = draft.rules.start_deadline - _waited(draft)
    return draft.turn(None, least, left) if left > timedelta() else _refuse(draft, status.reason, status.message)


def claiming(draft: Draft, _: RequestVerb | None) -> Turn:
    """Claim all targets or none, then begin the first step."""
    match draft.inputs.outcome:
        case None:
            fence_if_new_process(draft)
            return draft.turn(Command(Verb.CLAIM))
        case Done():
            draft.plan_event(PlanEvent.CLAIMED, Reason.PROGRESSING, draft.status.message)
            draft.set_run(keep_until=None)
            return start(draft, 0)
        case Again(after=after, message=message):
            draft.set(message=message)
            return draft.turn(None, seconds(after))
        case Wait(message=message):
            draft.plan_event(PlanEvent.BUSY, Reason.TARGET_BUSY, message)
            draft.notice(Reason.TARGET_BUSY, message)
            return draft.remove_finalizer(BUSY_EVERY)
        case Failed(reason=reason, message=message) | Pause(reason=reason, message=message):
            fail(draft, reason, message)
            return backward(draft)
