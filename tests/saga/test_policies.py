"""What a failure leads to, and what is remembered: one case a sentence, in the saga alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cutover.saga.turn import Again, Done, Failed, OnFailure, Pause, Rules
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


# --- what is done no longer works ---------------------------------------------------------------------------------------

GONE = Failed("SideNotReady", "shop-v2 carries traffic and has no ready endpoint, for 2s")


def policies(plan: OnFailure, **of_steps: OnFailure) -> Rules:
    steps = tuple(replace(rule, on_failure=of_steps.get(rule.name, plan)) for rule in RULES.steps)
    return replace(RULES, on_failure=plan, steps=steps)


@pytest.mark.parametrize(
    ("rules", "phase"),
    [
        (policies(OnFailure.PAUSE, shift=OnFailure.ROLLBACK), Phase.ROLLING_BACK),
        (policies(OnFailure.ROLLBACK, shift=OnFailure.PAUSE), Phase.PAUSED),
        (policies(OnFailure.ROLLBACK, look=OnFailure.PAUSE), Phase.ROLLING_BACK),
    ],
)
def test_the_policy_is_that_of_the_step_which_no_longer_works(rules: Rules, phase: Phase) -> None:
    walk = Walk(rules).to("look")
    walk.go(Again(60.0, "watching"), target_problem=GONE, problem_at=1)
    assert walk.is_(phase)
    assert walk.status.failure is not None
    assert walk.status.failure.step == "shift"


def test_the_step_after_it_has_not_failed_and_goes_on_with_resume() -> None:
    walk = Walk(policies(OnFailure.PAUSE)).to("look")
    walk.go(target_problem=GONE, problem_at=1)
    assert walk.status.message == f"step shift: {GONE.message}; paused: resume continues, abort rolls back"
    assert walk.go(requests=(Request(RequestVerb.RESUME, "1"),)) == "enforce", "what differs is set again"
    assert walk.go(Done()) == "do look 0"


@pytest.mark.parametrize("verb", [RequestVerb.PAUSE, None])
@pytest.mark.parametrize(
    ("rules", "phase"),
    [
        (RULES, Phase.ROLLING_BACK),
        (policies(OnFailure.ROLLBACK, shift=OnFailure.PAUSE), Phase.PAUSED),
        (policies(OnFailure.PAUSE, shift=OnFailure.ROLLBACK), Phase.ROLLING_BACK),
    ],
)
def test_while_the_plan_is_paused_it_counts_as_well(rules: Rules, phase: Phase, verb: RequestVerb | None) -> None:
    walk = Walk(rules).to("look")
    if verb:
        walk.go(requests=(Request(verb, "1"),))
    else:
        walk.go(target_problem=Pause("ForeignChange", "replicas is 1"))
    assert walk.is_(Phase.PAUSED)
    walk.go(target_problem=GONE, problem_at=1)
    assert walk.is_(phase)


def test_while_the_plan_is_paused_a_target_that_is_gone_is_left_to_a_user() -> None:
    walk = Walk().to("look")
    walk.go(requests=(Request(RequestVerb.PAUSE, "1"),))
    walk.go(target_problem=Failed("TargetGone", "shop-v2 is gone"))
    assert (walk.status.phase, walk.status.reason) == (Phase.PAUSED, "TargetGone")


def test_paused_past_the_point_of_no_return_only_what_comes_after_it_rolls_back() -> None:
    rules = with_deploy(irreversible=True)
    for at, phase in ((0, Phase.PAUSED), (1, Phase.ROLLING_BACK)):
        walk = Walk(rules).to("look")
        walk.go(requests=(Request(RequestVerb.PAUSE, "1"),))
        walk.go(target_problem=GONE, problem_at=at)
        assert walk.is_(phase), at


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
