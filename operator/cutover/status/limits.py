"""How long each text in a status may be, so that all of it stays below 64 KiB for any plan. Pure; called before each save.

Sizes are bytes of JSON: a character may take four, an escaped one up to six. Only texts for people are cut here. What the
saga relies on (names, states, attempts, tokens) has bounds of its own.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cutover.status.report import RunTally
from cutover.status.status import RISKS, Condition, Current, Risk, Status, StepState, StepStatus

_MISSING: Final = 8192
"""Of the message of a plan that has not begun: it names everything that is missing."""
_MESSAGE: Final = 2048
_FAILURE: Final = 1024
_CURRENT: Final = 1024
_INTENT: Final = 512
_GATE: Final = 150
_LINE: Final = 256
"""Of the message of a step, a request, an earlier run."""
_EVIDENCE: Final = 512
_ALL_STEPS: Final = 6144
"""The messages of all steps together: 64 of 96 bytes, or 24 of full length."""
_LEAST: Final = 16
_RISK, _RISK_LESS_PER_STEP = 4096, 56
"""Of the message of a risk, and by how much it is shorter for each step of the plan."""
_CUT: Final = " ... (cutover impact shows all of it)"


def size(text: str) -> int:
    """Bytes of a text in a JSON document."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def clip(text: str, most: int, mark: str = "…") -> str:
    """The text in `most` bytes at most; the mark replaces what was cut off."""
    text_is_short = 6 * len(text) <= most  # no character takes more than six
    if text_is_short or size(text) <= most:
        return text
    kept = text[:most]
    return kept[: bisect.bisect_right(range(1, len(kept) + 1), most - size(mark), key=lambda n: size(kept[:n]))] + mark


def longest_message(status: Status) -> int:
    """The bound of the message of the plan."""
    return _MESSAGE if any(step.attempt for step in status.steps) else _MISSING


def bounded(status: Status) -> Status:
    """The status with every text cut to its bound."""
    failure = status.failure
    return replace(
        status,
        message=clip(status.message, longest_message(status)),
        failure=failure and replace(failure, message=clip(failure.message, _FAILURE)),
        current=status.current and _bounded_current(status.current),
        steps=_bounded_steps(status),
        requests=tuple(
            replace(record, message=clip(record.message, _LINE), by=clip(record.by, _LINE))
            for record in status.requests
        ),
        history=tuple(replace(past, message=clip(past.message, _LINE)) for past in status.history),
        tally=status.tally and _of_tally(status.tally),
        report=tuple(replace(line, evidence=clip(line.evidence, _EVIDENCE)) for line in status.report),
    )


def _of_tally(tally: RunTally) -> RunTally:
    comparisons = tuple(replace(one, message=clip(one.message, _GATE)) for one in tally.comparisons)
    return replace(tally, failed_guard=clip(tally.failed_guard, _LINE), comparisons=comparisons)


def _bounded_current(current: Current) -> Current:
    gates = tuple(replace(gate, message=clip(gate.message, _GATE)) for gate in current.gates)
    return replace(current, intent=clip(current.intent, _INTENT), message=clip(current.message, _CURRENT), gates=gates)


def _of_steps(status: Status) -> tuple[StepStatus, ...]:
    """All steps share one bound; above it the longest messages are cut, except of the current step and of failed ones."""
    steps = tuple(replace(step, message=clip(step.message, _LINE)) for step in status.steps)
    most, used = _LINE, sum(size(step.message) for step in steps)
    current = status.current.step if status.current else ""
    while used > _ALL_STEPS and most > _LEAST:
        most -= _LEAST
        steps = tuple(
            step
            if step.state is StepState.FAILED or step.name == current
            else replace(step, message=clip(step.message, most))
            for step in steps
        )
        used = sum(size(step.message) for step in steps)
    return steps


def with_risks(status: Status, risks: Sequence[Risk], now: datetime) -> Status:
    """The status with these risks as conditions; they replace those found before."""
    before = {condition.type: condition.last_transition_time for condition in status.conditions}
    longest = _RISK - _RISK_LESS_PER_STEP * len(status.steps)
    made = tuple(
        Condition(
            type=risk.type,
            status="True",
            reason=risk.reason,
            message=clip(risk.message, longest, _CUT),
            last_transition_time=before.get(risk.type, now),
            observed_generation=status.observed_generation,
        )
        for risk in risks
    )
    return replace(status, conditions=(*(other for other in status.conditions if other.type not in RISKS), *made))
