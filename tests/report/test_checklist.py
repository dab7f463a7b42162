"""Each line of the checklist, in each state it can be in, from plans and statuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import yaml

from cutover.plan.parsing import parse
from cutover.plan.spec import Plan
from cutover.report.checklist import checklist, lines
from cutover.report.evidence import State
from cutover.status.report import Criterion, Result, RunTally, SuccessCriterion
from cutover.status.status import Phase, Run, Status, StepState, StepStatus

NOW = datetime(2026, 1, 1, 22, 30, tzinfo=UTC)
_POD = """'{spec: {template: {spec: {containers: [{name: a, image: "a:1"}]}}}}'"""


def job(name: str, more: str) -> str:
    return f"  - {{name: {name}, description: x, job: {{template: {_POD}, {more}}}}}\n"


UNDONE = f"undo: {_POD}"
FULL = f"""
serviceAccountName: migrator
windows: [{{from: "22:00", to: "04:00", timeZone: Europe/Berlin}}, {{days: [Sat], from: "10:00", to: "11:00"}}]
notifications: [{{provider: chat, phases: [Succeeded]}}]
guards: [{{name: errors, prometheus: {{query: rate_of_5xx}}, pass: {{max: "1"}}}}]
steps:
  - {{name: announce, description: x, notify: {{provider: chat, message: it begins}}}}
{job("backup", UNDONE)}  - {{name: close, description: x, flags: {{configMap: flags, set: {{MAINTENANCE_MODE: "true"}}}}}}
{job("schema", UNDONE)}{job("verify", "changesNothing: true")}  - name: deploy
    description: x
    deploy: {{workload: {{name: shop}}, images: [{{container: app, image: "shop:2"}}]}}
    gates: [{{name: latency, prometheus: {{query: p99}}, pass: {{max: "1"}}}}]
{job("warm-cache", UNDONE)}  - {{name: open, description: x, flags: {{configMap: flags, set: {{MAINTENANCE_MODE: "off"}}}}}}
  - {{name: retire, description: x, deploy: {{workload: {{name: old}}, replicas: 0}}, gates: [{{name: p, readiness: {{percent: 100}}}}]}}
{job("smoke", "changesNothing: true")}"""
BARE = "serviceAccountName: migrator\nsteps: [{name: shift, irreversible: true, wait: {for: 1m}}]"


def a_plan(text: str) -> Plan:
    return parse(yaml.safe_load(text))


def a_status(plan: Plan, phase: Phase, **states: StepState) -> Status:
    steps = tuple(
        StepStatus(
            name=step.name,
            kind=step.kind.key,
            state=states.get(step.name, StepState.DONE),
            attempt=1,
            gates_passed=True,
        )
        for step in plan.steps
    )
    run = Run(number=3, generation=1, spec_hash="h", started_at=NOW)
    return Status(phase=phase, run=run, steps=steps, tally=RunTally(guarded_stages=1))


def found(text: str, status: Status | None = None) -> dict[str, tuple[State, str]]:
    return {line.line: (line.state, line.proof) for line in checklist(a_plan(text), status)}


PLANNED = {
    "Backup all affected data": "step backup",
    "Enable maintenance mode": "step close",
    "Execute migration scripts": "steps backup, schema, warm-cache",
    "Verify data integrity": "step verify",
    "Update application configuration": "steps close, deploy, open",
    "Clear caches": "step warm-cache",
    "Run post-migration validation": "steps retire, smoke",
    "Smoke test critical paths": "step smoke",
    "Verify data consistency": "step smoke",
    "Remove maintenance mode": "step open",
    "Schedule cleanup tasks": "step retire",
    "Monitor error rates": "guard errors, during the whole run",
    "Check performance metrics": "step deploy",
}
ALREADY = {
    "Schedule maintenance window": "each day 22:00 to 04:00 Europe/Berlin; Sat 10:00 to 11:00 UTC",
    "Notify stakeholders": "the plan notifies chat on Succeeded; step announce",
    "Update documentation": "each step has a description",
    "Prepare monitoring dashboards": "metrics are queried by guard errors, gate latency of step deploy",
}
NEVER = {"Test migration in staging", "Document lessons learned"}


def test_it_has_the_lines_of_the_checklist() -> None:
    parts = [line.part for line in checklist(a_plan(FULL))]
    assert [parts.count(part) for part in ("Before", "During", "After")] == [7, 7, 7]
    names = PLANNED.keys() | ALREADY.keys() | NEVER | {"Prepare rollback scripts", "Run pre-migration validation"}
    assert {line.line for line in checklist(a_plan(FULL))} == names


def test_before_it_runs_a_plan_says_what_it_plans() -> None:
    items = found(FULL)
    for line, proof in PLANNED.items():
        assert items[line] == (State.PLANNED, proof)
    for line, proof in ALREADY.items():
        assert items[line] == (State.PROVEN, proof)
    for line in NEVER:
        assert items[line][0] is State.MISSING
    assert items["Run pre-migration validation"][0] is State.PLANNED
    assert items["Prepare rollback scripts"][0] is State.PROVEN


def test_steps_that_are_done_prove_it() -> None:
    items = found(FULL, a_status(a_plan(FULL), Phase.SUCCEEDED))
    for line, proof in (PLANNED | ALREADY).items():
        assert items[line] == (State.PROVEN, proof)
    says = "all prerequisites were met when run 3 started, 2026-01-01 22:30 UTC"
    assert items["Run pre-migration validation"] == (State.PROVEN, says)
    for line in NEVER:
        assert items[line][0] is State.MISSING


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.SUCCEEDED])
def test_a_step_whose_gates_were_not_judged_proves_nothing(phase: Phase) -> None:
    status = a_status(a_plan(FULL), phase)
    items = found(FULL, replace(status, steps=tuple(replace(step, gates_passed=False) for step in status.steps)))
    says = "its gates were not evaluated: they were skipped, or there was nothing to do"
    for line in ("Check performance metrics", "Update application configuration", "Schedule cleanup tasks"):
        assert items[line][0] is State.MISSING, line
    assert items["Schedule cleanup tasks"][1] == f"step retire is Done, but {says}"
    assert items["Run post-migration validation"] == (State.MISSING, f"steps retire, smoke: retire is Done, but {says}")
    assert items["Backup all affected data"] == (State.PROVEN, "step backup"), "it has no gates"


def test_a_guard_that_was_never_evaluated_proves_nothing() -> None:
    items = found(FULL, replace(a_status(a_plan(FULL), Phase.SUCCEEDED), tally=None))
    says = "guard errors was not evaluated: no step had anything to do"
    assert items["Monitor error rates"] == (State.MISSING, says)


def test_what_was_taken_back_proves_nothing() -> None:
    plan = a_plan(FULL)
    items = found(FULL, a_status(plan, Phase.ROLLED_BACK, **{step.name: StepState.UNDONE for step in plan.steps}))
    for line in PLANNED:
        assert items[line][0] is State.MISSING, line
    assert items["Backup all affected data"] == (State.MISSING, "step backup is Undone")
    assert items["Run post-migration validation"][1] == "steps retire, smoke: retire is Undone, smoke is Undone"
    says = "guard errors was not evaluated to the end: the plan is RolledBack"
    assert items["Monitor error rates"] == (State.MISSING, says)


def test_what_is_still_to_come_is_planned() -> None:
    status = a_status(a_plan(FULL), Phase.RUNNING, smoke=StepState.PENDING, retire=StepState.DOING)
    items = found(FULL, status)
    assert items["Smoke test critical paths"] == (State.PLANNED, "step smoke is Pending")
    assert items["Schedule cleanup tasks"] == (State.PLANNED, "step retire is Doing")
    assert items["Enable maintenance mode"][0] is State.PROVEN
    assert items["Monitor error rates"] == (State.PLANNED, "guard errors, during the whole run")


def test_a_bare_plan_misses_all_of_it_and_says_what_would_do() -> None:
    items = found(BARE, a_status(a_plan(BARE), Phase.SUCCEEDED))
    missing = {line for line, (state, _) in items.items() if state is State.MISSING}
    assert missing == items.keys() - {"Run pre-migration validation"}
    assert items["Prepare rollback scripts"][1] == "a rollback stops at step shift, which is irreversible"
    assert items["Remove maintenance mode"][1] == "no step turns it on"
    assert all(proof for _, proof in items.values())


def test_maintenance_that_nothing_ends_is_missing() -> None:
    text = FULL.replace('MAINTENANCE_MODE: "off"', 'OTHER: "off"')
    assert found(text)["Remove maintenance mode"] == (State.MISSING, "step close turns it on and no step turns it off")


@pytest.mark.parametrize(("result", "state"), [(Result.MET, State.PROVEN), (Result.NOT_MET, State.MISSING)])
def test_performance_is_what_the_report_says(result: Result, state: State) -> None:
    line = Criterion(criterion=SuccessCriterion.PERFORMANCE, result=result, evidence="0.9 against 1")
    status = replace(a_status(a_plan(FULL), Phase.SUCCEEDED), report=(line,))
    assert found(FULL, status)["Check performance metrics"] == (state, "0.9 against 1")


def test_a_refused_plan_says_what_was_missing() -> None:
    status = Status(phase=Phase.REFUSED, message="there is no Deployment shop")
    assert found(BARE, status)["Run pre-migration validation"] == (State.MISSING, "there is no Deployment shop")


def test_as_lines() -> None:
    items = list(lines(checklist(a_plan(FULL))))
    assert items[0] == "  before the migration"
    assert items[1] == "    planned  Backup all affected data: step backup"
    assert len(items) == 24
