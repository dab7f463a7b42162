"""Finds in a plan and its status what proves an item of the checklist. Pure; used by `checklist.py`, which lists the items."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from cutover.engine.criteria import steps_named
from cutover.plan.spec import Plan
from cutover.status.status import ENDED, Phase, Status, StepState
from cutover.steps.parts import MakesObjects, Purpose


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


Finding = tuple[State, str]


class Evidence:
    """Finds what proves an item in a plan and its status."""

    def __init__(self, plan: Plan, status: Status) -> None:
        self.plan, self.status = plan, status
        self.states = {step.name: step for step in status.steps}
        self.gated = {step.name for step in plan.steps if step.gates}
        self.started = any(step.attempt for step in status.steps)
        changing = [at for at, step in enumerate(plan.steps) if step.writes() and not step.serves(Purpose.VERIFIES)]
        scripts = [at for at, step in enumerate(plan.steps) if step.serves(Purpose.CHANGES_DATA)]
        self.last_change = max(changing, default=-1)
        self.first_script = min(scripts, default=len(plan.steps))

    def steps(self, names: Sequence[str], missing: str) -> Finding:
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

    def of_purpose(self, purpose: Purpose, missing: str) -> Finding:
        """Proven by the steps whose kind has this purpose."""
        return self.steps([step.name for step in self.plan.steps if step.serves(purpose)], missing)

    def named(self, word: str, missing: str) -> Finding:
        """Proven by steps that run a Job and have this word in their name or description."""
        names = [
            step.name
            for step in self.plan.steps
            if isinstance(step.kind, MakesObjects) and word in f"{step.name} {step.description}".lower()
        ]
        return self.steps(names, missing)

    def checking_from(self, since: int) -> list[str]:
        """Steps from this one on that run a Job which changes nothing, as the step itself or as a gate."""
        return [
            step.name
            for step in self.plan.steps[since:]
            if (isinstance(step.kind, MakesObjects) and step.serves(Purpose.VERIFIES))
            or any(gate.source.makes() for gate in step.gates)
        ]

    def measured(self, words: str, missing: str) -> Finding:
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
