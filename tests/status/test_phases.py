"""The phase of each state, and the states of statuses that were saved before there were any."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cutover.plan.status_document import read_status, write_status
from cutover.status.phases import PHASES, state_before_states
from cutover.status.reasons import Reason
from cutover.status.state import State
from cutover.status.status import Failure, Phase, Run, Status

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILURE = Failure(reason="GateFailed", message="gate errors failed")
BEFORE = {
    (Phase.PENDING, "Preflight"): State.PREFLIGHT,
    (Phase.PENDING, "Unanswered"): State.UNANSWERED,
    (Phase.PENDING, "TargetBusy"): State.TARGET_BUSY,
    (Phase.PENDING, "OutsideWindow"): State.BEFORE_WINDOW,
    (Phase.PENDING, "PausedByPerson"): State.PAUSED_BEFORE_START,
    (Phase.PENDING, "Suspended"): State.SUSPENDED_BEFORE_START,
    (Phase.PENDING, "OutdatedCRD"): State.OUTDATED_CRD_BEFORE_START,
    (Phase.RUNNING, "Claiming"): State.CLAIMING,
    (Phase.RUNNING, "Progressing"): State.PROGRESSING,
    (Phase.RUNNING, "Releasing"): State.RELEASING,
    (Phase.WAITING, "AwaitingApproval"): State.WAITING,
    (Phase.WAITING, "OutsideWindow"): State.OUTSIDE_WINDOW,
    (Phase.PAUSED, "PausedByPerson"): State.PAUSED_BY_PERSON,
    (Phase.PAUSED, "Suspended"): State.SUSPENDED,
    (Phase.PAUSED, "OutdatedCRD"): State.OUTDATED_CRD,
    (Phase.PAUSED, "UnreadableSpec"): State.PAUSED_WITHOUT_SPEC,
    (Phase.PAUSED, "ClaimLost"): State.INTERRUPTED,
    (Phase.PAUSED, "LoweredByHand"): State.INTERRUPTED,
    (Phase.ROLLING_BACK, "GateFailed"): State.ROLLING_BACK,
    (Phase.ROLLING_BACK, "Aborted"): State.ROLLING_BACK,
    (Phase.ROLLING_BACK, "RollbackRequested"): State.ROLLING_BACK,
    (Phase.ROLLING_BACK, "Reclaiming"): State.RECLAIMING,
    (Phase.ROLLING_BACK, "Releasing"): State.RELEASING_ROLLED_BACK,
    (Phase.STUCK, "ForeignChange"): State.STUCK,
    (Phase.STUCK, "UnreadableSpec"): State.STUCK_WITHOUT_SPEC,
    (Phase.SUCCEEDED, "Completed"): State.SUCCEEDED,
    (Phase.SUCCEEDED, "AlreadyApplied"): State.SUCCEEDED,
    (Phase.ROLLED_BACK, "GuardFailed"): State.ROLLED_BACK,
    (Phase.REFUSED, "Preflight"): State.REFUSED,
    (Phase.REFUSED, "Invalid"): State.REFUSED,
    (Phase.REFUSED, "AppliedThenChanged"): State.APPLIED_THEN_CHANGED,
    (Phase.ABANDONED, "Deleted"): State.ABANDONED,
}
"""What an earlier version has saved, without a failure."""
BEFORE_WITH_A_FAILURE = {
    (Phase.PAUSED, "GateFailed"): State.GATE_FAILED,
    (Phase.PAUSED, "GuardFailed"): State.FAILED,
    (Phase.PAUSED, "TimedOut"): State.FAILED,
    (Phase.PAUSED, "StageTimedOut"): State.FAILED,
    (Phase.PAUSED, "WindowOver"): State.FAILED,
    (Phase.PAUSED, "JobFailed"): State.FAILED,
    (Phase.PAUSED, "PastPointOfNoReturn"): State.PAST_POINT_OF_NO_RETURN,
}


def saved(phase: Phase | None, reason: str, failure: Failure | None = None) -> dict[str, object]:
    """A status as an earlier version has saved it."""
    run = Run(number=1, generation=1, spec_hash="h", started_at=NOW)
    document: dict[str, object] = write_status(Status(phase=phase, reason=reason, run=run, failure=failure))
    assert "state" not in document
    return document


def test_each_state_has_a_phase_and_each_phase_a_state() -> None:
    assert set(PHASES) == set(State)
    assert set(PHASES.values()) == set(Phase)


def test_every_state_was_possible_before_there_were_any() -> None:
    assert {*BEFORE.values(), *BEFORE_WITH_A_FAILURE.values()} == set(State)


@pytest.mark.parametrize(("pair", "state"), BEFORE.items())
def test_a_status_without_a_state_is_read(pair: tuple[Phase, str], state: State) -> None:
    read = read_status(saved(*pair))
    assert (read.state, read.phase, read.reason) == (state, *pair)


@pytest.mark.parametrize(("pair", "state"), BEFORE_WITH_A_FAILURE.items())
def test_a_status_with_a_failure_and_without_a_state_is_read(pair: tuple[Phase, str], state: State) -> None:
    read = read_status(saved(*pair, FAILURE))
    assert (read.state, read.phase, read.reason) == (state, *pair)


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("reason", [*Reason, "", "ClaimLost"])
@pytest.mark.parametrize("failed", [True, False])
def test_whatever_pair_it_was_it_has_a_state_of_that_phase(phase: Phase, reason: str, *, failed: bool) -> None:
    assert PHASES[state_before_states(phase, reason, failed=failed)] is phase


def test_a_plan_that_nobody_has_seen_has_no_state() -> None:
    for document in ({}, {"observedGeneration": -1}, None):
        assert (read_status(document).state, read_status(document).phase) == (None, None)


@pytest.mark.parametrize("state", list(State))
def test_a_state_that_was_saved_is_read_no_matter_what_explains_it(state: State) -> None:
    status = Status(phase=PHASES[state], state=state, reason="Suspended", failure=FAILURE)
    assert read_status(write_status(status)) == status


def test_a_state_of_a_later_version_is_told_by_the_phase_and_the_reason() -> None:
    document = saved(Phase.RUNNING, "Claiming") | {"state": "ClaimingAgain"}
    assert read_status(document) == replace(read_status(saved(Phase.RUNNING, "Claiming")), state=State.CLAIMING)
