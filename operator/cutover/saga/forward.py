"""The way forward, and what turns a plan back."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from cutover.requests import RequestVerb
from cutover.saga.backward import backward
from cutover.saga.draft import Draft, clock, duration, fence_if_taken_over, position, seconds, stage_of
from cutover.saga.tables import PlanEvent, Reason, StepEvent
from cutover.saga.turn import Again, Command, Done, Failed, Turn, Verb, Wait
from cutover.status import Current, Failure, Phase, StepState, Verdict


def turn_back(draft: Draft, wish: RequestVerb | None) -> None:
    """Judged first in every turn, before and apart from the step in hand."""
    inputs, status = draft.inputs, draft.status
    if inputs.deleting:
        return fail(draft, Reason.DELETED, "the plan was deleted while it was active")
    if wish is RequestVerb.ABORT:
        by = next((record.by for record in status.requests if record.verb == RequestVerb.ABORT), "")
        return fail(draft, Reason.ABORTED, f"aborted by {by}" if by else "aborted")
    if status.phase is Phase.HELD:
        return None
    for gate in (*inputs.guards, *inputs.gates):
        if gate.verdict is Verdict.FAIL and (gate.guard or status.current is not None):
            what, reason = ("guard", Reason.GUARD_FAILED) if gate.guard else ("gate", Reason.GATE_FAILED)
            return fail(draft, reason, f"{what} {gate.name}: {gate.message}")
    return _out_of_time(draft)


def _out_of_time(draft: Draft) -> None:
    run, rules = draft.run, draft.rules
    if run.since is not None and rules.timeout is not None:
        left = rules.timeout - timedelta(seconds=run.spent) - (draft.now - run.since)
        if left <= timedelta():
            return fail(
                draft,
                Reason.TIMED_OUT,
                f"the plan was Running for longer than its timeout of {duration(rules.timeout)}",
            )
        draft.look.append(left)
    deadline = _stage_deadline(draft)
    if deadline is None:
        return None
    if draft.now >= deadline:
        current, rule = draft.current, rules.steps[position(draft.status)]
        waited_for = current.message or next((g.message for g in current.gates if g.verdict is not Verdict.PASS), "")
        detail = f"; last seen: {waited_for}" if waited_for else ""
        return fail(
            draft,
            Reason.STAGE_TIMED_OUT,
            f"stage {current.stage} ({current.intent}) took longer than its timeout of "
            f"{duration(rule.timeout or timedelta())}{detail}",
        )
    draft.look.append(deadline - draft.now)
    return None


def _stage_deadline(draft: Draft) -> datetime | None:
    status = draft.status
    if status.current is None or status.phase is not Phase.RUNNING or status.reason == Reason.CLAIMING:
        return None
    rule = draft.rules.steps[position(status)]
    if rule.timeout is None:
        return None
    stage = rule.stages[stage_of(status)]
    return status.current.started_at + max(stage.dwell, stage.settle) + rule.timeout


def fail(draft: Draft, reason: Reason | str, message: str) -> None:
    """Turn back, and remember why."""
    status = draft.status
    where = status.current
    draft.set(
        failure=Failure(
            step=where.step if where else "",
            stage=where.stage if where else "",
            reason=str(reason),
            message=message[:1024],
        )
    )
    at = position(status) if where else -1
    if at >= 0 and status.steps[at].state in (StepState.DOING, StepState.WAITING):
        draft.step_event(at, StepEvent.FAIL, message)
    draft.plan_event(PlanEvent.TURN, reason, message)
    draft.set_run(held_at=None)
    named = f"step {where.step}: " if where else ""
    draft.notice(str(reason), f"{named}{message}; unwinding", warning=True)


def forward(draft: Draft) -> Turn:
    """The stage in hand: do it, look how far it is, judge it."""
    at, stage = position(draft.status), stage_of(draft.status)
    match draft.inputs.outcome:
        case None:
            fence_if_taken_over(draft)
            draft.set(current=replace(draft.current, gates=(*draft.inputs.gates, *draft.inputs.guards)))
            return draft.turn(Command(Verb.DO, at, stage))
        case Done(skip=skip, ready=ready):
            return _judge(draft, skip=skip, ready=ready)
        case Again(after=after, message=message, ready=ready):
            _go(draft, at)
            draft.set(current=replace(draft.current, message=message, ready=ready))
            return draft.turn(None, seconds(after))
        case Wait(reason=reason, message=message):
            if draft.status.phase is Phase.RUNNING:
                draft.step_event(at, StepEvent.WAIT, message)
                draft.plan_event(PlanEvent.WAIT, reason, message)
                draft.notice(reason, f"step {draft.current.step}: {message}")
            draft.set(current=replace(draft.current, message=message))
            return draft.turn()
        case Failed(reason=reason, message=message):
            fail(draft, reason, message)
            return backward(draft)


def _go(draft: Draft, at: int) -> None:
    """A step that waited for a person does no longer."""
    if draft.status.phase is Phase.WAITING:
        draft.step_event(at, StepEvent.GO)
        draft.plan_event(PlanEvent.GO, Reason.PROGRESSING)


def _judge(draft: Draft, *, skip: bool, ready: str) -> Turn:
    """The stage is in effect. It is over when it has dwelt long enough and every gate says Pass."""
    at, stage = position(draft.status), stage_of(draft.status)
    _go(draft, at)
    applied = draft.current.applied_at or draft.now
    gates = (*draft.inputs.gates, *draft.inputs.guards)
    draft.set(current=replace(draft.current, applied_at=applied, ready=ready, message="", gates=gates))
    rule = draft.rules.steps[at].stages[stage]
    rest = applied + max(rule.dwell, rule.settle) - draft.now
    if not skip:
        if rest > timedelta():
            draft.set(current=replace(draft.current, message=f"stays until {clock(draft.now + rest)}"))
            return draft.turn(None, rest)
        waiting = next((gate for gate in gates if gate.verdict is not Verdict.PASS), None)
        if waiting is not None:
            draft.set(current=replace(draft.current, message=f"gate {waiting.name}: {waiting.message}"))
            return draft.turn()
    if stage + 1 < len(draft.rules.steps[at].stages):
        return _announce(draft, at, stage + 1)
    draft.step_event(at, StepEvent.FINISH)
    return start(draft, at + 1)


def start(draft: Draft, at: int) -> Turn:
    """Begin a step; after the last one let go of everything. The fence rises before each attempt."""
    if at == len(draft.rules.steps):
        draft.set(reason=str(Reason.RELEASING), message="all steps are done; letting go of the targets", current=None)
        return draft.turn(Command(Verb.RELEASE))
    draft.step_event(at, StepEvent.START)
    draft.raise_fence()
    return _announce(draft, at, 0)


def _announce(draft: Draft, at: int, stage: int) -> Turn:
    """Say what the next stage will do; the driver saves this before it does it."""
    rule = draft.rules.steps[at]
    intent = rule.stages[stage]
    place = f"{stage + 1}/{len(rule.stages)}"
    draft.set(
        current=Current(step=rule.name, stage=place, intent=intent.intent, weight=intent.weight, started_at=draft.now)
    )
    draft.notice("StageStarted", f"step {rule.name} {place}: {intent.intent}")
    return draft.turn(Command(Verb.DO, at, stage))
