"""The end of a run and what may come after it: release, abandon, a rollback on request, the expiry of snapshots.

Called by `advance`, and by the modules beside it where a run ends.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from cutover.saga.draft import Draft, clock, fence_if_new_process, seconds
from cutover.saga.tables import TOUCHED, PlanEvent
from cutover.saga.turn import (
    NO_PROGRESS,
    RELEASE_EVERY,
    RELEASE_WITHIN,
    STUCK_EVERY,
    Again,
    Command,
    Done,
    Failed,
    Pause,
    Turn,
    Verb,
    Wait,
)
from cutover.status.phases import RELEASING
from cutover.status.reasons import Reason
from cutover.status.release import Unreleased
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Failure, Phase, cause_of

_NOT_RELEASED, _NOT_ALL = "NotReleased", "not everything could be released"
_TRIED_WITHOUT_A_GAP: Final = 2 * RELEASE_EVERY


def release(draft: Draft, message: str) -> Turn:
    """Nothing is left to do but to release the claims."""
    draft.plan_event(PlanEvent.RELEASE, Reason.RELEASING, f"{message}; releasing the targets")
    draft.set(current=None)
    draft.set_run(unreleased=None)
    return draft.turn(Command(Verb.RELEASE))


def enforce_first(draft: Draft) -> Turn | None:
    """Restore what done steps have set, once a turn; None when there is nothing to restore, or it was done in this turn.

    Before the current stage and before the release: neither may build on what another writer has changed.
    """
    if isinstance(draft.enforce_outcome, Again):
        return draft.turn()
    wanted = draft.inputs.to_restore or any(step.reapply for step in draft.status.steps)
    if draft.enforce_outcome is not None or not wanted:
        return None
    fence_if_new_process(draft)
    return draft.turn(Command(Verb.ENFORCE))


def releasing(draft: Draft, verb: RequestVerb | None) -> Turn:
    """Release the targets, then end; what cannot be released for good is left, with a warning.

    The claims go before the end, so that no ended plan has any. But nothing depends on that: a claim whose plan has ended is void,
    and snapshots without an owner are deleted when they are no longer needed.
    """
    if verb is RequestVerb.ABANDON:
        _try_once_more(draft)
    match draft.inputs.outcome:
        case None:
            if first := enforce_first(draft):
                return first
            fence_if_new_process(draft)
            if verb is not RequestVerb.ABANDON:
                _try_anew(draft)
            return draft.turn(Command(Verb.RELEASE))
        case Done():
            return _finish(draft)
        case Again(after=after, message=message) if (left := _left(draft, refused=False)) > timedelta():
            draft.set(message=message)
            return draft.turn(None, seconds(after), left)
        case Wait(message=message) | Failed(message=message) | Pause(message=message) if (
            not draft.inputs.deleting and (left := _left(draft, refused=True)) > timedelta()
        ):
            draft.set(message=f"{_NOT_ALL}, and it is retried until {clock(draft.now + left)}: {message}")
            return draft.turn(None, min(RELEASE_EVERY, left))
        case Again(message=message) | Wait(message=message) | Failed(message=message) | Pause(message=message):
            if draft.inputs.deleting:  # a claim whose plan is gone is void, so nothing is lost
                return abandon(draft, Reason.DELETED, f"{_NOT_ALL}: {message}")
            return _finish(draft, message)


def _try_anew(draft: Draft) -> None:
    """What another process was refused is no reason to give up at the first try of this one."""
    if draft.inputs.new_process:
        _spare_some_time(draft)


def _spare_some_time(draft: Draft) -> None:
    """However long something was tried in vain, the release may still take as long as one that is refused."""
    if (before := draft.run.unreleased) is not None:
        since = max(before.since, draft.now - NO_PROGRESS + RELEASE_WITHIN)
        draft.set_run(unreleased=replace(before, since=since, refused_since=None))


def _try_once_more(draft: Draft) -> None:
    """On `abandon`: nothing may have been tried so far, so the run ends with the next answer, not before it."""
    since, refused_since = draft.now - NO_PROGRESS, draft.now - RELEASE_WITHIN
    draft.set_run(unreleased=Unreleased(since=since, refused_since=refused_since, tried_at=draft.now))


def _left(draft: Draft, *, refused: bool) -> timedelta:
    """How long the release, which has just failed, may still fail."""
    left = time_left(draft, _TRIED_WITHOUT_A_GAP, refused=refused)
    since = draft.run.unreleased.refused_since if draft.run.unreleased else None
    return RELEASE_WITHIN - (draft.now - since) if since else left


def time_left(draft: Draft, without_a_gap: timedelta, *, refused: bool = False) -> timedelta:
    """How long what has just failed, or has made no progress, may still go on like that; called at each try.

    Times in which nothing was tried do not count, such as an interruption of the operator: what fails at its end may be that very
    interruption. Between two tries that far apart at most it counts as tried all the time.
    """
    now, before = draft.now, draft.run.unreleased or Unreleased(since=draft.now, tried_at=draft.now)
    idle = max(now - before.tried_at - without_a_gap, timedelta())
    since = before.since + idle
    refused_since = (before.refused_since + idle if before.refused_since else now) if refused else None
    draft.set_run(unreleased=Unreleased(since=since, refused_since=refused_since, tried_at=now))
    return NO_PROGRESS - (now - since)


def _finish(draft: Draft, unreleased: str = "") -> Turn:
    failure, rest = draft.status.failure, f"; {_NOT_ALL}: {unreleased}" if unreleased else ""
    if failure is None:
        count = len(draft.status.steps)
        message = f"all {count} steps are done" if count > 1 else "the step is done"
        draft.plan_event(PlanEvent.FINISH, Reason.COMPLETED, f"{message}{rest}")
        if draft.rules.keep_snapshots and any(rule.undoes for rule in draft.rules.steps):
            draft.set_run(keep_until=draft.now + draft.rules.keep_snapshots)
        draft.notice("Succeeded", message)
    else:
        message = f"rolled back{cause_of(failure)}; all changes were undone"
        draft.plan_event(PlanEvent.FINISH, failure.reason, f"{message}{rest}")
        draft.notice("RolledBack", message, warning=True)
    if unreleased:
        draft.notice(_NOT_RELEASED, f"the run has ended, but {_NOT_ALL}: {unreleased}", warning=True)
    return draft.remove_finalizer()


def abandon(draft: Draft, reason: Reason, why: str) -> Turn:
    """End here and leave everything as it is; the claims are released."""
    if draft.state not in RELEASING:  # what was tried so far was something else
        _spare_some_time(draft)
    mark_abandoned(draft, reason, why)
    return ended(draft)


def mark_abandoned(draft: Draft, reason: Reason, why: str) -> None:
    """The plan is abandoned from here on; an event lists what was not undone."""
    undoes = {rule.name: rule.undoes for rule in draft.rules.steps}  # empty when the spec cannot be read
    not_undone = [step.name for step in draft.status.steps if step.state in TOUCHED and undoes.get(step.name, True)]
    message = f"{why}; not undone: {', '.join(not_undone)}" if not_undone else f"{why}; no changes to undo"
    draft.plan_event(PlanEvent.ABANDON, reason, message)
    draft.set_run(paused_at=None)
    draft.notice("Abandoned", message, warning=True, on_namespace=draft.inputs.terminating)
    draft.inputs = replace(draft.inputs, outcome=None)


def succeeded(draft: Draft, verb: RequestVerb | None) -> Turn:
    """After a success: a user may still request a rollback."""
    return _roll_back(draft) if verb is RequestVerb.ROLLBACK else ended(draft)


def ended(draft: Draft, _: RequestVerb | None = None) -> Turn:
    """After the end: the finalizer is removed, snapshots expire."""
    phase, keep = draft.status.phase, draft.run.keep_until
    if (
        phase is Phase.ABANDONED
        and draft.finalizer_outcome is None
        and (draft.inputs.has_finalizer or draft.phase_before is not Phase.ABANDONED)
    ):
        return _release_abandoned(draft)  # once at least, also where our finalizer was removed by hand
    if draft.inputs.has_finalizer:
        return draft.remove_finalizer()
    if keep is not None and not draft.inputs.deleting:
        if keep > draft.now:
            return draft.turn(None, keep - draft.now)
        match draft.inputs.outcome if draft.inputs.last_command is Verb.SWEEP else None:
            case None:
                return draft.turn(Command(Verb.SWEEP))
            case Done():
                draft.set_run(keep_until=None)
            case _:
                return draft.turn(None, STUCK_EVERY)
    return draft.turn()


def _release_abandoned(draft: Draft) -> Turn:
    """Release an abandoned plan. Its claims are void already; that its snapshots are deleted is worth another try.

    A plan that is being deleted is not kept for that: its snapshots are deleted after it.
    """
    match draft.inputs.outcome:
        case None:
            return draft.turn(Command(Verb.RELEASE))
        case Again(after=after) if (left := _left(draft, refused=False)) > timedelta():
            return draft.turn(None, seconds(after), left)
        case Wait() | Failed() | Pause() if (
            not draft.inputs.deleting and (left := _left(draft, refused=True)) > timedelta()
        ):
            return draft.turn(None, min(RELEASE_EVERY, left))
        case Again(message=message) | Wait(message=message) | Failed(message=message) | Pause(message=message):
            return _ended_with(draft, _NOT_RELEASED, f"{_NOT_ALL}: {message}")
        case Done(message=residue) if residue:
            return _ended_with(draft, "Left", residue)
        case _:
            return draft.remove_finalizer()


def _ended_with(draft: Draft, reason: str, what: str) -> Turn:
    """Say once what is left: where the finalizer may not be removed either, all of this comes again."""
    if what not in draft.status.message:
        draft.set(message=f"{draft.status.message}; {what}")
        draft.notice(reason, what, warning=True)
    return draft.remove_finalizer()


# --- a rollback after a success ---------------------------------------------------------------------------------------


def _roll_back(draft: Draft) -> Turn:
    by = next((record.by for record in draft.status.requests if record.verb == RequestVerb.ROLLBACK), "")
    why = f"rolled back on request{f' of {by}' if by else ''}"
    draft.plan_event(
        PlanEvent.ROLL_BACK_SUCCESS, Reason.RECLAIMING, "checking that the targets are unchanged since the run"
    )
    draft.set(failure=Failure(reason=str(Reason.ROLLBACK), message=why), report=())
    draft.set_run(unreleased=None)
    draft.raise_fence()
    return draft.turn(Command(Verb.RECLAIM))


def reclaiming(draft: Draft, verb: RequestVerb | None) -> Turn:
    """Claim every target again; when one is not as the run left it, the success stands and the request is rejected."""
    if verb is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    match draft.inputs.outcome:
        case None:
            fence_if_new_process(draft)
            return draft.turn(Command(Verb.RECLAIM))
        case Done():
            draft.plan_event(PlanEvent.CLAIMED, Reason.ROLLBACK)
            draft.set_run(keep_until=None, unreleased=None)
            draft.inputs = replace(draft.inputs, outcome=None)
            draft.notice("RollingBack", "the targets are unchanged since the run; rolling back")
            return draft.turn(None, seconds(0.0))
        case Again(after=after, message=message):
            left = time_left(draft, _TRIED_WITHOUT_A_GAP) if draft.inputs.deleting else None
            if left is not None and left <= timedelta():
                return abandon(draft, Reason.DELETED, f"the targets could not be claimed again: {message}")
            draft.set(message=message)
            return draft.turn(None, seconds(after), left)
        case Wait(message=message) | Failed(message=message) | Pause(message=message):
            return _keep_success(draft, message)


def _keep_success(draft: Draft, message: str) -> Turn:
    draft.set(
        failure=None,
        requests=tuple(
            replace(record, answer=Answer.REJECTED, message=message[:256])
            if record.verb == RequestVerb.ROLLBACK
            else record
            for record in draft.status.requests
        ),
    )
    draft.plan_event(PlanEvent.KEEP_SUCCESS, Reason.COMPLETED, f"all steps are done; rollback was rejected: {message}")
    draft.notice("RequestRejected", f"rollback was rejected: {message}", warning=True)
    return draft.remove_finalizer()
