"""Derives what users and tools see of a status: conditions as kstatus reads them, progress, one message. Pure.

kstatus (sigs.k8s.io/cli-utils, pkg/kstatus): an observedGeneration behind the generation is InProgress, Stalled=True is Failed,
Reconciling=True is InProgress, Ready=True is Current. Called by the driver before every save.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from cutover.status.condition import Condition
from cutover.status.limits import bounded, clip, longest_message
from cutover.status.phases import ON_PURPOSE
from cutover.status.status import (
    ENDED,
    OUTDATED_CRD,
    RISKS,
    Current,
    Phase,
    Status,
    StepState,
    Verdict,
    cause_of,
)

_FAILED: Final = frozenset({Phase.ROLLED_BACK, Phase.REFUSED, Phase.ABANDONED, Phase.STUCK})


def present(status: Status, now: datetime) -> Status:
    """The status with everything that is derived from the rest, and every text within its limit."""
    shown = bounded(status)
    shown = replace(shown, progress=_progress(shown), message=clip(_message(shown), longest_message(shown)))
    return replace(shown, conditions=_conditions(shown, now))


def _progress(status: Status) -> str:
    total = len(status.steps)
    if status.current is not None:
        at = next((at for at, step in enumerate(status.steps) if step.name == status.current.step), 0)
        return f"{at + 1}/{total}"
    return f"{sum(step.state is StepState.DONE for step in status.steps)}/{total}" if total else ""


def _message(status: Status) -> str:
    current = status.current
    if current is None or status.phase not in (Phase.RUNNING, Phase.WAITING, Phase.ROLLING_BACK):
        return status.message
    stage = f" {current.stage}" if current.stage else ""
    parts = [f"step {current.step}{stage}: {current.intent}", _waits_for(current)]
    if status.phase is Phase.ROLLING_BACK and status.failure is not None:
        parts.append(f"rolling back{cause_of(status.failure)}")
    return "; ".join(part for part in parts if part)


def _waits_for(current: Current) -> str:
    if current.message:
        return "" if current.message in current.intent else current.message  # an approval's intent contains its message
    waiting = next((gate for gate in current.gates if gate.verdict is not Verdict.PASS), None)
    return f"gate {waiting.name}: {waiting.message}" if waiting and current.applied_at else ""


def _conditions(status: Status, now: datetime) -> tuple[Condition, ...]:
    reason = status.reason or "Unknown"
    phase, on_purpose = status.phase, status.state in ON_PURPOSE
    succeeded = {True: "True", False: "False"}[phase is Phase.SUCCEEDED] if phase in ENDED else "Unknown"
    stalled = phase in _FAILED or (phase is Phase.PAUSED and not on_purpose)
    reconciling = phase not in ENDED and not stalled and not on_purpose
    ready = "True" if phase is Phase.SUCCEEDED else "False"
    wanted = (
        ("Succeeded", succeeded, reason),
        ("Ready", ready, "Suspended" if on_purpose else reason),
        ("Reconciling", "True" if reconciling else "False", reason),
        ("Stalled", "True" if stalled else "False", reason),
    )
    before = {condition.type: condition for condition in status.conditions}
    made = []
    for kind, value, why in wanted:
        old = before.get(kind)
        since = old.last_transition_time if old is not None and old.status == value else now
        made.append(
            Condition(
                type=kind,
                status=value,
                reason=why,
                message=clip(status.message, 512) or f"the plan is {status.phase}",
                last_transition_time=since,
                observed_generation=status.observed_generation,
            )
        )
    return (*made, *(risk for risk in status.conditions if risk.type in (*RISKS, OUTDATED_CRD)))
