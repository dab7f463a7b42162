"""Going forward: the current stage, its gates, the next one, another attempt. Called by `advance`."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from cutover.saga.backward import backward, with_progress
from cutover.saga.draft import Draft, clock, fence_if_new_process, moment, position, seconds, stage_of
from cutover.saga.end import enforce_first, release
from cutover.saga.requests import digest_of, failed_step, gates_skipped, pause
from cutover.saga.stop_conditions import fail
from cutover.saga.tables import PlanEvent, StepEvent
from cutover.saga.tally import record_judged_stage
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Pause, Turn, Verb, Wait
from cutover.status.phases import ON_PURPOSE, STOPPED
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.state import State
from cutover.status.status import Current, Phase, StepState, Verdict


def forward(draft: Draft, _: RequestVerb | None) -> Turn:
    """The current stage: do it, check its progress, evaluate its gates."""
    at, stage = position(draft.status), stage_of(draft.status)
    # First, so that whatever this turn leads to saves it too.
    draft.record_made(at)
    if draft.status.steps[at].state is StepState.UNDOING:
        return _undo_before_retry(draft, at)
    if draft.inputs.snapshot_taken:
        draft.mark_snapshot_taken(at)
    match draft.inputs.outcome:
        case None:
            return enforce_first(draft) or _do(draft, at, stage)
        case Done() as done:
            return enforce_first(draft) or _judge_stage(draft, done)
        case Again(after=after, message=message, ready=ready):
            _continue(draft, at)
            draft.set(current=replace(draft.current, message=message, ready=ready))
            return draft.turn(None, seconds(after))
        case Wait(reason=reason, message=message):
            if draft.status.phase is Phase.RUNNING:
                draft.step_event(at, StepEvent.WAIT, message)
                draft.plan_event(PlanEvent.WAIT, reason, message)
                draft.notice(reason, f"step {draft.current.step}: {message}")
            draft.set(current=replace(draft.current, message=message))
            return draft.turn()
        case Pause(reason=reason, message=message):
            pause(draft, PlanEvent.INTERRUPT, reason, f"step {draft.current.step}: {message}", warning=True)
            return draft.turn()
        case Failed(reason=reason, message=message):
            return _attempt_failed(draft, at, reason, message)


def _do(draft: Draft, at: int, stage: int) -> Turn:
    """Carry out the stage: again, or for the first time once the window is open."""
    if draft.current.not_started:
        if not _may_begin(draft, at, stage):
            return _wait_for_window(draft, at, stage)
        _continue(draft, at)
    fence_if_new_process(draft)
    draft.set(current=replace(draft.current, gates=(*draft.inputs.gates, *draft.inputs.guards)))
    return draft.turn(Command(Verb.DO, at, stage))


def _attempt_failed(draft: Draft, at: int, reason: str, message: str) -> Turn:
    rule = draft.rules.steps[at]
    if draft.status.steps[at].attempt <= rule.retries:
        return _another_attempt(draft, at, message)
    fail(draft, reason, message, rule.on_failure)
    return draft.turn() if draft.status.phase is Phase.PAUSED else backward(draft)


def paused(draft: Draft, _: RequestVerb | None) -> Turn:
    """Nothing moves on, but what is enforced stays so, as weights in effect.

    Not where the plan is paused because another writer acts on them: then a user decides.
    """
    state = draft.status.state
    if state in (State.INTERRUPTED, State.PAUSED_WITHOUT_SPEC):
        return draft.turn()
    problem = draft.inputs.target_problem if state in ON_PURPOSE | STOPPED else None
    match draft.inputs.outcome or draft.enforce_outcome or problem:
        case None | Done() if draft.inputs.outcome is None:
            return enforce_first(draft) or _enforce_current(draft)
        case Again(after=after):
            return draft.turn(None, seconds(after))
        case Pause(reason=reason, message=message) | Failed(reason=reason, message=message) if (
            state in ON_PURPOSE | STOPPED
        ):
            draft.plan_event(PlanEvent.INTERRUPT, reason, message)
            draft.notice(reason, message, warning=True)
    return draft.turn()


def _enforce_current(draft: Draft) -> Turn:
    """The current stage, where it is in effect and enforced; also one that waits for a window, or whose gate has failed."""
    at, stage = position(draft.status), stage_of(draft.status)
    if stage < 0 or not draft.rules.steps[at].enforced or draft.current.applied_at is None:
        return draft.turn()
    if draft.status.steps[at].state not in (StepState.DOING, StepState.WAITING, StepState.FAILED):
        return draft.turn()
    fence_if_new_process(draft)
    return draft.turn(Command(Verb.DO, at, stage))


def _continue(draft: Draft, at: int) -> None:
    """The step no longer waits for an approval, or for a window that is open now."""
    waited_outside = draft.status.state is State.OUTSIDE_WINDOW
    if waited_outside and not _may_begin(draft, at, stage_of(draft.status) + (not draft.current.not_started)):
        return
    if waited_outside or draft.current.not_started:  # its timeout counts only from now
        draft.set(current=replace(draft.current, started_at=draft.now, not_started=False, message=""))
    if draft.status.phase is Phase.WAITING:
        draft.step_event(at, StepEvent.CONTINUE)
        draft.plan_event(PlanEvent.CONTINUE, Reason.PROGRESSING)


def _judge_stage(draft: Draft, done: Done) -> Turn:
    """The stage is in effect. It is over after its dwell, when every gate passes.

    The dwell comes first: a gate that passes early says nothing about the rest of it. Failing gates were handled before.
    """
    at, stage = position(draft.status), stage_of(draft.status)
    _continue(draft, at)
    applied = draft.current.applied_at or draft.now
    gates = (*draft.inputs.gates, *draft.inputs.guards)
    draft.set(
        current=replace(draft.current, applied_at=applied, reapply=False, ready=done.ready, message="", gates=gates)
    )
    rule = draft.rules.steps[at].stages[stage]
    rest = applied + max(rule.dwell, rule.settle) - draft.now
    if not done.skip:
        if rest > timedelta():
            draft.set(current=replace(draft.current, message=f"dwelling until {clock(draft.now + rest)}"))
            return draft.turn(None, rest)
        checks = draft.inputs.guards if gates_skipped(draft.status) else gates
        waiting = next((gate for gate in checks if gate.verdict is not Verdict.PASS), None)
        if waiting is not None:
            draft.set(current=replace(draft.current, message=f"gate {waiting.name}: {waiting.message}"))
            return draft.turn()
    if stage + 1 < len(draft.rules.steps[at].stages):
        if not _may_begin(draft, at, stage + 1):
            return _wait_for_window(draft, at, stage + 1)
        record_judged_stage(draft, done)
        return _announce(draft, at, stage + 1)
    record_judged_stage(draft, done)
    draft.step_event(at, StepEvent.FINISH, done.message)
    if draft.rules.steps[at].irreversible:
        draft.set(point_of_no_return=draft.rules.steps[at].name)
    return start(draft, at + 1)


def start(draft: Draft, at: int) -> Turn:
    """Begin a step; after the last one release everything. The fence rises before each attempt."""
    if at == len(draft.rules.steps):
        return release(draft, "all steps are done")
    fresh = draft.status.steps[at].state is StepState.PENDING
    draft.step_event(at, StepEvent.START if fresh else StepEvent.RETRY)
    draft.raise_fence()
    return _announce(draft, at, 0)


def _announce(draft: Draft, at: int, stage: int) -> Turn:
    """Announce what the next stage does; the driver saves this before it acts."""
    rule = draft.rules.steps[at]
    intent = rule.stages[stage]
    place = f"{stage + 1}/{len(rule.stages)}"
    draft.set(
        current=Current(
            step=rule.name,
            stage=place,
            intent=intent.intent,
            weight=intent.weight,
            started_at=draft.now,
            digest=digest_of(draft.rules, draft.run.number, rule.name) if intent.needs_approval else "",
            gates_skipped=stage > 0 and gates_skipped(draft.status),
            not_started=not _may_begin(draft, at, stage),
        )
    )
    if draft.current.not_started:
        return _wait_for_window(draft, at, stage)
    draft.notice("StageStarted", f"step {rule.name}, stage {place}: {intent.intent}")
    return draft.turn(Command(Verb.DO, at, stage))


def _may_begin(draft: Draft, at: int, stage: int) -> bool:
    """Whether a stage may begin now. A cleanup never waits: the rollback of a whole step for its sake would help nobody."""
    return draft.inputs.opening.open or draft.rules.steps[at].stages[stage].cleanup


def _wait_for_window(draft: Draft, at: int, stage: int) -> Turn:
    """The stage may not begin now. What is in effect stays so, and its gates are evaluated all the same."""
    rule, opens_at = draft.rules.steps[at], draft.inputs.opening.opens_at
    what = f"stage {stage + 1}/{len(rule.stages)} ({rule.stages[stage].intent})"
    if opens_at is None:
        fail(draft, Reason.WINDOW_OVER, f"no window remains for {what}", rule.on_failure)
        return draft.turn() if draft.status.phase is Phase.PAUSED else backward(draft)
    message = f"{what} waits for the window, which opens at {moment(opens_at)}"
    if draft.status.phase is Phase.RUNNING:
        draft.step_event(at, StepEvent.WAIT, message)
        draft.plan_event(PlanEvent.WAIT_FOR_WINDOW, Reason.OUTSIDE, f"step {rule.name}: {message}")
        draft.notice(Reason.OUTSIDE, f"step {rule.name}: {message}")
    draft.set(current=replace(draft.current, message=message))
    return draft.turn(None, opens_at - draft.now)


# --- another attempt --------------------------------------------------------------------------------------------------


def retry(draft: Draft) -> Turn:
    """On request, do the failed step of a paused plan again."""
    at = failed_step(draft.status)
    draft.renew_time()
    draft.set(failure=None)
    draft.plan_event(PlanEvent.RESUME, Reason.PROGRESSING)
    draft.set_run(paused_at=None)
    match draft.status.steps[at].state:
        case StepState.FAILED | StepState.UNDOING:
            return _undo_attempt(draft, at)
        case _:
            return start(draft, at)


def _another_attempt(draft: Draft, at: int, message: str) -> Turn:
    """By the retries of the step: an attempt has failed, and another one is left."""
    rule, step = draft.rules.steps[at], draft.status.steps[at]
    if draft.status.phase is Phase.WAITING:
        draft.plan_event(PlanEvent.CONTINUE, Reason.PROGRESSING)
    draft.step_event(at, StepEvent.FAIL, message)
    draft.notice(
        Reason.RETRYING,
        f"step {rule.name}: attempt {step.attempt} of {rule.retries + 1} failed: {message}",
        warning=True,
    )
    return _undo_attempt(draft, at)


def _undo_attempt(draft: Draft, at: int) -> Turn:
    rule, step = draft.rules.steps[at], draft.status.steps[at]
    if not rule.undoes:
        return start(draft, at)
    # Undoing means: paused because that undo failed. It begins again then, with its full time.
    if step.state is not StepState.UNDOING:
        draft.step_event(at, StepEvent.UNDO, step.message)
    else:
        draft.count_undo_attempt()
    draft.raise_fence()
    intent = f"undoing attempt {step.attempt} before retrying"
    draft.set(current=Current(step=rule.name, intent=intent, started_at=draft.now))
    return draft.turn(Command(Verb.UNDO, at))


def _undo_before_retry(draft: Draft, at: int) -> Turn:
    """Undo the last attempt; then the step begins again."""
    outcome: Outcome | None = draft.inputs.outcome
    match outcome:
        case None:
            fence_if_new_process(draft)
            return draft.turn(Command(Verb.UNDO, at))
        case Done():
            return start(draft, at)
        case Again(after=after, message=message, ready=ready, reached=reached):
            draft.set(current=replace(with_progress(draft, reached), message=message, ready=ready))
            return draft.turn(None, seconds(after))
        case (
            Wait(reason=reason, message=message)
            | Failed(reason=reason, message=message)
            | Pause(reason=reason, message=message)
        ):
            draft.set(current=replace(draft.current, undo_failed=isinstance(outcome, Failed)))
            why = f"undo of the last attempt of step {draft.current.step} failed: {message}"
            pause(draft, PlanEvent.INTERRUPT, reason, why, warning=True)
            return draft.turn()
