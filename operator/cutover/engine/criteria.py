"""Whether a run that has ended was a success, criterion by criterion, each with its evidence. Pure.

Evidence is what was seen. Where nothing was measured it says so, and how to have it measured: what was not looked at never
counts as good. Called by the driver at the end of a run; the lines stay in the status from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from cutover.plan.spec import Plan
from cutover.saga.draft import moment
from cutover.schema.model import show_duration
from cutover.status.reasons import Reason
from cutover.status.report import Comparison, Criterion, Result, RunTally, SuccessCriterion
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import ENDED, RISKS, Failure, PastRun, Phase, Run, Status, StepState
from cutover.steps.base import Duty

_Judgement = tuple[Result, str]

_FROM_OUTSIDE: Final = frozenset({Reason.ABORTED, Reason.DELETED, Reason.TIMED_OUT, Reason.GUARD_FAILED})
"""Failures that are not of the current step: where it is a test, they say nothing about its result."""


def with_report(plan: Plan, status: Status) -> Status:
    """The status with the report of a run that has just ended after beginning a step. An existing report stays."""
    began = any(step.attempt for step in status.steps)
    if status.run is None or status.phase not in ENDED or status.report or not began:
        return status
    return replace(status, report=report(plan, status, status.run))


def report(plan: Plan, status: Status, run: Run) -> tuple[Criterion, ...]:
    """A line for each criterion, from the status of a run that has ended."""
    made = []
    for criterion, judge in _JUDGES.items():
        result, evidence = judge(plan, status, run)
        made.append(Criterion(criterion=criterion, result=result, evidence=evidence))
    return tuple(made)


def _rolled_back_because(status: Status) -> str:
    """Why the run did not reach its last step; empty when it did, even if it was rolled back on request later."""
    if status.phase is Phase.SUCCEEDED:
        return ""
    if status.failure is None:
        return status.message
    return "" if status.failure.reason == Reason.ROLLBACK else status.failure.message


def _data(plan: Plan, status: Status, run: Run) -> _Judgement:
    del status, run
    if steps := [step.name for step in plan.steps if Duty.SCRIPT in step.kind.duties()]:
        changes = f"{steps_named(steps)} may change data"
    else:
        changes = f"no step changes data ({', '.join(dict.fromkeys(step.kind.key for step in plan.steps))})"
    hint = "let the Job of a gate compare counts and checksums, and read its log"
    return Result.NOT_MEASURED, f"{changes}, and nothing here counts rows before and after; {hint}"


def _window(plan: Plan, status: Status, run: Run) -> _Judgement:
    ended = run.finished_at or run.started_at
    began = min((step.started_at for step in status.steps if step.started_at), default=run.started_at)
    span = f"the first step began {moment(began)}, the run ended {moment(ended)}"
    if why := _rolled_back_because(status):
        return Result.NOT_MET, f"it was not completed: {why}; {span}"
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MET, f"it was rolled back on request; {span}"
    if plan.window or plan.windows:
        inside = plan.opening(ended).open
        where = (
            "inside the plan's window" if inside else "outside the plan's window, in which the last stage had started"
        )
        return Result.MET if inside else Result.NOT_MET, f"{span}, {where}"
    if plan.timeout:
        took = show_duration(timedelta(seconds=round(run.running_seconds)))
        return Result.MET, f"{span}; it was Running for {took} of the {show_duration(plan.timeout)} that timeout allows"
    return Result.NOT_MEASURED, f"{span}; the plan names no window: add window, or timeout"


def _validations(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    gates = sum(len(step.gates) for step in plan.steps)
    tests = [step.name for step in plan.steps if not step.gates and Purpose.VERIFIES in step.kind.purposes()]
    if not gates and not tests:
        return Result.NOT_MEASURED, "no step has a gate; add gates"
    parts = _passed_parts(status, seen, gates, tests)
    tally = "; ".join(parts)
    if failure is not None and _is_of_validation(failure, tests):
        return Result.NOT_MET, "; ".join((f"step {failure.step} {failure.stage}: {failure.message}", *parts))
    if seen.gates_skipped:
        return Result.NOT_MET, f"{_skipped_part(status, seen.gates_skipped)}; {tally}"
    if why := _rolled_back_because(status):
        before = [f"{_gates(seen.gates_failed)} failed before"] if seen.gates_failed else []
        return Result.NOT_MEASURED, "; ".join((f"later steps were not validated, because {why}", *parts, *before))
    with_results = _steps_with_results(status)
    if without := [step.name for step in plan.steps if step.gates and step.name not in with_results]:
        return Result.NOT_MEASURED, f"not evaluated, because there was nothing to do: {steps_named(without)}; {tally}"
    again = f"; {_gates(seen.gates_failed)} failed before the step was done again" if seen.gates_failed else ""
    return Result.MET, f"{tally}{again}"


def _passed_parts(status: Status, seen: RunTally, gates: int, tests: Sequence[str]) -> list[str]:
    parts = [f"{_gates(seen.gates_passed)} passed at the end of a stage; the plan has {gates}"] if gates else []
    if done := [step.name for step in status.steps if step.name in tests and step.state is StepState.DONE]:
        parts.append(f"{steps_named(done)} succeeded")
    return parts


def _is_of_validation(failure: Failure, tests: Sequence[str]) -> bool:
    """Whether a gate or a test has failed, and not something else while one was current."""
    of_test = failure.step in tests and failure.reason not in _FROM_OUTSIDE
    return failure.reason == Reason.GATE_FAILED or of_test


def _skipped_part(status: Status, count: int) -> str:
    skips = [record for record in status.requests if record.verb == RequestVerb.SKIP]
    who = next((record.by for record in skips if record.answer is Answer.ACCEPTED and record.by), "somebody")
    return f"{_gates(count)} {'was' if count == 1 else 'were'} treated as passed on request of {who}"


def _performance(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    tally = status.tally or RunTally()
    seen = tally.comparisons
    if failed := [one for one in seen if not one.passed]:
        return Result.NOT_MET, "; ".join(map(_text, failed))
    wanted = set(_comparing(plan))
    if not wanted:
        return Result.NOT_MEASURED, "no gate compares with what was before; give one prometheus.baseline and pass.ratio"
    text = "; ".join(map(_text, reversed(seen)))
    if why := _rolled_back_because(status):
        return Result.NOT_MEASURED, f"not measured to the end, because {why}{f'; {text}' if text else ''}"
    unseen = sorted(wanted - {(one.step, one.gate) for one in seen})
    with_results = _steps_with_results(status) | ({""} if tally.guarded_stages else frozenset())
    if never := [_named(*one) for one in unseen if one[0] not in with_results]:
        return Result.NOT_MEASURED, f"not evaluated: {', '.join(never)}"
    return Result.MET, f"{text}{f'; the numbers of {len(unseen)} more that passed are not kept' if unseen else ''}"


def _steps_with_results(status: Status) -> frozenset[str]:
    return frozenset(step.name for step in status.steps if step.gates_passed)


def _comparing(plan: Plan) -> Iterator[tuple[str, str]]:
    for step in plan.steps:
        yield from ((step.name, gate.name) for gate in step.gates if gate.source.baseline_query())
    yield from (("", guard.name) for guard in plan.guards if guard.source.baseline_query())


def _named(step: str, gate: str) -> str:
    return f"step {step} gate {gate}" if step else f"guard {gate}"


def _text(one: Comparison) -> str:
    return f"{_named(one.step, one.gate)}: {one.message}"


def _rehearsed(plan: Plan, status: Status, run: Run) -> _Judgement:
    here = PastRun(
        number=run.number,
        phase=status.phase or Phase.PENDING,
        reason=status.reason,
        message="",
        started_at=run.started_at,
        steps_digest=run.steps_digest,
        steps_done=status.tally.steps_done if status.tally else 0,
    )
    rolled_back = [
        past
        for past in (here, *status.history)
        if past.phase is Phase.ROLLED_BACK and past.steps_digest == plan.steps_digest
    ]
    most = max(rolled_back, key=lambda past: past.steps_done, default=None)
    total, kept_until = len(plan.steps), run.keep_until
    ready = f"; it can be rolled back on request until {moment(kept_until)}" if kept_until else ""
    if most is not None and most.steps_done == total:
        return (
            Result.MET,
            f"run {most.number} did all of these steps ({total}) and was rolled back completely{ready}",
        )
    found = f"run {most.number} was rolled back after {most.steps_done} of these {total} steps" if most else ""
    text = found or "no run of these steps was rolled back"
    hint = "to rehearse it, roll a run back after its success, then apply the same steps with another description"
    return Result.NOT_MEASURED, f"{text}{ready}; {hint}"


def _downtime(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    seen, names = status.tally or RunTally(), ", ".join(guard.name for guard in plan.guards)
    if seen.failed_guard:
        return Result.NOT_MET, seen.failed_guard
    if not plan.guards:
        hint = "add a guard on what users see, such as the rate of failed requests"
        return Result.NOT_MEASURED, f"no guard was evaluated; {hint}"
    guards = f"guard{'s' if len(plan.guards) > 1 else ''} {names}"
    tally = f"{guards}: passed at the end of each of {seen.guarded_stages} stages, and none failed in between"
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MEASURED, f"{tally}; guards are not evaluated during a rollback"
    if seen.pauses:
        return (
            Result.NOT_MEASURED,
            f"{tally}; but the plan was paused {_times(seen.pauses)}, and guards are not evaluated throughout a pause",
        )
    if not seen.guarded_stages:
        return Result.NOT_MEASURED, "no guard was evaluated: there was nothing to do in any step"
    return Result.MET, tally


def _dependencies(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    names = dict.fromkeys(f"{to.resource.kind} {to.name}" for step in plan.steps for to in step.kind.touches())
    if not names:
        return (
            Result.NOT_MEASURED,
            "no step writes an object, and what depends on the work of its Jobs is not known here",
        )
    drift = next((risk.message for risk in status.conditions if risk.type == RISKS[0]), "")
    also = f"; {RISKS[0]}: {drift.splitlines()[0]}" if drift else ""
    hint = "kubectl cutover impact lists the Services, routes, autoscalers and plans around them"
    return Result.NOT_MEASURED, f"what depends on {', '.join(names)} is not known here; {hint}{also}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _gates(count: int) -> str:
    return f"{count} gate{'' if count == 1 else 's'}"


def steps_named(names: Sequence[str]) -> str:
    """One step or several, by name."""
    return f"step{'s' if len(names) > 1 else ''} {', '.join(names)}"


_JUDGES: Final[dict[SuccessCriterion, Callable[[Plan, Status, Run], _Judgement]]] = {
    SuccessCriterion.DATA: _data,
    SuccessCriterion.WINDOW: _window,
    SuccessCriterion.VALIDATIONS: _validations,
    SuccessCriterion.PERFORMANCE: _performance,
    SuccessCriterion.ROLLBACK: _rehearsed,
    SuccessCriterion.DOWNTIME: _downtime,
    SuccessCriterion.DEPENDENCIES: _dependencies,
}
