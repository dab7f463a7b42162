"""Whether a run that has ended was a success, one criterion after the other, each with its evidence. Pure.

Evidence is what was seen. Where nothing was measured it says so, and how to have it measured: nothing is taken for good
because nobody looked. Called by the driver at the end of a run; the lines stand in the status from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from cutover.plan.plan import Plan
from cutover.saga.draft import moment
from cutover.schema.model import show_duration
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import (
    ENDED,
    RISKS,
    Answer,
    Compared,
    Criterion,
    PastRun,
    Phase,
    Result,
    Run,
    RunTally,
    Status,
    StepState,
    SuccessCriterion,
)
from cutover.steps.kind import Purpose

_Judgement = tuple[Result, str]

_FROM_OUTSIDE: Final = frozenset({Reason.ABORTED, Reason.DELETED, Reason.TIMED_OUT, Reason.GUARD_FAILED})
"""Why a plan turns back, whatever the step in hand is about: of a test among them nothing is known."""


def with_report(plan: Plan, status: Status) -> Status:
    """The status with the report of a run that has just ended, if it had begun a step. One that is there stays."""
    began = any(step.attempt for step in status.steps)
    if status.run is None or status.phase not in ENDED or status.report or not began:
        return status
    return replace(status, report=report(plan, status, status.run))


def report(plan: Plan, status: Status, run: Run) -> tuple[Criterion, ...]:
    """A line for each criterion, from what stands in the status of a run that has ended."""
    made = []
    for aim, judge in _JUDGES.items():
        result, evidence = judge(plan, status, run)
        made.append(Criterion(criterion=aim, result=result, evidence=evidence))
    return tuple(made)


def _turned_back(status: Status) -> str:
    """Why the run did not reach its last step; empty when it did, even if it was rolled back on request later."""
    if status.phase is Phase.SUCCEEDED:
        return ""
    if status.failure is None:
        return status.message
    return "" if status.failure.reason == Reason.ROLLBACK else status.failure.message


def _data(plan: Plan, status: Status, run: Run) -> _Judgement:
    del status, run
    if steps := [step.name for step in plan.steps if Purpose.CHANGES_DATA in step.kind.purposes()]:
        says = f"{steps_named(steps)} may change data"
    else:
        says = f"no step is there to change data ({', '.join(dict.fromkeys(step.kind.key for step in plan.steps))})"
    way = "let the Job of a gate compare counts and checksums, and read its log"
    return Result.NOT_MEASURED, f"{says}, and nothing here counts rows before and after; {way}"


def _window(plan: Plan, status: Status, run: Run) -> _Judgement:
    ended = run.finished_at or run.started_at
    began = min((step.started_at for step in status.steps if step.started_at), default=run.started_at)
    span = f"the first step began {moment(began)}, the run ended {moment(ended)}"
    if why := _turned_back(status):
        return Result.NOT_MET, f"it was not completed: {why}; {span}"
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MET, f"it was taken back again on request; {span}"
    if plan.window or plan.windows:
        inside = plan.opening(ended).open
        where = "inside" if inside else "after the last stage had begun inside it, but outside"
        return Result.MET if inside else Result.NOT_MET, f"{span}, {where} the plan's window"
    if plan.timeout:
        took = show_duration(timedelta(seconds=round(run.spent)))
        return Result.MET, f"{span}; it was Running for {took} of the {show_duration(plan.timeout)} that timeout allows"
    return Result.NOT_MEASURED, f"{span}; the plan names no window: add window, or timeout"


def _validations(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    gates = sum(len(step.gates) for step in plan.steps)
    tests = [step.name for step in plan.steps if not step.gates and Purpose.VERIFIES in step.kind.purposes()]
    if not gates and not tests:
        return Result.NOT_MEASURED, "no step has a gate; add gates"
    seen = status.tally or RunTally()
    tally = "; ".join(_passed(status, gates, tests))
    if failed := _failed_validation(status, tests):
        return Result.NOT_MET, "; ".join(filter(None, (failed, tally)))
    if seen.skipped:
        by = _skipped_by(status)
        return Result.NOT_MET, f"{_times(seen.skipped)} a gate was taken as passed because {by} asked for it; {tally}"
    if why := _turned_back(status):
        before = f"; {_times(seen.failed)} a gate had failed" if seen.failed else ""
        says = f"what came later was not judged, because {why}{f'; {tally}' if tally else ''}{before}"
        return Result.NOT_MEASURED, says
    judged = _judged(status)
    if unjudged := [step.name for step in plan.steps if step.gates and step.name not in judged]:
        says = f"not judged, because there was nothing to do: {steps_named(unjudged)}"
        return Result.NOT_MEASURED, f"{says}; {tally}"
    again = f"; {_times(seen.failed)} a gate had failed before, and its step was done again" if seen.failed else ""
    return Result.MET, f"{tally}{again}"


def _passed(status: Status, gates: int, tests: Sequence[str]) -> Iterator[str]:
    if gates:
        seen = status.tally or RunTally()
        yield f"{_times(seen.passed)} a gate said Pass at the end of a stage; the plan has {gates}"
    if well := [step.name for step in status.steps if step.name in tests and step.state is StepState.DONE]:
        yield f"{steps_named(well)} ended well"


def _failed_validation(status: Status, tests: Sequence[str]) -> str:
    """The gate or test that failed the run; empty when it was something else, or nothing."""
    failure = status.failure
    if failure is None:
        return ""
    by_itself = failure.step in tests and failure.reason not in _FROM_OUTSIDE
    if failure.reason != Reason.GATE_FAILED and not by_itself:
        return ""
    return f"step {failure.step} {failure.stage}: {failure.message}"


def _skipped_by(status: Status) -> str:
    """Who had gates skipped. A request that was not accepted names nobody."""
    return next(
        (
            record.by
            for record in status.requests
            if record.verb == RequestVerb.SKIP and record.answer is Answer.ACCEPTED and record.by
        ),
        "somebody",
    )


def _performance(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    kept = status.tally or RunTally()
    seen = kept.compared
    if bad := [one for one in seen if not one.passed]:
        return Result.NOT_MET, "; ".join(map(_said, bad))
    wanted = set(_comparing(plan))
    if not wanted:
        return Result.NOT_MEASURED, "no gate compares with what was before; give one prometheus.baseline and pass.ratio"
    says = "; ".join(map(_said, reversed(seen)))
    if why := _turned_back(status):
        return Result.NOT_MEASURED, f"not to the end, because {why}{f'; {says}' if says else ''}"
    unseen = sorted(wanted - {(one.step, one.gate) for one in seen})
    judged = _judged(status) | ({""} if kept.guarded else frozenset())
    if never := [_named(*one) for one in unseen if one[0] not in judged]:
        return Result.NOT_MEASURED, f"not judged: {', '.join(never)}"
    return Result.MET, f"{says}{f'; of {len(unseen)} more that passed the numbers are not kept' if unseen else ''}"


def _judged(status: Status) -> frozenset[str]:
    return frozenset(step.name for step in status.steps if step.judged)


def _comparing(plan: Plan) -> Iterator[tuple[str, str]]:
    for step in plan.steps:
        yield from ((step.name, gate.name) for gate in step.gates if gate.source.baseline_query())
    yield from (("", guard.name) for guard in plan.guards if guard.source.baseline_query())


def _named(step: str, gate: str) -> str:
    return f"step {step} gate {gate}" if step else f"guard {gate}"


def _said(one: Compared) -> str:
    return f"{_named(one.step, one.gate)}: {one.message}"


def _rehearsed(plan: Plan, status: Status, run: Run) -> _Judgement:
    here = PastRun(
        number=run.number,
        phase=status.phase or Phase.PENDING,
        reason=status.reason,
        message="",
        started_at=run.started_at,
        steps_digest=run.steps_digest,
        done=status.tally.done if status.tally else 0,
    )
    back = [
        past
        for past in (here, *status.history)
        if past.phase is Phase.ROLLED_BACK and past.steps_digest == plan.steps_digest
    ]
    most = max(back, key=lambda past: past.done, default=None)
    total, kept = len(plan.steps), run.keep_until
    ready = f"; it can be rolled back on request until {moment(kept)}" if kept else ""
    if most is not None and most.done == total:
        return (
            Result.MET,
            f"run {most.number} did all of these very steps ({total}) and was rolled back completely{ready}",
        )
    found = f"run {most.number} was rolled back when {most.done} of these {total} steps were done" if most else ""
    says = found or "no run of these very steps was rolled back"
    way = "to rehearse it, roll a run back after its success, then apply the same steps with another description"
    return Result.NOT_MEASURED, f"{says}{ready}; {way}"


def _downtime(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    seen, names = status.tally or RunTally(), ", ".join(guard.name for guard in plan.guards)
    if seen.guard_failed:
        return Result.NOT_MET, seen.guard_failed
    if not plan.guards:
        way = "add a guard on what users see, such as the rate of failed requests"
        return Result.NOT_MEASURED, f"nothing was judged all along; {way}"
    tally = f"guard{'s' if len(plan.guards) > 1 else ''} {names}: all said Pass at the end of each of {seen.guarded} stages, and none failed in between"
    if status.phase is not Phase.SUCCEEDED:
        return Result.NOT_MEASURED, f"{tally}; they are not judged on rollback"
    if seen.paused:
        return (
            Result.NOT_MEASURED,
            f"{tally}; but it was paused {_times(seen.paused)}, and guards are not judged all along then",
        )
    if not seen.guarded:
        return Result.NOT_MEASURED, "no guard was judged: there was nothing to do in any step"
    return Result.MET, tally


def _dependencies(plan: Plan, status: Status, run: Run) -> _Judgement:
    del run
    names = dict.fromkeys(f"{to.resource.kind} {to.name}" for step in plan.steps for to in step.kind.touches())
    if not names:
        return Result.NOT_MEASURED, "no step writes an object, and who depends on what its Jobs do is not known here"
    drift = next((risk.message for risk in status.conditions if risk.type == RISKS[0]), "")
    also = f"; {RISKS[0]}: {drift.splitlines()[0]}" if drift else ""
    way = "kubectl cutover impact lists the Services, routes, autoscalers and plans around them"
    return Result.NOT_MEASURED, f"who depends on {', '.join(names)} is not known here; {way}{also}"


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
