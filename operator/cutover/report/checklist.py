"""The checklist of a migration, computed and not ticked: each line with the step or figure that proves it, or that it is missing.

Pure. From the plan alone it says what is planned; from the status too, what was done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from cutover.engine.criteria import steps_named
from cutover.plan.plan import Plan
from cutover.plan.windows import Day
from cutover.saga.draft import moment
from cutover.status.status import ENDED, Phase, Result, Status, StepState, SuccessCriterion
from cutover.steps.kind import Purpose


class State(StrEnum):
    """What there is to say of a line."""

    PROVEN = "Proven"
    PLANNED = "Planned"
    MISSING = "Missing"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the checklist.

    Attributes:
        part: before, during or after the migration.
        proof: the step or figure; of a line that is missing, why, and what would do.
    """

    part: str
    line: str
    state: State
    proof: str


_Finding = tuple[State, str]


class _Evidence:
    """A plan and how far it is."""

    def __init__(self, plan: Plan, status: Status) -> None:
        self.plan, self.status = plan, status
        self.states = {step.name: step for step in status.steps}
        self.gated = {step.name for step in plan.steps if step.gates}
        self.begun = any(step.attempt for step in status.steps)
        changing = [
            at for at, step in enumerate(plan.steps) if step.writes() and Purpose.VERIFIES not in step.kind.purposes()
        ]
        scripts = [at for at, step in enumerate(plan.steps) if Purpose.CHANGES_DATA in step.kind.purposes()]
        self.last_change = max(changing, default=-1)
        self.first_script = min(scripts, default=len(plan.steps))

    def steps(self, names: Sequence[str], missing: str) -> _Finding:
        """Proven when all of these steps are done, and those with gates were judged."""
        if not names:
            return State.MISSING, missing
        says = steps_named(names)
        steps = [self.states[name] for name in names if name in self.states]
        undone = [f"{step.name} is {step.state}" for step in steps if step.state is not StepState.DONE]
        unjudged = [
            f"{step.name} is Done, but its gates were not judged: they were skipped, or there was nothing to do"
            for step in steps
            if step.state is StepState.DONE and step.name in self.gated and not step.judged
        ]
        lacks = [*unjudged, *undone]
        if steps and not lacks:
            return State.PROVEN, says
        if not steps or not self.begun:
            return State.PLANNED, says
        state = State.MISSING if unjudged or self.status.phase in ENDED else State.PLANNED
        return state, f"step {lacks[0]}" if len(names) == 1 else f"{says}: {', '.join(lacks)}"

    def of_purpose(self, purpose: Purpose, missing: str) -> _Finding:
        """Proven by the steps that are there for it."""
        return self.steps([step.name for step in self.plan.steps if purpose in step.kind.purposes()], missing)

    def named(self, word: str, missing: str) -> _Finding:
        """Proven by steps that run something and say by their name or description that it is this."""
        named = [
            step.name
            for step in self.plan.steps
            if step.kind.makes() and word in f"{step.name} {step.description}".lower()
        ]
        return self.steps(named, missing)

    def checking_from(self, since: int) -> list[str]:
        """Steps from this one on that run a Job which only looks, themselves or as a gate."""
        return [
            step.name
            for step in self.plan.steps[since:]
            if (step.kind.makes() and Purpose.VERIFIES in step.kind.purposes())
            or any(gate.source.makes() for gate in step.gates)
        ]

    def measured(self, words: str, missing: str) -> _Finding:
        """Proven by guards and gates that ask a provider for such a number."""
        pattern = re.compile(words, re.IGNORECASE)
        guards = [guard.name for guard in self.plan.guards if _queries(guard, pattern)]
        steps = [step.name for step in self.plan.steps if any(_queries(gate, pattern) for gate in step.gates)]
        if not guards:
            return self.steps(steps, missing)
        names, phase = f"guard {', '.join(guards)}", self.status.phase
        if phase in ENDED and phase is not Phase.SUCCEEDED:
            return State.MISSING, f"{names} was not judged to the end: the plan is {phase}"
        if phase is Phase.SUCCEEDED and not (self.status.tally and self.status.tally.guarded):
            return State.MISSING, f"{names} was not judged: there was nothing to do in any step"
        says = f"{names}, all along{f'; {steps_named(steps)}' if steps else ''}"
        return State.PROVEN if phase is Phase.SUCCEEDED else State.PLANNED, says


def _queries(gate: Any, pattern: re.Pattern[str]) -> bool:
    return bool(gate.source.provider()) and bool(pattern.search(" ".join((gate.name, *gate.source.queries()))))


def checklist(plan: Plan, status: Status | None = None) -> tuple[Line, ...]:
    """All lines, in their order; without a status what the plan alone can say."""
    evidence = _Evidence(plan, status or Status())
    return tuple(Line(part, line, *judge(evidence)) for part, lines in _LINES.items() for line, judge in lines.items())


# --- before the migration -------------------------------------------------------------------------------------------------


def _backup(evidence: _Evidence) -> _Finding:
    return evidence.named(
        "backup", "no step copies data: let a Job named backup come first; of objects each changed field is kept"
    )


def _staging(evidence: _Evidence) -> _Finding:
    del evidence
    return State.MISSING, "what happened elsewhere is not known here: apply the same plan in another namespace first"


def _rollback(evidence: _Evidence) -> _Finding:
    if walls := [step.name for step in evidence.plan.steps if step.irreversible]:
        return State.MISSING, f"there is no way back before {steps_named(walls)} (irreversible)"
    back = [step.name for step in reversed(evidence.plan.steps) if step.kind.undoes]
    rehearsed = any(
        line.criterion is SuccessCriterion.ROLLBACK and line.result is Result.MET for line in evidence.status.report
    )
    says = f"the rollback is part of the plan: {', '.join(f'undo {name}' for name in back) or 'nothing to undo'}"
    return State.PROVEN, f"{says}; it was rehearsed" if rehearsed else says


def _scheduled(evidence: _Evidence) -> _Finding:
    plan = evidence.plan
    spans = [f"{moment(plan.window.start)} to {moment(plan.window.end)}"] if plan.window else []
    for one in plan.windows:
        days = "each day" if set(one.days) == set(Day) else ", ".join(one.days)
        spans.append(f"{days} {one.from_:%H:%M} to {one.to:%H:%M} {one.time_zone}")
    return (State.PROVEN, "; ".join(spans)) if spans else (State.MISSING, "add window or windows")


def _notified(evidence: _Evidence) -> _Finding:
    told = [f"{one.provider} when it is {', '.join(one.phases)}" for one in evidence.plan.notifications]
    state, says = evidence.of_purpose(Purpose.NOTIFIES, "add notifications, or a notify step")
    if not told:
        return state, says
    also = f"; {says}" if state is not State.MISSING else ""
    return State.PROVEN, f"the plan tells {'; '.join(told)}{also}"


def _documented(evidence: _Evidence) -> _Finding:
    bare = [step.name for step in evidence.plan.steps if not step.description]
    if bare:
        return State.MISSING, f"{steps_named(bare)}: no description; what stands elsewhere is not known here"
    return State.PROVEN, "each step has a description"


def _watched(evidence: _Evidence) -> _Finding:
    asking = [f"guard {guard.name}" for guard in evidence.plan.guards if guard.source.provider()]
    asking += [
        f"gate {gate.name} of {step.name}"
        for step in evidence.plan.steps
        for gate in step.gates
        if gate.source.provider()
    ]
    if not asking:
        return State.MISSING, "no gate and no guard asks a provider for a number"
    return State.PROVEN, f"numbers are asked for by {', '.join(dict.fromkeys(asking))}"


# --- during the migration -------------------------------------------------------------------------------------------------


def _closed(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(
        Purpose.STARTS_MAINTENANCE, "no flags step sets a key named after maintenance; without a break none is needed"
    )


def _preflight(evidence: _Evidence) -> _Finding:
    run, status = evidence.status.run, evidence.status
    if evidence.begun and run is not None:
        return State.PROVEN, f"nothing was missing when run {run.number} began, {moment(run.started_at)}"
    if status.phase is Phase.REFUSED:
        return State.MISSING, status.message
    return State.PLANNED, "objects, rights, routes and capacity are looked at before the first step"


def _scripts(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(Purpose.CHANGES_DATA, "no step runs a Job that changes something")


def _integrity(evidence: _Evidence) -> _Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step runs what may change data, and none looks at data"
    names = evidence.checking_from(evidence.first_script)[:1]
    return evidence.steps(
        names, "no Job looks at the data afterwards: add a gate with job, or a job step with changesNothing"
    )


def _validated(evidence: _Evidence) -> _Finding:
    steps = evidence.plan.steps[max(0, evidence.last_change) :]
    names = [step.name for step in steps if step.gates or Purpose.VERIFIES in step.kind.purposes()]
    return evidence.steps(names, "nothing is judged at or after the last change: add a gate, or a check")


def _configured(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(Purpose.CONFIGURES, "no step changes a configuration or a version")


def _cleared(evidence: _Evidence) -> _Finding:
    return evidence.named("cache", "no Job is named after a cache; without one none need be cleared")


# --- after the migration --------------------------------------------------------------------------------------------------


def _smoked(evidence: _Evidence) -> _Finding:
    return evidence.steps(
        evidence.checking_from(max(0, evidence.last_change)),
        "no Job looks at the result: add a gate with job to the last step",
    )


def _errors(evidence: _Evidence) -> _Finding:
    return evidence.measured(r"error|fail|5\.\.|5xx", "no guard or gate asks for errors; a guard is judged all along")


def _performance(evidence: _Evidence) -> _Finding:
    line = next((line for line in evidence.status.report if line.criterion is SuccessCriterion.PERFORMANCE), None)
    if line is not None and line.result is not Result.NOT_MEASURED:
        return State.PROVEN if line.result is Result.MET else State.MISSING, line.evidence
    words = r"latency|duration|quantile|slow|p9\d|throughput"
    return evidence.measured(words, "no guard or gate asks for latency or throughput")


def _consistent(evidence: _Evidence) -> _Finding:
    if evidence.first_script == len(evidence.plan.steps):
        return State.MISSING, "no step runs what may change data, and none compares data"
    names = evidence.checking_from(max(evidence.first_script, evidence.last_change))[-1:]
    return evidence.steps(names, "no Job looks at the data after the last change")


def _opened(evidence: _Evidence) -> _Finding:
    closing = [step.name for step in evidence.plan.steps if Purpose.STARTS_MAINTENANCE in step.kind.purposes()]
    way = f"{steps_named(closing)} begins it and nothing ends it" if closing else "no step begins one"
    return evidence.of_purpose(Purpose.ENDS_MAINTENANCE, way)


def _lessons(evidence: _Evidence) -> _Finding:
    del evidence
    return State.MISSING, "that is for people; kubectl cutover report --html keeps what was seen"


def _cleanup(evidence: _Evidence) -> _Finding:
    return evidence.of_purpose(
        Purpose.RETIRES_OLD_VERSION, "no step takes the old version away: add a deploy with replicas: 0 after a wait"
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
    """For where nothing can be coloured: a line each, indented with two blanks a level."""
    part = ""
    for one in found:
        if one.part != part:
            part = one.part
            yield f"  {part.lower()} the migration"
        yield f"    {one.state.lower():7}  {one.line}: {one.proof}"
