"""From a plan and the status at its end to the report: a table. What the engine puts into the status is in `engine/test_report.py`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from cutover.engine.criteria import with_report
from cutover.plan.parsing import parse
from cutover.plan.spec import Plan
from cutover.saga.tally import REMEMBERED
from cutover.status.limits import with_risks
from cutover.status.report import Comparison, Result, RunTally, SuccessCriterion
from cutover.status.requests import Answer, RequestRecord
from cutover.status.status import Failure, PastRun, Phase, Risk, Run, Status, StepState, StepStatus

NOW = datetime(2026, 1, 1, 22, 30, tzinfo=UTC)
DEPLOY = "{name: deploy, deploy: {workload: {name: shop}, replicas: 2}}"
GATED = (
    "{name: deploy, deploy: {workload: {name: shop}, replicas: 2}, gates: [{name: pods, readiness: {percent: 100}}]}"
)
JOB = """{name: schema, job: {template: '{spec: {template: {spec: {containers: [{name: a, image: "a:1"}]}}}}', undo: '{spec: {template: {spec: {containers: [{name: a, image: "a:0"}]}}}}'}}"""
TEST = """{name: smoke, job: {changesNothing: true, template: '{spec: {template: {spec: {containers: [{name: a, image: "a:1"}]}}}}'}}"""
RATIO = "{name: soak, check: {for: 1m}, gates: [{name: slow, prometheus: {query: a, baseline: b}, pass: {ratio: {max: '1'}}}]}"
GUARD = "guards: [{name: errors, prometheus: {query: a}, pass: {max: '1'}}]"
FAILED = Failure(step="deploy", stage="1/1", reason="GateFailed", message="gate pods failed: 0, must be >= 100%")
ABORTED = Failure(step="deploy", stage="1/1", reason="Aborted", message="aborted by bob")
ON_REQUEST = Failure(reason="RollbackRequested", message="rolled back on request of bob")


def a_plan(*steps: str, more: str = "") -> Plan:
    text = f"serviceAccountName: migrator\n{more}\nsteps: [{', '.join(steps)}]"
    return parse(yaml.safe_load(text))


def an_end(plan: Plan, *, judged: bool = True, **changes: Any) -> Status:
    steps = tuple(
        StepStatus(
            name=step.name,
            kind=step.kind.key,
            state=StepState.DONE,
            attempt=1,
            gates_passed=judged,
            started_at=NOW - timedelta(minutes=9),
        )
        for step in plan.steps
    )
    run = Run(
        number=4,
        generation=1,
        spec_hash="h",
        steps_digest=plan.steps_digest,
        started_at=NOW - timedelta(minutes=10),
        finished_at=NOW,
        running_seconds=540,
    )
    return replace(Status(phase=Phase.SUCCEEDED, run=run, steps=steps), **changes)


@dataclass
class Case:
    aim: SuccessCriterion
    result: Result
    message: str
    steps: tuple[str, ...] = (DEPLOY,)
    more: str = ""
    end: dict[str, Any] = field(default_factory=dict)


def back(failure: Failure, seen: RunTally | None = None) -> dict[str, Any]:
    return {"phase": Phase.ROLLED_BACK, "failure": failure, "tally": seen}


def said(count: int, *, passed: bool = True) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            step="soak", gate="slow" if not at else f"g{at}", passed=passed, message="0.9 (9 against a baseline of 10)"
        )
        for at in range(count)
    )


NIGHT = 'window: {start: "2026-01-01T22:00:00Z", end: "2026-01-01T23:00:00Z"}'
PASSED = RunTally(gates_passed=3, steps_done=1)
CASES = [
    Case(
        SuccessCriterion.DATA,
        Result.NOT_MEASURED,
        "no step changes data (deploy); rows are not counted before and after",
    ),
    Case(
        SuccessCriterion.DATA,
        Result.NOT_MEASURED,
        "step schema may change data; rows are not counted before and after",
        (DEPLOY, JOB),
    ),
    Case(SuccessCriterion.DATA, Result.NOT_MEASURED, "no step changes data (deploy, job)", (DEPLOY, TEST)),
    Case(SuccessCriterion.WINDOW, Result.NOT_MEASURED, "the plan has no window: add window or timeout"),
    Case(
        SuccessCriterion.WINDOW,
        Result.MET,
        "started 2026-01-01 22:21 UTC, the run ended 2026-01-01 22:30 UTC, inside",
        more=NIGHT,
    ),
    Case(
        SuccessCriterion.WINDOW,
        Result.NOT_MET,
        "outside the plan's window, in which",
        more=NIGHT.replace("23:00", "22:25"),
    ),
    Case(
        SuccessCriterion.WINDOW, Result.MET, "inside the plan's window", more='windows: [{from: "22:00", to: "02:00"}]'
    ),
    Case(
        SuccessCriterion.WINDOW,
        Result.NOT_MET,
        "outside the plan's window, in which",
        more='windows: [{from: "20:00", to: "22:29"}]',
    ),
    Case(
        SuccessCriterion.WINDOW, Result.MET, "it was Running for 9m of the 1h that timeout allows", more="timeout: 1h"
    ),
    Case(SuccessCriterion.WINDOW, Result.NOT_MET, "not completed: aborted by bob", more=NIGHT, end=back(ABORTED)),
    Case(
        SuccessCriterion.WINDOW,
        Result.NOT_MET,
        "rolled back on request after it had completed",
        more=NIGHT,
        end=back(ON_REQUEST),
    ),
    Case(SuccessCriterion.VALIDATIONS, Result.NOT_MEASURED, "no step has a gate; add gates"),
    Case(SuccessCriterion.VALIDATIONS, Result.MET, "3 gates passed", (GATED,), end={"tally": PASSED}),
    Case(SuccessCriterion.VALIDATIONS, Result.MET, "step smoke passed", (TEST,)),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MEASURED,
        "there was nothing to do",
        (GATED,),
        end={"judged": False, "tally": RunTally(steps_done=1)},
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MEASURED,
        "not evaluated, because there was nothing to do: step deploy; 3 gates passed",
        (GATED,),
        end={"judged": False, "tally": PASSED},
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MET,
        "step deploy 1/1: gate pods failed: 0, must be",
        (GATED,),
        end=back(FAILED, PASSED),
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MET,
        "step smoke 1/1: the Job failed",
        (TEST,),
        end=back(Failure(step="smoke", stage="1/1", reason="JobFailed", message="the Job failed")),
    ),
    *(
        Case(
            SuccessCriterion.VALIDATIONS,
            Result.NOT_MEASURED,
            "not evaluated to the end: stopped",
            (TEST,),
            end=back(Failure(step="smoke", stage="1/1", reason=reason, message="stopped")),
        )
        for reason in ("Aborted", "Deleted", "TimedOut", "GuardFailed")
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MEASURED,
        "not evaluated to the end: aborted by bob; 3 gates passed over all stages; the plan has 1; 1 gate failed earlier",
        (GATED,),
        end=back(ABORTED, replace(PASSED, gates_failed=1)),
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MEASURED,
        "not evaluated to the end: aborted by bob; 3 gates",
        (GATED,),
        end=back(ABORTED, PASSED),
    ),
    Case(SuccessCriterion.VALIDATIONS, Result.MET, "3 gates passed", (GATED,), end=back(ON_REQUEST, PASSED)),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.NOT_MET,
        "1 gate skipped on request of alice; 3 gates",
        (GATED,),
        end={
            "tally": replace(PASSED, gates_skipped=1),
            "requests": (RequestRecord(verb="skip", token="t" * 8, answer=Answer.ACCEPTED, at=NOW, run=4, by="alice"),),
        },
    ),
    *(
        Case(
            SuccessCriterion.VALIDATIONS,
            Result.NOT_MET,
            "1 gate skipped on request; 3 gates",
            (GATED,),
            end={
                "tally": replace(PASSED, gates_skipped=1),
                "requests": (RequestRecord(verb="skip", token="t" * 8, answer=answer, at=NOW, run=4, by="mallory"),),
            },
        )
        for answer in (Answer.REJECTED, Answer.IGNORED)
    ),
    Case(
        SuccessCriterion.VALIDATIONS,
        Result.MET,
        "; 2 gates failed before a step was retried",
        (GATED,),
        end={"tally": replace(PASSED, gates_failed=2)},
    ),
    Case(SuccessCriterion.PERFORMANCE, Result.NOT_MEASURED, "add prometheus.baseline and pass.ratio to one", (GATED,)),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.MET,
        "step soak gate slow: 0.9 (9 against a baseline of 10)",
        (RATIO,),
        end={"tally": RunTally(comparisons=said(1))},
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.NOT_MEASURED,
        "not evaluated: step soak gate slow",
        (RATIO,),
        end={"judged": False, "tally": RunTally()},
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.NOT_MEASURED,
        "not evaluated: step soak gate slow",
        (RATIO,),
        end={
            "judged": False,
            "tally": RunTally(
                comparisons=tuple(replace(one, step="other") for one in said(REMEMBERED)), guarded_stages=1
            ),
        },
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.NOT_MEASURED,
        "not evaluated: guard slow",
        (DEPLOY,),
        more="guards: [{name: slow, prometheus: {query: a, baseline: b}, pass: {ratio: {max: '1'}}}]",
        end={"judged": False, "tally": RunTally()},
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.NOT_MET,
        "step soak gate slow: 0.9",
        (RATIO,),
        end={"tally": RunTally(comparisons=said(1, passed=False))},
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.NOT_MEASURED,
        "not measured to the end: aborted by bob; step soak gate slow",
        (RATIO,),
        end=back(ABORTED, RunTally(comparisons=said(1))),
    ),
    Case(
        SuccessCriterion.PERFORMANCE,
        Result.MET,
        "1 more passed (their numbers are not kept)",
        (RATIO,),
        end={"tally": RunTally(comparisons=tuple(replace(one, step="other") for one in said(REMEMBERED)))},
    ),
    Case(SuccessCriterion.ROLLBACK, Result.NOT_MEASURED, "no run of these steps was rolled back; to rehearse it"),
    Case(
        SuccessCriterion.ROLLBACK,
        Result.MET,
        "run 4 completed 1 of 1 steps and was fully rolled back",
        end=back(ON_REQUEST, RunTally(steps_done=1)),
    ),
    Case(SuccessCriterion.ROLLBACK, Result.NOT_MEASURED, "run 4 was rolled back after 0 of 1 steps", end=back(ABORTED)),
    Case(SuccessCriterion.DOWNTIME, Result.NOT_MEASURED, "no guard was evaluated: the plan has none; add one"),
    Case(
        SuccessCriterion.DOWNTIME,
        Result.MET,
        "guard errors passed at the end of 2 stages",
        more=GUARD,
        end={"tally": RunTally(guarded_stages=2)},
    ),
    Case(
        SuccessCriterion.DOWNTIME,
        Result.NOT_MEASURED,
        "no step had anything to do",
        more=GUARD,
        end={"tally": RunTally()},
    ),
    Case(
        SuccessCriterion.DOWNTIME,
        Result.NOT_MEASURED,
        "the plan was paused twice",
        more=GUARD,
        end={"tally": RunTally(guarded_stages=2, pauses=2)},
    ),
    Case(
        SuccessCriterion.DOWNTIME,
        Result.NOT_MET,
        "guard errors failed: 9",
        more=GUARD,
        end={"tally": RunTally(failed_guard="guard errors failed: 9")},
    ),
    Case(
        SuccessCriterion.DOWNTIME,
        Result.NOT_MEASURED,
        "guards are not evaluated during a rollback",
        more=GUARD,
        end=back(ABORTED, RunTally(guarded_stages=2)),
    ),
    Case(SuccessCriterion.DEPENDENCIES, Result.NOT_MEASURED, "what depends on Deployment shop cannot be checked"),
    Case(SuccessCriterion.DEPENDENCIES, Result.NOT_MEASURED, "no step writes an object", (TEST,)),
]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.aim}: {case.message}" for case in CASES])
def test_the_table(case: Case) -> None:
    plan = a_plan(*case.steps, more=case.more)
    status = with_report(plan, an_end(plan, **case.end))
    assert [line.criterion for line in status.report] == list(SuccessCriterion)
    line = next(line for line in status.report if line.criterion is case.aim)
    assert line.result is case.result, line
    assert case.message in line.evidence
    assert with_report(plan, status) is status, "told once, it stays"


def test_every_criterion_has_every_result_it_can_have() -> None:
    found = {(case.aim, case.result) for case in CASES}
    never = {
        (aim, result)
        for aim in (SuccessCriterion.DATA, SuccessCriterion.DEPENDENCIES)
        for result in (Result.MET, Result.NOT_MET)
    }
    assert found == {(aim, result) for aim in SuccessCriterion for result in Result} - never - {
        (SuccessCriterion.ROLLBACK, Result.NOT_MET)
    }


@pytest.mark.parametrize(
    ("way", "phase", "done", "result"),
    [
        ("", Phase.ROLLED_BACK, 1, Result.MET),
        ("other", Phase.ROLLED_BACK, 1, Result.NOT_MEASURED),
        ("", Phase.SUCCEEDED, 1, Result.NOT_MEASURED),
        ("", Phase.ABANDONED, 1, Result.NOT_MEASURED),
        ("", Phase.ROLLED_BACK, 0, Result.NOT_MEASURED),
    ],
)
def test_which_earlier_runs_are_a_rehearsal(way: str, phase: Phase, done: int, result: Result) -> None:
    plan = a_plan(DEPLOY)
    past = PastRun(
        number=2,
        phase=phase,
        reason="",
        message="",
        started_at=NOW,
        steps_digest=way or plan.steps_digest,
        steps_done=done,
    )
    status = with_report(plan, an_end(plan, history=(past,)))
    line = next(line for line in status.report if line.criterion is SuccessCriterion.ROLLBACK)
    assert line.result is result


def test_the_way_is_what_the_steps_do() -> None:
    plan = a_plan(GATED)
    same = (
        a_plan(DEPLOY),
        a_plan(GATED, more="timeout: 1h"),
        a_plan(GATED.replace("{name: deploy,", "{name: deploy, retries: 1,")),
    )
    other = (
        a_plan(GATED.replace("2", "3", 1)),
        a_plan(DEPLOY, TEST),
        a_plan(DEPLOY.replace("name: deploy", "name: roll")),
    )
    assert {one.steps_digest for one in same} == {plan.steps_digest}
    assert plan.steps_digest not in {one.steps_digest for one in other}
    assert len({one.steps_digest for one in other}) == 3


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.PAUSED, Phase.STUCK, Phase.ROLLING_BACK, Phase.WAITING])
def test_no_end_no_report(phase: Phase) -> None:
    plan = a_plan(DEPLOY)
    assert with_report(plan, an_end(plan, phase=phase)).report == ()


def test_what_git_says_stands_beside_the_dependencies() -> None:
    plan = a_plan(DEPLOY)
    risk = Risk("GitOpsDriftRisk", "OwnedByArgoCD", "Deployment shop is written by Application shop\nand more")
    status = with_report(plan, with_risks(an_end(plan), [risk], NOW))
    assert status.report[-1].evidence.endswith("; GitOpsDriftRisk: Deployment shop is written by Application shop")
