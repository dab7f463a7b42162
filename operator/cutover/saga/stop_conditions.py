"""What stops a plan on its way forward: deletion, requests, gates and guards, problems of targets, timeouts.

Checked by `advance` in every turn, before the current step. `fail` says what a failure leads to.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cutover.saga.draft import Draft, duration, position, stage_of
from cutover.saga.end import mark_abandoned
from cutover.saga.requests import gates_skipped, pause
from cutover.saga.tables import PlanEvent, StepEvent
from cutover.saga.tally import Cause, record_failure
from cutover.saga.turn import DeletionPolicy, Failed, OnFailure, Pause
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import Failure, Phase, Status, StepState, Verdict


def check_stop_conditions(draft: Draft, verb: RequestVerb | None) -> None:
    """Roll back, pause or abandon the plan if it has to stop; the first cause in this order counts.

    What users requested comes first: after a deletion or an abort no failure matters any more, and nothing may pause the plan.
    """
    inputs = draft.inputs
    if inputs.deleting:
        if draft.rules.deletion is DeletionPolicy.ORPHAN:
            mark_abandoned(draft, Reason.DELETED, "the plan was deleted with deletionPolicy Orphan")
            return None
        return fail(draft, Reason.DELETED, "the plan was deleted while it was active", cause=Cause.USER)
    if verb in (RequestVerb.ABORT, RequestVerb.ROLLBACK):
        by = next((record.by for record in draft.status.requests if record.verb == verb), "")
        return fail(draft, Reason.ABORTED, f"aborted by {by}" if by else "aborted", cause=Cause.USER)
    if verb is RequestVerb.ABANDON:
        mark_abandoned(draft, Reason.ABANDONED, "abandoned on request")
        return None
    return _check_while_paused(draft) if draft.status.phase is Phase.PAUSED else _check_failures(draft)


def _check_failures(draft: Draft) -> None:
    inputs, rules = draft.inputs, draft.rules
    guard = next((guard for guard in inputs.guards if guard.verdict is Verdict.FAIL), None)
    if guard is not None:
        policy = OnFailure.PAUSE if draft.status.point_of_no_return else rules.on_failure
        message = f"guard {guard.name} failed: {guard.message}"
        return fail(draft, Reason.GUARD_FAILED, message, policy, cause=Cause.GUARD)
    at = position(draft.status)
    if at >= 0 and not gates_skipped(draft.status):
        gate = next((gate for gate in inputs.gates if gate.verdict is Verdict.FAIL), None)
        if gate is not None:
            message = f"gate {gate.name} failed: {gate.message}"
            return fail(draft, Reason.GATE_FAILED, message, rules.steps[at].on_failure, cause=Cause.GATE)
    return None if check_target_problem(draft) else _check_timeouts(draft)


def check_target_problem(draft: Draft) -> bool:
    """Roll back or pause where a target is gone, or what the run has done no longer stands; whether it did."""
    match draft.inputs.target_problem:
        case Failed(reason=reason, message=message):
            cause = Cause.STEP if draft.inputs.problem_at in (-1, position(draft.status)) else Cause.DONE_STEP
            fail(draft, reason, message, _policy(draft), cause=cause)
        case Pause(reason=reason, message=message):
            pause(draft, PlanEvent.INTERRUPT, reason, message, warning=True)
        case None:
            return False
    return True


def _policy(draft: Draft) -> OnFailure:
    """Of the step that no longer stands; of the plan where it is no single step's."""
    at = draft.inputs.problem_at
    return draft.rules.steps[at].on_failure if at >= 0 else draft.rules.on_failure


def _check_while_paused(draft: Draft) -> None:
    """Requests are served while a plan is paused too, so what they depend on rolls it back; not where failures only pause the plan."""
    guard = next((guard for guard in draft.inputs.guards if guard.verdict is Verdict.FAIL), None)
    if guard is not None and _guards_count_while_paused(draft):
        fail(draft, Reason.GUARD_FAILED, f"guard {guard.name} failed: {guard.message}", cause=Cause.GUARD)
    elif _no_longer_works(draft) and _policy(draft) is OnFailure.ROLLBACK:
        check_target_problem(draft)


def _guards_count_while_paused(draft: Draft) -> bool:
    """While traffic is split it depends on both versions."""
    rolls_back = draft.rules.on_failure is OnFailure.ROLLBACK and not draft.status.point_of_no_return
    return rolls_back and traffic_is_split(draft)


def _no_longer_works(draft: Draft) -> bool:
    """Whether what a step has done no longer works, and a rollback would undo it."""
    at = draft.inputs.problem_at
    if at < 0 or not isinstance(draft.inputs.target_problem, Failed):
        return False
    return draft.status.point_of_no_return not in [step.name for step in draft.status.steps[at:]]


def traffic_is_split(draft: Draft) -> bool:
    """Whether some pair of destinations shares the traffic now."""
    status = draft.status
    for at, (step, rule) in enumerate(zip(status.steps, draft.rules.steps, strict=False)):
        begun = step.state in (StepState.DOING, StepState.WAITING, StepState.FAILED)
        stage = -1 if step.state is StepState.DONE else stage_of(status) if begun and at == position(status) else None
        if stage is not None and (rule.stages[stage].weight or 100) < 100:  # noqa: PLR2004 -- percent
            return True
    return False


def _check_timeouts(draft: Draft) -> None:
    rules, left = draft.rules, draft.time_left
    if draft.run.running_since is not None and left is not None:
        if left <= timedelta():
            message = f"the plan exceeded spec.timeout ({duration(rules.timeout or timedelta())} of Running time)"
            return fail(draft, Reason.TIMED_OUT, message, rules.on_failure, cause=Cause.TIME)
        draft.look_again.append(left)
    deadline = _stage_deadline(draft)
    if deadline is None:
        return None
    if draft.now < deadline:
        draft.look_again.append(deadline - draft.now)
        return None
    current, rule = draft.current, rules.steps[position(draft.status)]
    waited_for = current.message or next((g.message for g in current.gates if g.verdict is not Verdict.PASS), "")
    message = (
        f"stage {current.stage} ({current.intent}) exceeded the step's timeout of {duration(rule.timeout or timedelta())}"
        f"{f'; last status: {waited_for}' if waited_for else ''}"
    )
    return fail(draft, Reason.STAGE_TIMED_OUT, message, rule.on_failure)


def _stage_deadline(draft: Draft) -> datetime | None:
    status = draft.status
    at, stage = position(status), stage_of(status)
    if stage < 0 or status.current is None or status.phase is not Phase.RUNNING:
        return None
    rule = draft.rules.steps[at]
    if rule.timeout is None:
        return None
    return status.current.started_at + max(rule.stages[stage].dwell, rule.stages[stage].settle) + rule.timeout


def fail(
    draft: Draft,
    reason: Reason | str,
    message: str,
    policy: OnFailure = OnFailure.ROLLBACK,
    *,
    cause: Cause = Cause.STEP,
) -> None:
    """Roll back or pause, and save why.

    Args:
        draft: the turn.
        reason: CamelCase.
        message: what happened, in a sentence.
        policy: whether everything is undone or a user decides.
        cause: what failed. Where it is the current step or its gate and the plan is paused, the step can be retried and not resumed.
    """
    where = draft.status.current
    step, stage = (where.step, where.stage) if where else ("", "")
    at = position(draft.status) if where else -1
    if cause is Cause.DONE_STEP:
        step, stage = draft.rules.steps[draft.inputs.problem_at].name, ""
    record_failure(draft, cause, message)
    draft.set(failure=Failure(step=step, stage=stage, reason=str(reason), message=message[:1024]))
    pauses, of_step = policy is OnFailure.PAUSE, cause in (Cause.STEP, Cause.GATE)
    if at >= 0 and (of_step or not pauses) and draft.status.steps[at].state in (StepState.DOING, StepState.WAITING):
        draft.step_event(at, StepEvent.FAIL, message)
    named = f"step {step}: " if step else ""
    if pauses:
        event = PlanEvent.FAIL_GATE if cause is Cause.GATE else PlanEvent.FAIL
        pause(draft, event, reason, f"{named}{message}; paused: {_ways_out(draft.status, at)}", warning=True)
        return
    draft.plan_event(PlanEvent.ROLL_BACK, reason, message)
    draft.set_run(paused_at=None)
    at_step = f" at step {step}" if step else ""
    what = f"{message}{at_step}" if cause is Cause.USER else f"{named}{message}"
    draft.notice(str(reason), f"{what}; rolling back", warning=True)


def _ways_out(status: Status, at: int) -> str:
    if at >= 0 and status.steps[at].state is StepState.FAILED:
        return "retry runs the step again, skip treats its gates as passed, abort rolls back"
    return "resume continues, abort rolls back"
