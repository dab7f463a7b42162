"""What a failure leads to, and what is remembered: one case a sentence, in the saga alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cutover.requests import Request, RequestVerb
from cutover.saga.turn import Done, Failed, OnFailure, Rules
from cutover.status import Answer, Phase, Verdict
from saga.test_saga import RULES, Walk, gate

FAILING = (gate(Verdict.FAIL),)
PASSING, GUARD = (gate(Verdict.WAIT),), (gate(Verdict.FAIL, guard=True),)


def with_deploy(**changes: object) -> Rules:
    """The rules, where the first step is another."""
    first = replace(RULES.steps[0], **changes)  # type: ignore[arg-type]
    return replace(RULES, steps=(first, *RULES.steps[1:]))


# --- guards after the point of no return --------------------------------------------------------------------------------


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_guard_holds_after_the_point_of_no_return(*, irreversible: bool) -> None:
    walk = Walk(with_deploy(irreversible=irreversible)).to("shift")
    said = walk.go(guards=GUARD)
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "GuardFailed"
    assert (said, walk.status.phase) == (("", Phase.HELD) if irreversible else ("undo shift", Phase.UNWINDING))


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_held_plan_past_it_stays_held_whatever_its_guards_say(*, irreversible: bool) -> None:
    walk = Walk(with_deploy(irreversible=irreversible)).to("shift")
    walk.go(Done())
    walk.go(requests=(Request(RequestVerb.HOLD, "1"),))
    assert walk.is_(Phase.HELD)
    walk.go(guards=GUARD)
    assert walk.status.phase is (Phase.HELD if irreversible else Phase.UNWINDING)
    assert (walk.status.reason == "HeldByPerson") is irreversible


# --- retries, time ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(OnFailure))
@pytest.mark.parametrize("judged", [{"gates": FAILING}, {"guards": GUARD}])
def test_what_fails_by_a_gate_or_a_guard_is_never_tried_again(policy: OnFailure, judged: dict[str, object]) -> None:
    """The policy is followed at once, however many retries are left."""
    walk = Walk(replace(with_deploy(retries=3, on_failure=policy), on_failure=policy)).to("deploy")
    said = walk.go(Done(), **judged)
    if policy is OnFailure.HOLD:
        assert (said, walk.status.phase) == ("", Phase.HELD)
        assert walk.go() == ""
    else:
        assert (said, walk.status.phase) == ("undo deploy", Phase.UNWINDING)
        assert walk.go(Done()) == "release"
    assert walk.status.steps[0].attempt == 1


def test_a_timeout_bounds_a_stage_beyond_its_dwell() -> None:
    stages = tuple(replace(stage, dwell=timedelta(minutes=10)) for stage in RULES.steps[0].stages)
    walk = Walk(with_deploy(stages=stages, timeout=timedelta(minutes=1))).to("deploy")
    for passed in (0, 9, 1.9):
        walk.now += timedelta(minutes=passed)
        walk.go(Done(), gates=PASSING)
        assert walk.is_(Phase.RUNNING)
    walk.now += timedelta(minutes=0.1)
    assert walk.go(gates=PASSING) == "undo deploy"
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "StageTimedOut"


# --- what is remembered -------------------------------------------------------------------------------------------------


def test_five_runs_are_remembered_the_latest_first() -> None:
    walk = Walk()
    for number in range(1, 9):
        walk.rules = replace(RULES, generation=number, spec_hash=str(number))
        assert walk.go() == "examine"
        walk.go(Failed("Invalid", "no"))
        assert walk.is_(Phase.REFUSED)
    assert [past.number for past in walk.status.history] == [7, 6, 5, 4, 3]


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_success_past_the_point_of_no_return_is_not_rolled_back(*, irreversible: bool) -> None:
    walk = Walk(replace(with_deploy(irreversible=irreversible), keep_snapshots=timedelta(hours=24))).to("look")
    assert walk.go(Done()) == "release"
    walk.go(Done())
    assert walk.is_(Phase.SUCCEEDED)
    said = walk.go(requests=(Request(RequestVerb.ROLLBACK, "1"),))
    record = walk.status.requests[-1]
    if irreversible:
        assert (record.answer, record.message) == (Answer.REJECTED, "step deploy is done and cannot be undone")
        assert walk.is_(Phase.SUCCEEDED)
    else:
        assert (record.answer, said) == (Answer.ACCEPTED, "reclaim")
