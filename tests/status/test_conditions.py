"""Conditions as kstatus reads them, in every phase. The rules: sigs.k8s.io/cli-utils, pkg/kstatus/status/generic.go."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cutover.plan.status_document import read_status, write_status
from cutover.status.conditions import present
from cutover.status.limits import with_risks
from cutover.status.phases import state_before_states
from cutover.status.status import Current, Failure, GateStatus, Phase, Risk, Run, Status, StepState, StepStatus, Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def kstatus(status: Status, generation: int = 1) -> str:
    """What kstatus would say."""
    if status.observed_generation != generation:
        return "InProgress"
    found = {condition.type: condition.status for condition in status.conditions}
    if found.get("Reconciling") == "True":
        return "InProgress"
    if found.get("Stalled") == "True":
        return "Failed"
    return {"True": "Current", "False": "InProgress"}.get(found.get("Ready", ""), "Current")


def a_status(phase: Phase, reason: str = "Because") -> Status:
    run = Run(number=1, generation=1, spec_hash="h", started_at=NOW)
    step = StepStatus(name="shift", kind="traffic", state=StepState.DOING)
    state = state_before_states(phase, reason, failed=False)
    return present(Status(observed_generation=1, phase=phase, state=state, reason=reason, run=run, steps=(step,)), NOW)


@pytest.mark.parametrize(
    ("phase", "reason", "says"),
    [
        (Phase.PENDING, "Preflight", "InProgress"),
        (Phase.PENDING, "PausedByPerson", "InProgress"),
        (Phase.PENDING, "Suspended", "InProgress"),
        (Phase.PENDING, "OutdatedCRD", "InProgress"),
        (Phase.RUNNING, "Progressing", "InProgress"),
        (Phase.WAITING, "AwaitingApproval", "InProgress"),
        (Phase.ROLLING_BACK, "GateFailed", "InProgress"),
        (Phase.PAUSED, "PausedByPerson", "InProgress"),
        (Phase.PAUSED, "Suspended", "InProgress"),
        (Phase.PAUSED, "UnreadableSpec", "Failed"),
        (Phase.PAUSED, "OutdatedCRD", "Failed"),
        (Phase.STUCK, "ForeignChange", "Failed"),
        (Phase.SUCCEEDED, "Completed", "Current"),
        (Phase.ROLLED_BACK, "GateFailed", "Failed"),
        (Phase.REFUSED, "Preflight", "Failed"),
        (Phase.ABANDONED, "Abandoned", "Failed"),
    ],
)
def test_every_phase(phase: Phase, reason: str, says: str) -> None:
    assert kstatus(a_status(phase, reason)) == says


@pytest.mark.parametrize("phase", list(Phase))
def test_a_risk_is_nothing_to_kstatus_and_keeps_what_it_was_found_for(phase: Phase) -> None:
    before = a_status(phase)
    risky = with_risks(before, [Risk("GitOpsDriftRisk", "OwnedByFlux", "m" * 10_000)], NOW)
    shown = present(replace(risky, observed_generation=2, phase=phase), NOW + timedelta(hours=1))
    assert kstatus(shown, generation=2) == kstatus(before)
    risk = shown.conditions[-1]
    assert (risk.type, risk.status, risk.observed_generation, len(risk.message)) == ("GitOpsDriftRisk", "True", 1, 4040)
    assert risk.last_transition_time == NOW
    assert risk.message.endswith("m ... (for the rest: kubectl cutover impact)")
    again = with_risks(shown, [Risk("GitOpsDriftRisk", "OwnedByArgoCD", "m")], NOW + timedelta(hours=2))
    assert (again.conditions[-1].last_transition_time, again.conditions[-1].reason) == (NOW, "OwnedByArgoCD")
    assert with_risks(again, (), NOW).conditions == shown.conditions[:-1]


def test_a_plan_that_nobody_has_seen_is_in_progress() -> None:
    assert kstatus(Status()) == "InProgress"
    assert kstatus(a_status(Phase.SUCCEEDED), generation=2) == "InProgress"


@pytest.mark.parametrize("phase", list(Phase))
def test_succeeded_is_unknown_while_active(phase: Phase) -> None:
    value = next(c.status for c in a_status(phase).conditions if c.type == "Succeeded")
    ended = {Phase.SUCCEEDED: "True", Phase.ROLLED_BACK: "False", Phase.REFUSED: "False", Phase.ABANDONED: "False"}
    assert value == ended.get(phase, "Unknown")


def test_paused_by_a_user_is_suspended() -> None:
    ready = next(c for c in a_status(Phase.PAUSED, "PausedByPerson").conditions if c.type == "Ready")
    assert (ready.status, ready.reason) == ("False", "Suspended")


def test_a_condition_keeps_its_time_while_it_stays() -> None:
    running = a_status(Phase.RUNNING)
    later = present(replace(running, phase=Phase.SUCCEEDED), NOW + timedelta(hours=1))
    times = {c.type: c.last_transition_time for c in later.conditions}
    assert times["Stalled"] == NOW
    assert times["Ready"] == NOW + timedelta(hours=1)


def test_the_message_tells_step_stage_and_what_it_waits_for() -> None:
    gate = GateStatus(name="errors", verdict=Verdict.WAIT, message="no sample yet")
    current = Current(step="shift", stage="2/4", intent="weight 25", started_at=NOW, applied_at=NOW, gates=(gate,))
    shown = present(replace(a_status(Phase.RUNNING), current=current), NOW)
    assert shown.message == "step shift 2/4: weight 25; gate errors: no sample yet"
    assert shown.progress == "1/1"


def test_the_largest_status_is_small_enough_and_comes_back_as_it_was() -> None:
    gates = tuple(GateStatus(name="g" * 63, message="m" * 200, value="0.123456", bound="<= 0.5") for _ in range(32))
    steps = tuple(
        StepStatus(
            name="s" * 63,
            kind="traffic",
            state=StepState.DONE,
            attempt=1,
            started_at=NOW,
            finished_at=NOW,
            message="m" * 256,
        )
        for _ in range(64)
    )
    current = Current(step="s" * 63, stage="1/1", intent="i" * 512, started_at=NOW, message="m" * 1024, gates=gates)
    status = present(
        replace(
            a_status(Phase.RUNNING),
            steps=steps,
            current=current,
            message="m" * 8192,
            failure=Failure(step="s", stage="1/1", reason="r", message="m" * 1024),
        ),
        NOW,
    )
    document = write_status(status)
    assert len(str(document).encode()) < 65_536
    assert read_status(document) == status
