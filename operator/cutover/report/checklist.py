"""The checklist of a migration, computed rather than ticked: each item with the step or figure that proves it, or what is missing.

Pure. From the plan alone it shows what is planned; with the status, also what was done. Called by `explain` and `report`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from cutover.engine.criteria import steps_named
from cutover.plan.spec import Plan
from cutover.plan.windows import Day
from cutover.saga.draft import moment
from cutover.status.report import Result, SuccessCriterion
from cutover.status.status import ENDED, Phase, Status, StepState
from cutover.steps.kind import Purpose


class State(StrEnum):
    """State of an item."""

    PROVEN = "Proven"
    PLANNED = "Planned"
    MISSING = "Missing"


@dataclass(frozen=True, slots=True)
class Line:
    """One item of the checklist.

    Attributes:
        part: before, during or after the migration.
        proof: the step or figure that proves it; of a missing item, why it is missing and what to add.
    """

    part: str
    line: str
    state: State
    proof: str


_Finding = tuple[State, str]


class _Evidence:
    """Finds what proves an item in a plan and its status."""

    def __init__(self, plan: Plan, status: Status) -> None:
        self.plan, self.status = plan, status
        self.states = {step.name: step for step in status.steps}
        self.gated = {step.name for step in plan.steps if step.gates}
        self.started = any(step.attempt for step in status.steps)
        changing = [
            at for at, step in enumerate(plan.steps) if step.writes() and Purpose.VERIFIES not in step.kind.purposes()
        ]
        scripts = [at for at, step in enumerate(plan.steps) if Purpose.CHANGES_DATA in step.kind.purposes()]
        self.last_change = max(changing, default=-1)
        self.first_script = min(scripts, default=len(plan.steps))

    def steps(self, names: Sequence[str], missing: str) -> _Finding:
        """Proven when all of these steps are Done and their gates were evaluated."""
        if not names:
            return State.MISSING, missing
        named = steps_named(names)
        steps = [self.states[name] for name in names if name in self.states]
        undone = [f"{step.name} is {step.state}" for step in steps if step.state is not StepState.DONE]
        unjudged = [
            f"{step.name} is Done, but its gates were not evaluated: they were skipped, or there was nothing to do"
            for step in steps
            if step.state is StepState.DONE and step.name in self.gated and not step.gates_passed
        ]
        unproven = [*unjudged, *undone]
        if steps and not unproven:
            return State.PROVEN, named
        if not steps or not self.started:
            return State.PLANNED, named
        state = State.MISSING if unjudged or self.status.phase in ENDED else State.PLANNED
        return state, f"step {unproven[0]}" if len(names) == 1 else f"{named}: {', '.join(unproven)}"

    def of_purpose(self, purpose: Purpose, missing: str) -> _Finding:
        """Proven by the steps whose kind has this purpose."""
        return self.steps([step.name for step in self.plan.steps if purpose in step.kind.purposes()], missing)

    def named(self, word: str, missing: str) -> _Finding:
        """Proven by steps that run a Job and have this word in their name or description."""
        names = [
            step.name
            for step in self.plan.steps
            if step.kind.makes() and word in f"{step.name} {step.description}".lower()
        ]
        return self.steps(names, missing)

    def checking_from(self, since: int) -> list[str]:
        """Steps from this one on that run a Job which changes nothing, as the step itself or as a gate."""
        return [
            step.name
            for step in self.plan.steps[since:]
            if (step.kind.makes() and Purpose.VERIFIES in step.kind.purposes())
            or any(gate.source.makes() for gate in step.gates)
        ]

    def measured(self, words: str, missing: str) -> _Finding:
        """Proven by guards and gates that query a provider for such a metric."""
        pattern = re.compile(words, re.IGNORECASE)
        guards = [guard.name for guard in self.plan.guards if _queries(guard, pattern)]
        steps = [step.name for step in self.plan.steps if any(_queries(gate, pattern) for gate in step.gates)]
        if not guards:
            return self.steps(steps, missing)
        names, phase = f"guard {', '.join(guards)}", self.status.phase
        if phase in ENDED and phase is not Phase.SUCCEEDED:
            return State.MISSING, f"{names} was not evaluated to the end: the plan is {phase}"
        if phase is Phase.SUCCEEDED and not (self.status.tally and self.status.tally.guarded_stages):
            return State.MISSING, f"{names} was not evaluated: no step had anything to do"
        proof = f"{names}, during the whole run{f'; {steps_named(steps)}' if steps else ''}"
        return State.PROVEN if phase is Phase.SUCCEEDED else State.PLANNED, proof


def _queries(gate: Any, pattern: re.Pattern[str]) -> bool:
    return bool(gate.source.provider()) and bool(pattern.search(" ".join((gate.name, *gate.source.queries()))))


def checklist(plan: Plan, status: Status | None = None) -> tuple[Line, ...]:
    """All items in order; without a status, what the plan alone shows."""
    evidence = _Evidence(plan, status or Status())
    return tuple(Line(part, line, *judge(evidence)) for part, lines in _LINES.items() for line, judge in lines.items())


# --- before the migration -------------------------------------------------------------------------------------------------


def _backup(evidence: _Evidence) -> _Finding:
    return evidence.named(
        "backup",
        "no step backs up data; add a job step named backup (snapshots cover only the changed fields of objects)",
    )


def _staging(evidence: _Evidence) -> _Finding:
    del evidence
    return State.MISSING, "cannot be verified; apply the same plan in a staging namespace first"


def _rollback(evidence: _Evidence) -> _Finding:
    if walls := [step.name for step in evidence.plan.steps if step.irreversible]:
        which = "which is irreversible" if len(walls) == 1 else "which are irreversible"
        return State.MISSING, f"a rollback stops at {steps_named(walls)}, {which}"
    back = [step.name for step in reversed(evidence.plan.steps) if step.kind.undoes]
    rehearsed = any(
        line.criterion is SuccessCriterion.ROLLBACK and line.result is Result.MET for line in evidence.status.report
    )
    proof = f"the rollback is part of the plan: {', '.join(f'undo {name}' for name in back) or 'nothing to undo'}"
    return State.PROVEN, f"{proof}; it was rehearsed" if rehearsed else proof


def _scheduled(evidence: _Evidence) -> _Finding:
    plan = evidence.plan
    spans = [f"{moment(plan.window.start)} to {moment(plan.window.end)}"] if plan.window else []
    for one in plan.windows:
        days = "each day" if set(one.days) == set(Day) else ", ".join(one.days)
        spans.append(f"{days} {one.from_:%H:%M} to {one.to:%H:%M} {one.time_zone}")
    return (State.PROVEN, "; ".join(spans)) if spans else (State.MISSING, "add window or windows")


def _notified(evidence: _Evidence) -> _Finding:
    targets = [f"{one.provider} on {', '.join(one.phases)}" for one in evidence.plan.notifications]
    state, proof = evidence.of_purpose(Purpose.NOTIFIES, "add notifications or a notify step")
    if not targets:
        return state, proof
    also = f"; {proof}" if state is not State.MISSING else ""
    return State.PROVEN, f"the plan notifies {'; '.join(targets)}{also}"


def _documented(evidence: _Evidence) -> _Finding:
    bare = [step.name for step in evidence.plan.steps if not step.description]
    if bare:
        return State.MISSING, f"steps without a description: {', '.join(bare)} (external documents cannot be checked)"
    return State.PROVEN, "each step has a description"


def _watched(evidence: _Evidence) -> _Finding:
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


def _closed(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(
        Purpose.STARTS_MAINTENANCE, "no flags step sets a maintenance key; not needed unless users must be kept out"
    )


def _preflight(evidence: _Evidence) -> _Finding:
    run, status = evidence.status.run, evidence.status
    if evidence.started and run is not None:
        return State.PROVEN, f"all prerequisites were met when run {run.number} started, {moment(run.started_at)}"
    if status.phase is Phase.REFUSED:
        return State.MISSING, status.message
    return State.PLANNED, "objects, permissions, routes and capacity are checked before the first step"


def _scripts(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(Purpose.CHANGES_DATA, "no step runs a Job that changes anything")


def _integrity(evidence: _Evidence) -> _Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step changes or checks data"
    names = evidence.checking_from(evidence.first_script)[:1]
    return evidence.steps(
        names, "no Job checks the data afterwards: add a gate with job, or a job step with changesNothing: true"
    )


def _validated(evidence: _Evidence) -> _Finding:
    steps = evidence.plan.steps[max(0, evidence.last_change) :]
    names = [step.name for step in steps if step.gates or Purpose.VERIFIES in step.kind.purposes()]
    return evidence.steps(names, "nothing is validated at or after the last change: add a gate or a check step")


def _configured(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(Purpose.CONFIGURES, "no step changes a configuration or a version")


def _cleared(evidence: _Evidence) -> _Finding:
    return evidence.named("cache", "no Job has cache in its name or description; not needed if there is no cache")


# --- after the migration --------------------------------------------------------------------------------------------------


def _smoked(evidence: _Evidence) -> _Finding:
    return evidence.steps(
        evidence.checking_from(max(0, evidence.last_change)),
        "no Job tests the result: add a gate with job to the last step",
    )


def _errors(evidence: _Evidence) -> _Finding:
    return evidence.measured(
        r"error|fail|5\.\.|5xx",
        "no guard or gate measures errors; add a guard, which is evaluated during the whole run",
    )


def _performance(evidence: _Evidence) -> _Finding:
    line = next((line for line in evidence.status.report if line.criterion is SuccessCriterion.PERFORMANCE), None)
    if line is not None and line.result is not Result.NOT_MEASURED:
        return State.PROVEN if line.result is Result.MET else State.MISSING, line.evidence
    words = r"latency|duration|quantile|slow|p9\d|throughput"
    return evidence.measured(words, "no guard or gate measures latency or throughput")


def _consistent(evidence: _Evidence) -> _Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step changes or compares data"
    names = evidence.checking_from(max(evidence.first_script, evidence.last_change))[-1:]
    return evidence.steps(names, "no Job checks the data after the last change")


def _opened(evidence: _Evidence) -> _Finding:
    closing = [step.name for step in evidence.plan.steps if Purpose.STARTS_MAINTENANCE in step.kind.purposes()]
    missing = f"{steps_named(closing)} turns it on and no step turns it off" if closing else "no step turns it on"
    return evidence.of_purpose(Purpose.ENDS_MAINTENANCE, missing)


def _lessons(evidence: _Evidence) -> _Finding:
    del evidence
    return State.MISSING, "manual; kubectl cutover report --html saves the evidence"


def _cleanup(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(
        Purpose.RETIRES_OLD_VERSION, "no step scales the old version down: add a deploy with replicas: 0 after a wait"
    )


_LINES: Final[dict[str, dict[str, Callable[[_Evidence], _Finding]]]] = {
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
