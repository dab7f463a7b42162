"""Limits the length of each text in a status, so that the whole stays below 64 KiB for any plan. Pure.

Sizes are bytes in JSON, where one character may take up to six. Fields that the saga depends on (names, states, attempts, tokens, what
was created) have limits of their own and are never cut here: only texts for users are. Called by `conditions.py` and at the start of a run.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from cutover.status.condition import Condition
from cutover.status.report import RunTally
from cutover.status.status import OUTDATED_CRD, RISKS, Current, Risk, Status, StepState, StepStatus

_MISSING: Final = 8192
"""The message of a plan that has not started: it lists everything that is missing."""
_MESSAGE: Final = 2048
_FAILURE: Final = 1024
_CURRENT: Final = 1024
_INTENT: Final = 512
_GATE: Final = 150
_LINE: Final = 256
"""The message of a step, a request or an earlier run."""
_EVIDENCE: Final = 512
_ALL_STEPS: Final = 6144
"""The messages of all steps together: 64 of 96 bytes, or 24 of full length."""
_LEAST: Final = 16
_RISK, _LESS_PER_STEP = 4096, 56
"""The message of a risk, and by how much its limit shrinks per step."""
_CUT: Final = " ... (for the rest: kubectl cutover impact)"


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
    """The limit of the plan's message."""
    return _MESSAGE if any(step.attempt for step in status.steps) else _MISSING


def bounded(status: Status) -> Status:
    """The status with every text within its limit."""
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
        tally=status.tally and _bounded_tally(status.tally),
        report=tuple(replace(line, evidence=clip(line.evidence, _EVIDENCE)) for line in status.report),
    )


def _bounded_tally(tally: RunTally) -> RunTally:
    comparisons = tuple(replace(one, message=clip(one.message, _GATE)) for one in tally.comparisons)
    return replace(tally, failed_guard=clip(tally.failed_guard, _LINE), comparisons=comparisons)


def _bounded_current(current: Current) -> Current:
    gates = tuple(replace(gate, message=clip(gate.message, _GATE)) for gate in current.gates)
    return replace(current, intent=clip(current.intent, _INTENT), message=clip(current.message, _CURRENT), gates=gates)


def _bounded_steps(status: Status) -> tuple[StepStatus, ...]:
    """All steps share one limit; over it, the longest messages are cut first, except those of the current and of failed steps."""
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
    """The status with these risks as conditions, replacing those found before."""
    return _with_conditions(status, risks, RISKS, now)


def with_crd_remark(status: Status, remark: str, now: datetime) -> Status:
    """The status with a condition that says what the CRD lacks; without one when it lacks nothing."""
    return _with_conditions(
        status, [Risk(OUTDATED_CRD, "FieldsDropped", remark)] if remark else [], (OUTDATED_CRD,), now
    )


def _with_conditions(status: Status, found: Sequence[Risk], types: Sequence[str], now: datetime) -> Status:
    before = {condition.type: condition.last_transition_time for condition in status.conditions}
    longest = _RISK - _LESS_PER_STEP * len(status.steps)
    made = tuple(
        Condition(
            type=risk.type,
            status="True",
            reason=risk.reason,
            message=clip(risk.message, longest, _CUT),
            last_transition_time=before.get(risk.type, now),
            observed_generation=status.observed_generation,
        )
        for risk in found
    )
    return replace(status, conditions=(*(kept for kept in status.conditions if kept.type not in types), *made))
