"""Evaluates the success criteria of a run that has ended, each with its evidence. Pure.

Evidence is what was measured. Where nothing was, it says so and how to have it measured: a criterion is never met for lack of data.
Called by the driver at the end of a run; the lines stay in the status from then on.
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
from cutover.status.status import ENDED, RISKS, PastRun, Phase, Run, Status, StepState
from cutover.steps.parts import Purpose

_Judgement = tuple[Result, str]

_FROM_OUTSIDE: Final = frozenset({Reason.ABORTED, Reason.DELETED, Reason.TIMED_OUT, Reason.GUARD_FAILED})
"""Reasons that end a run from outside, regardless of the current step: they say nothing about a test that was running."""


def with_report(plan: Plan, status: Status) -> Status:
    """The status with the report of a run that has just ended, if it had started a step. An existing report stays."""
    started = any(step.attempt for step in status.steps)
    if status.run is None or status.phase not in ENDED or status.report or not started:
        return status
    return replace(status, report=report(plan, status, status.run))


def report(plan: Plan, status: Status, run: Run) -> tuple[Criterion, ...]:
    """One line per criterion, from the status of a run that has ended."""
    made = []
    for criterion, judge in _JUDGES.items():
        result, evidence = judge(plan, status, run)
        made.append(Criterion(criterion=criterion, result=result, evidence=evidence))
    return tuple(made)


def _why_incomplete(status: Status) -> str:
    """Why the run did not complete its last step; empty when it did, even if it was rolled back on request afterwards."""
    if status.phase is Phase.SUCCEEDED:
        return ""
    if status.failure is None:
        return status.message
    return "" if status.failure.reason == Reason.ROLLBACK else status.failure.message


def _data(plan: Plan, status: Status, run: Run) -> _Judgement:
    del status, run
    if steps := [step.name for step in plan.steps if step.serves(Purpose.CHANGES_DATA)]:
        changes = f"{steps_named(steps)} may change data"
    else:
        changes = f"no step changes data ({', '.join(dict.fromkeys(step.kind.key for step in plan.steps))})"
    advice = "have the Job of a gate compare counts and checksums, and read its log"
    return Result.NOT_MEASURED, f"{changes}; rows are not counted before and after: {advice}"


def _window(plan: Plan, status: Status, run: Run) -> _Judgement:
    ended = run.finished_at or run.started_at
    started = min((step.started_at for step in status.steps if step.started_at), default=run.started_at)
    span = f"the first step started {moment(started)}, the run ended {moment(ended)}"
    if why := _why_incomplete(status):
        return Result.NOT_MET, f"not completed: {why}; {span}"
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MET, f"rolled back on request after it had completed; {span}"
    if plan.window or plan.windows:
        inside = plan.opening(ended).open
        where = (
            "inside the plan's window" if inside else "outside the plan's window, in which the last stage had started"
        )
        return Result.MET if inside else Result.NOT_MET, f"{span}, {where}"
    if plan.timeout:
        spent = show_duration(timedelta(seconds=round(run.running_seconds)))
        return (
            Result.MET,
            f"{span}; it was Running for {spent} of the {show_duration(plan.timeout)} that timeout allows",
        )
    return Result.NOT_MEASURED, f"{span}; the plan has no window: add window or timeout"


def _validations(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    gates = sum(len(step.gates) for step in plan.steps)
    tests = [step.name for step in plan.steps if not step.gates and step.serves(Purpose.VERIFIES)]
    if not gates and not tests:
        return Result.NOT_MEASURED, "no step has a gate; add gates"
    seen = status.tally or RunTally()
    tally = "; ".join(_passed(status, gates, tests))
    if failed := _failed_validation(status, tests):
        return Result.NOT_MET, "; ".join(filter(None, (failed, tally)))
    if seen.gates_skipped:
        return Result.NOT_MET, f"{_gates(seen.gates_skipped)} skipped on request{_skipped_by(status)}; {tally}"
    if why := _why_incomplete(status):
        before = f"; {_gates(seen.gates_failed)} failed earlier" if seen.gates_failed else ""
        return Result.NOT_MEASURED, f"not evaluated to the end: {why}{f'; {tally}' if tally else ''}{before}"
    judged = _judged(status)
    if unjudged := [step.name for step in plan.steps if step.gates and step.name not in judged]:
        return Result.NOT_MEASURED, f"not evaluated, because there was nothing to do: {steps_named(unjudged)}; {tally}"
    again = f"; {_gates(seen.gates_failed)} failed before a step was retried" if seen.gates_failed else ""
    return Result.MET, f"{tally}{again}"


def _passed(status: Status, gates: int, tests: Sequence[str]) -> Iterator[str]:
    seen = status.tally or RunTally()
    if gates:
        yield f"{_gates(seen.gates_passed)} passed over all stages; the plan has {gates}"
    done = {step.name for step in status.steps if step.state is StepState.DONE}
    done |= {step.name for step in status.steps[: seen.steps_done]}  # and may have been undone since
    if passed := [step.name for step in status.steps if step.name in tests and step.name in done]:
        yield f"{steps_named(passed)} passed"


def _failed_validation(status: Status, tests: Sequence[str]) -> str:
    """The gate or test that failed the run; empty when something else did, or nothing."""
    failure = status.failure
    if failure is None:
        return ""
    by_itself = failure.step in tests and failure.reason not in _FROM_OUTSIDE
    if failure.reason != Reason.GATE_FAILED and not by_itself:
        return ""
    return f"step {failure.step} {failure.stage}: {failure.message}"


def _skipped_by(status: Status) -> str:
    """Who requested to skip gates, as " of alice"; empty when that is not known. A request that was not accepted does not count."""
    return next(
        (
            f" of {record.by}"
            for record in status.requests
            if record.verb == RequestVerb.SKIP and record.answer is Answer.ACCEPTED and record.by
        ),
        "",
    )


def _performance(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    kept = status.tally or RunTally()
    seen = kept.comparisons
    if bad := [one for one in seen if not one.passed]:
        return Result.NOT_MET, "; ".join(map(_comparison, bad))
    wanted = set(_comparing(plan))
    if not wanted:
        return Result.NOT_MEASURED, "no gate compares with a baseline; add prometheus.baseline and pass.ratio to one"
    compared = "; ".join(map(_comparison, reversed(seen)))
    if why := _why_incomplete(status):
        return Result.NOT_MEASURED, f"not measured to the end: {why}{f'; {compared}' if compared else ''}"
    unseen = sorted(wanted - {(one.step, one.gate) for one in seen})
    judged = _judged(status) | ({""} if kept.guarded_stages else frozenset())
    if never := [_named(*one) for one in unseen if one[0] not in judged]:
        return Result.NOT_MEASURED, f"not evaluated: {', '.join(never)}"
    return Result.MET, f"{compared}{f'; {len(unseen)} more passed (their numbers are not kept)' if unseen else ''}"


def _judged(status: Status) -> frozenset[str]:
    return frozenset(step.name for step in status.steps if step.gates_passed)


def _comparing(plan: Plan) -> Iterator[tuple[str, str]]:
    for step in plan.steps:
        yield from ((step.name, gate.name) for gate in step.gates if gate.source.baseline_query())
    yield from (("", guard.name) for guard in plan.guards if guard.source.baseline_query())


def _named(step: str, gate: str) -> str:
    return f"step {step} gate {gate}" if step else f"guard {gate}"


def _comparison(one: Comparison) -> str:
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
    back = [
        past
        for past in (here, *status.history)
        if past.phase is Phase.ROLLED_BACK and past.steps_digest == plan.steps_digest
    ]
    furthest = max(back, key=lambda past: past.steps_done, default=None)
    total, kept = len(plan.steps), run.keep_until
    ready = f"; it can be rolled back on request until {moment(kept)}" if kept else ""
    if furthest is not None and furthest.steps_done == total:
        return (
            Result.MET,
            f"run {furthest.number} completed {total} of {total} steps and was fully rolled back{ready}",
        )
    found = (
        f"run {furthest.number} was rolled back after {furthest.steps_done} of {total} steps"
        if furthest
        else "no run of these steps was rolled back"
    )
    advice = "to rehearse it, roll back a run that succeeded, then apply the same steps with another description"
    return Result.NOT_MEASURED, f"{found}{ready}; {advice}"


def _downtime(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    seen, names = status.tally or RunTally(), ", ".join(guard.name for guard in plan.guards)
    if seen.failed_guard:
        return Result.NOT_MET, seen.failed_guard
    if not plan.guards:
        return (
            Result.NOT_MEASURED,
            "no guard was evaluated: the plan has none; add one on what users see, such as the rate of failed requests",
        )
    stages = f"{seen.guarded_stages} stage{'' if seen.guarded_stages == 1 else 's'}"
    tally = (
        f"guard{'s' if len(plan.guards) > 1 else ''} {names} passed at the end of {stages} and never failed in between"
    )
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MEASURED, f"{tally}; guards are not evaluated during a rollback"
    if seen.pauses:
        return (
            Result.NOT_MEASURED,
            f"{tally}; but the plan was paused {_times(seen.pauses)}, and guards are not evaluated throughout a pause",
        )
    if not seen.guarded_stages:
        return Result.NOT_MEASURED, "no guard was evaluated: no step had anything to do"
    return Result.MET, tally


def _dependencies(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    names = dict.fromkeys(f"{to.resource.kind} {to.name}" for step in plan.steps for to in step.kind.touches())
    if not names:
        return Result.NOT_MEASURED, "no step writes an object; what depends on its Jobs cannot be checked"
    drift = next((risk.message for risk in status.conditions if risk.type == RISKS[0]), "")
    also = f"; {RISKS[0]}: {drift.splitlines()[0]}" if drift else ""
    advice = "kubectl cutover impact lists the Services, routes, autoscalers and plans around them"
    return Result.NOT_MEASURED, f"what depends on {', '.join(names)} cannot be checked; {advice}{also}"


def _gates(count: int) -> str:
    return f"{count} gate{'' if count == 1 else 's'}"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


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
