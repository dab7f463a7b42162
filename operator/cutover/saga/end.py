"""The end of a run and what may come after it: release, abandon, a rollback on request, the expiry of snapshots.

Called by `advance`, and by the modules beside it where a run ends.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cutover.saga.draft import Draft, fence_if_new_process, seconds
from cutover.saga.tables import TOUCHED, PlanEvent
from cutover.saga.turn import NO_PROGRESS, STUCK_EVERY, Again, Command, Done, Failed, Pause, Turn, Verb, Wait
from cutover.status.reasons import Reason
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Failure, Phase, cause_of


def release(draft: Draft, message: str) -> Turn:
    """Nothing is left to do but to release the claims."""
    draft.set(reason=str(Reason.RELEASING), message=f"{message}; releasing the targets", current=None)
    return draft.turn(Command(Verb.RELEASE))


def releasing(draft: Draft) -> Turn:
    """Release the targets, then end. The claims go first: an ended plan must not block another one."""
    match draft.inputs.outcome:
        case None:
            fence_if_new_process(draft)
            return draft.turn(Command(Verb.RELEASE))
        case Done():
            return _finish(draft)
        case Again(after=after, message=message) if (left := _time_left(draft)) is None or left > timedelta():
            draft.set(message=message)
            return draft.turn(None, seconds(after), left)
        case Again(message=message) | Wait(message=message) | Failed(message=message) | Pause(message=message):
            if draft.inputs.deleting:  # a claim whose plan is gone is void, so nothing is lost
                return abandon(draft, Reason.DELETED, f"the targets could not be released: {message}")
            draft.set(message=message)
            return draft.turn(None, STUCK_EVERY)


def _time_left(draft: Draft) -> timedelta | None:
    """How long a deleted plan may still take for what is not a step; None when it is not deleted.

    Counted from the deletion, or from when its last step was over.
    """
    if draft.inputs.deleted_at is None:
        return None
    over = [step.finished_at for step in draft.status.steps if step.finished_at is not None]
    return NO_PROGRESS - (draft.now - max([draft.inputs.deleted_at, *over]))


def _finish(draft: Draft) -> Turn:
    failure = draft.status.failure
    if failure is None:
        count = len(draft.status.steps)
        message = f"all {count} steps are done" if count > 1 else "the step is done"
        draft.plan_event(PlanEvent.FINISH, Reason.COMPLETED, message)
        if draft.rules.keep_snapshots and any(rule.undoes for rule in draft.rules.steps):
            draft.set_run(keep_until=draft.now + draft.rules.keep_snapshots)
        draft.notice("Succeeded", message)
    else:
        message = f"rolled back{cause_of(failure)}; all changes were undone"
        draft.plan_event(PlanEvent.FINISH, failure.reason, message)
        draft.notice("RolledBack", message, warning=True)
    return draft.remove_finalizer()


def abandon(draft: Draft, reason: Reason, why: str) -> Turn:
    """End here and leave everything as it is; the claims are released."""
    mark_abandoned(draft, reason, why)
    return ended(draft, None)


def mark_abandoned(draft: Draft, reason: Reason, why: str) -> None:
    """The plan is abandoned from here on; an event lists what was not undone."""
    undoes = {rule.name: rule.undoes for rule in draft.rules.steps}  # empty when the spec cannot be read
    not_undone = [step.name for step in draft.status.steps if step.state in TOUCHED and undoes.get(step.name, True)]
    message = f"{why}; not undone: {', '.join(not_undone)}" if not_undone else f"{why}; no changes to undo"
    draft.plan_event(PlanEvent.ABANDON, reason, message)
    draft.set_run(paused_at=None)
    draft.notice("Abandoned", message, warning=True, on_namespace=draft.inputs.terminating)
    draft.inputs = replace(draft.inputs, outcome=None)


def ended(draft: Draft, verb: RequestVerb | None) -> Turn:
    """After the end: the finalizer is removed, snapshots expire, a user may still request a rollback."""
    phase, keep = draft.status.phase, draft.run.keep_until
    if verb is RequestVerb.ROLLBACK:
        return _roll_back(draft)
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
        case Again(after=after) if (left := _time_left(draft)) is None or left > timedelta():
            return draft.turn(None, seconds(after), left)
        case Wait() | Failed() | Pause() if not draft.inputs.deleting:
            return draft.turn(None, STUCK_EVERY)
        case Done(message=residue) if residue:
            draft.set(message=f"{draft.status.message}; {residue}")
            draft.notice("Left", residue, warning=True)
            return draft.remove_finalizer()
        case _:
            return draft.remove_finalizer()


# --- a rollback after a success ---------------------------------------------------------------------------------------


def _roll_back(draft: Draft) -> Turn:
    by = next((record.by for record in draft.status.requests if record.verb == RequestVerb.ROLLBACK), "")
    why = f"rolled back on request{f' of {by}' if by else ''}"
    draft.plan_event(
        PlanEvent.ROLL_BACK_SUCCESS, Reason.RECLAIMING, "checking that the targets are unchanged since the run"
    )
    draft.set(failure=Failure(reason=str(Reason.ROLLBACK), message=why), report=())
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
            draft.set(reason=str(Reason.ROLLBACK), message="")
            draft.set_run(keep_until=None)
            draft.inputs = replace(draft.inputs, outcome=None)
            draft.notice("RollingBack", "the targets are unchanged since the run; rolling back")
            return draft.turn(None, seconds(0.0))
        case Again(after=after, message=message):
            left = _time_left(draft)
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
