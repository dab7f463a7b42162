"""What a failure leads to, and what is remembered: one case a sentence, in the saga alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cutover.saga.turn import Done, Failed, Rules
from cutover.status.requests import Answer, Request, RequestVerb
from cutover.status.status import Phase, Verdict
from saga.test_saga import RULES, Walk, gate

FAILING = (gate(Verdict.FAIL),)
PASSING, GUARD = (gate(Verdict.WAIT),), (gate(Verdict.FAIL, guard=True),)


def with_deploy(**changes: object) -> Rules:
    """The rules, where the first step is another."""
    first = replace(RULES.steps[0], **changes)  # type: ignore[arg-type]
    return replace(RULES, steps=(first, *RULES.steps[1:]))


# --- guards after the point of no return --------------------------------------------------------------------------------


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_paused_plan_past_it_stays_paused_no_matter_what_its_guards_say(*, irreversible: bool) -> None:
    walk = Walk(with_deploy(irreversible=irreversible)).to("shift")
    walk.go(Done())
    walk.go(requests=(Request(RequestVerb.PAUSE, "1"),))
    assert walk.is_(Phase.PAUSED)
    walk.go(guards=GUARD)
    assert walk.status.phase is (Phase.PAUSED if irreversible else Phase.ROLLING_BACK)
    assert (walk.status.reason == "PausedByPerson") is irreversible


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
        assert (record.answer, record.message) == (Answer.REJECTED, "step deploy is done and is irreversible")
        assert walk.is_(Phase.SUCCEEDED)
    else:
        assert (record.answer, said) == (Answer.ACCEPTED, "reclaim")
