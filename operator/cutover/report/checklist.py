"""The checklist of a migration, computed rather than ticked: each item with the step or figure that proves it, or what is missing.

Pure. From the plan alone it shows what is planned; with the status, also what was done. Called by `explain` and `report`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from cutover.engine.criteria import steps_named
from cutover.plan.spec import Plan
from cutover.plan.windows import Day
from cutover.report.evidence import Evidence, Finding, Line, State
from cutover.saga.draft import moment
from cutover.status.report import Result, SuccessCriterion
from cutover.status.status import Phase, Status
from cutover.steps.parts import Purpose


def checklist(plan: Plan, status: Status | None = None) -> tuple[Line, ...]:
    """All items in order; without a status, what the plan alone shows."""
    evidence = Evidence(plan, status or Status())
    return tuple(Line(part, line, *judge(evidence)) for part, lines in _LINES.items() for line, judge in lines.items())


# --- before the migration -------------------------------------------------------------------------------------------------


def _backup(evidence: Evidence) -> Finding:
    return evidence.named(
        "backup",
        "no step backs up data; add a job step named backup (snapshots cover only the changed fields of objects)",
    )


def _staging(evidence: Evidence) -> Finding:
    del evidence
    return State.MISSING, "cannot be verified; apply the same plan in a staging namespace first"


def _rollback(evidence: Evidence) -> Finding:
    if walls := [step.name for step in evidence.plan.steps if step.irreversible]:
        which = "which is irreversible" if len(walls) == 1 else "which are irreversible"
        return State.MISSING, f"a rollback stops at {steps_named(walls)}, {which}"
    back = [step.name for step in reversed(evidence.plan.steps) if step.undoes()]
    rehearsed = any(
        line.criterion is SuccessCriterion.ROLLBACK and line.result is Result.MET for line in evidence.status.report
    )
    proof = f"the rollback is part of the plan: {', '.join(f'undo {name}' for name in back) or 'nothing to undo'}"
    return State.PROVEN, f"{proof}; it was rehearsed" if rehearsed else proof


def _scheduled(evidence: Evidence) -> Finding:
    plan = evidence.plan
    spans = [f"{moment(plan.window.start)} to {moment(plan.window.end)}"] if plan.window else []
    for one in plan.windows:
        days = "each day" if set(one.days) == set(Day) else ", ".join(one.days)
        spans.append(f"{days} {one.from_:%H:%M} to {one.to:%H:%M} {one.time_zone}")
    return (State.PROVEN, "; ".join(spans)) if spans else (State.MISSING, "add window or windows")


def _notified(evidence: Evidence) -> Finding:
    targets = [f"{one.provider} on {', '.join(one.phases)}" for one in evidence.plan.notifications]
    state, proof = evidence.of_purpose(Purpose.NOTIFIES, "add notifications or a notify step")
    if not targets:
        return state, proof
    also = f"; {proof}" if state is not State.MISSING else ""
    return State.PROVEN, f"the plan notifies {'; '.join(targets)}{also}"


def _documented(evidence: Evidence) -> Finding:
    bare = [step.name for step in evidence.plan.steps if not step.description]
    if bare:
        return State.MISSING, f"steps without a description: {', '.join(bare)} (external documents cannot be checked)"
    return State.PROVEN, "each step has a description"


def _watched(evidence: Evidence) -> Finding:
    readers = [f"guard {guard.name}" for guard in evidence.plan.guards if guard.source.provider()]
    readers += [
        f"gate {gate.name} of step {step.name}"
        for step in evidence.plan.steps
        for gate in step.gates
        if gate.source.provider()
    ]
    if not readers:
        return State.MISSING, "no gate or guard queries a metrics provider"
    return State.PROVEN, f"metrics are queried by {', '.join(dict.fromkeys(readers))}"


# --- during the migration -------------------------------------------------------------------------------------------------


def _closed(evidence: Evidence) -> Finding:
    return evidence.of_purpose(
        Purpose.STARTS_MAINTENANCE, "no flags step sets a maintenance key; not needed unless users must be kept out"
    )


def _preflight(evidence: Evidence) -> Finding:
    run, status = evidence.status.run, evidence.status
    if evidence.started and run is not None:
        return State.PROVEN, f"all prerequisites were met when run {run.number} started, {moment(run.started_at)}"
    if status.phase is Phase.REFUSED:
        return State.MISSING, status.message
    return State.PLANNED, "objects, permissions, routes and capacity are checked before the first step"


def _scripts(evidence: Evidence) -> Finding:
    return evidence.of_purpose(Purpose.CHANGES_DATA, "no step runs a Job that changes anything")


def _integrity(evidence: Evidence) -> Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step changes or checks data"
    names = evidence.checking_from(evidence.first_script)[:1]
    return evidence.steps(
        names, "no Job checks the data afterwards: add a gate with job, or a job step with changesNothing: true"
    )


def _validated(evidence: Evidence) -> Finding:
    steps = evidence.plan.steps[max(0, evidence.last_change) :]
    names = [step.name for step in steps if step.gates or step.serves(Purpose.VERIFIES)]
    return evidence.steps(names, "nothing is validated at or after the last change: add a gate or a check step")


def _configured(evidence: Evidence) -> Finding:
    return evidence.of_purpose(Purpose.CONFIGURES, "no step changes a configuration or a version")


def _cleared(evidence: Evidence) -> Finding:
    return evidence.named("cache", "no Job has cache in its name or description; not needed if there is no cache")


# --- after the migration --------------------------------------------------------------------------------------------------


def _smoked(evidence: Evidence) -> Finding:
    return evidence.steps(
        evidence.checking_from(max(0, evidence.last_change)),
        "no Job tests the result: add a gate with job to the last step",
    )


def _errors(evidence: Evidence) -> Finding:
    return evidence.measured(
        r"error|fail|5\.\.|5xx",
        "no guard or gate measures errors; add a guard, which is evaluated during the whole run",
    )


def _performance(evidence: Evidence) -> Finding:
    line = next((line for line in evidence.status.report if line.criterion is SuccessCriterion.PERFORMANCE), None)
    if line is not None and line.result is not Result.NOT_MEASURED:
        return State.PROVEN if line.result is Result.MET else State.MISSING, line.evidence
    words = r"latency|duration|quantile|slow|p9\d|throughput"
    return evidence.measured(words, "no guard or gate measures latency or throughput")


def _consistent(evidence: Evidence) -> Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step changes or compares data"
    names = evidence.checking_from(max(evidence.first_script, evidence.last_change))[-1:]
    return evidence.steps(names, "no Job checks the data after the last change")


def _opened(evidence: Evidence) -> Finding:
    closing = [step.name for step in evidence.plan.steps if step.serves(Purpose.STARTS_MAINTENANCE)]
    missing = f"{steps_named(closing)} turns it on and no step turns it off" if closing else "no step turns it on"
    return evidence.of_purpose(Purpose.ENDS_MAINTENANCE, missing)


def _lessons(evidence: Evidence) -> Finding:
    del evidence
    return State.MISSING, "manual; kubectl cutover report --html saves the evidence"


def _cleanup(evidence: Evidence) -> Finding:
    return evidence.of_purpose(
        Purpose.RETIRES_OLD_VERSION, "no step scales the old version down: add a deploy with replicas: 0 after a wait"
    )


_LINES: Final[dict[str, dict[str, Callable[[Evidence], Finding]]]] = {
    "Before": {
        "Backup all affected data": _backup,
        "Test migration in staging": _staging,
        "Prepare rollback scripts": _rollback,
        "Schedule maintenance window": _scheduled,
        "Notify stakeholders": _notified,
        "Update documentation": _documented,
        "Prepare monitoring dashboards": _watched,
    },
    "During": {
        "Enable maintenance mode": _closed,
        "Run pre-migration validation": _preflight,
        "Execute migration scripts": _scripts,
        "Verify data integrity": _integrity,
        "Run post-migration validation": _validated,
        "Update application configuration": _configured,
        "Clear caches": _cleared,
    },
    "After": {
        "Smoke test critical paths": _smoked,
        "Monitor error rates": _errors,
        "Check performance metrics": _performance,
        "Verify data consistency": _consistent,
        "Remove maintenance mode": _opened,
        "Document lessons learned": _lessons,
        "Schedule cleanup tasks": _cleanup,
    },
}


def lines(found: Sequence[Line]) -> Iterator[str]:
    """As plain text: one line per item, indented by two spaces per level."""
    part = ""
    for one in found:
        if one.part != part:
            part = one.part
            yield f"  {part.lower()} the migration"
        yield f"    {one.state.lower():7}  {one.line}: {one.proof}"
