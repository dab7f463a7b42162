"""The way back, in the saga alone: what is undone next, and when a deletion gives up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil

import pytest

from cutover.saga.turn import Again, Done, Failed, Outcome, Pause, Wait
from cutover.status.requests import Answer, Request, RequestVerb
from cutover.status.status import ENDED, Phase, StepState
from saga.test_saga import RULES, Walk

ABORT = (Request(RequestVerb.ABORT, "1"),)


def past_a_wall() -> Walk:
    """deploy is done, shift is done and cannot be undone, a last step that can be is in hand."""
    steps = (RULES.steps[0], replace(RULES.steps[1], irreversible=True), replace(RULES.steps[2], undoes=True))
    return Walk(replace(RULES, steps=steps)).to("look")


def test_an_undo_that_waits_behind_a_wall_is_not_begun_again_at_once() -> None:
    walk = past_a_wall()
    before_the_wall = frozenset({0})
    assert walk.go(requests=ABORT, ready_to_undo=before_the_wall) == "undo look"
    assert walk.go(Again(30.0, "2/3 pods"), ready_to_undo=before_the_wall) == ""
    assert walk.turn.look_again is not None
    assert walk.turn.look_again.total_seconds() == 30


def test_what_may_go_ahead_is_not_begun_again_while_it_waits_itself() -> None:
    walk = Walk().to("look")
    both = frozenset({0, 1})
    assert walk.go(requests=ABORT, ready_to_undo=both) == "undo shift"
    assert walk.go(Again(2.0, "not yet"), ready_to_undo=both) == ""
    assert walk.go(Done(), ready_to_undo=both) == "undo deploy"
    assert walk.status.steps[1].state is StepState.UNDONE


# --- an undo that is retried on request -------------------------------------------------------------------------------

RETRY = (*ABORT, Request(RequestVerb.RETRY, "2"))


def stuck(outcome: Outcome) -> Walk:
    walk = Walk().to("shift")
    walk.go(requests=ABORT)
    assert walk.go(outcome, requests=ABORT) == ""
    assert walk.is_(Phase.STUCK)
    return walk


def numbers(walk: Walk) -> tuple[int, int]:
    """Of the attempt of the undo, and of the fence."""
    assert walk.status.run is not None
    return walk.status.run.undo_attempt, walk.status.run.fence


def test_an_undo_that_failed_is_attempted_again_on_request() -> None:
    walk = stuck(Failed("JobFailed", "code 4"))
    _, before = numbers(walk)
    assert walk.go(requests=RETRY) == "undo shift"
    assert walk.is_(Phase.ROLLING_BACK)
    assert numbers(walk) == (2, before + 1)
    assert walk.go(requests=RETRY) == "undo shift", "the same after a crash"
    assert numbers(walk) == (2, before + 1)
    assert walk.go(Failed("JobFailed", "code 4"), requests=RETRY) == ""
    third = (*ABORT, Request(RequestVerb.RETRY, "3"))
    assert walk.go(requests=third) == "undo shift"
    assert numbers(walk)[0] == 3
    assert walk.go(Done(), requests=third) == "undo deploy"
    assert numbers(walk)[0] == 3


def test_an_undo_that_only_waits_is_looked_at_again_on_request() -> None:
    walk = stuck(Failed("JobFailed", "code 4"))
    walk.go(Wait("AccountUnusable", "no"), requests=ABORT)
    _, before = numbers(walk)
    assert walk.go(requests=RETRY) == "undo shift"
    assert numbers(walk) == (1, before + 1)


@pytest.mark.parametrize("outcome", [Done(), Again(2.0, "2/3 pods")])
def test_an_undo_that_goes_on_in_the_turn_of_the_request_is_not_attempted_again(outcome: Outcome) -> None:
    walk = stuck(Failed("JobFailed", "code 4"))
    walk.go(outcome, requests=RETRY)
    assert numbers(walk)[0] == 1
    assert walk.is_(Phase.ROLLING_BACK)


def test_an_undo_that_is_not_stuck_cannot_be_retried() -> None:
    walk = Walk().to("shift")
    walk.go(requests=ABORT)
    assert walk.go(requests=RETRY) == "undo shift"
    record = walk.status.requests[-1]
    assert (record.answer, record.message) == (
        Answer.REJECTED,
        "there is no failed step to retry; the plan is RollingBack",
    )


def test_an_undo_that_failed_before_another_attempt_of_its_step_is_attempted_again() -> None:
    rules = replace(RULES, steps=(replace(RULES.steps[0], retries=1), *RULES.steps[1:]))
    walk = Walk(rules).to("deploy")
    assert walk.go(Failed("JobFailed", "code 3")) == "undo deploy"
    assert walk.go(Failed("JobFailed", "code 4")) == ""
    assert walk.is_(Phase.PAUSED)
    assert walk.go(requests=RETRY[1:]) == "undo deploy"
    assert numbers(walk)[0] == 2
    assert walk.go(Done(), requests=RETRY[1:]) == "do deploy 0"
    assert walk.status.steps[0].attempt == 2


# --- ten minutes without progress ---------------------------------------------------------------------------------------


def looked(walk: Walk, minutes: float, ready: str, deleted_at: datetime | None) -> bool:
    """For so many minutes the undo is looked at each minute and has come so far; whether the plan is still rolling back."""
    outcome = Again(30.0, f"{ready} pods", ready, reached=int(ready.partition("/")[0]))
    return tried(walk, minutes, outcome, deleted_at) and walk.is_(Phase.ROLLING_BACK)


def tried(walk: Walk, minutes: float, outcome: Outcome, deleted_at: datetime | None) -> bool:
    """The undo is tried each minute; whether the plan has not ended."""
    for _ in range(ceil(minutes)):
        walk.now += timedelta(minutes=min(minutes, 1))
        minutes -= 1
        assert walk.go(deleted_at=deleted_at) == "undo deploy"
        walk.go(outcome, deleted_at=deleted_at)
        if walk.status.phase in ENDED:
            return False
    return True


def test_an_undo_that_progresses_slowly_is_not_abandoned() -> None:
    walk = Walk().to("deploy")
    walk.go(deleted_at=walk.now)
    begin = walk.now
    assert all(looked(walk, 1, f"{pod}/20", begin) for pod in range(1, 20))
    assert looked(walk, 9, "19/20", begin)
    assert walk.turn.look_again == timedelta(seconds=30)
    assert not looked(walk, 1, "19/20", begin)
    assert "made no progress" in walk.status.message


def test_a_pod_that_gets_ready_again_and_again_is_not_progress() -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    assert all(looked(walk, 1, f"{minute % 2}/3", begin) for minute in range(11))
    assert not looked(walk, 1, "1/3", begin)


def test_an_undo_under_way_for_long_gets_its_ten_minutes_from_the_deletion() -> None:
    walk = Walk().to("deploy")
    walk.go(requests=ABORT)
    assert looked(walk, 11, "1/3", None)
    deleted = walk.now
    assert looked(walk, 0.1, "1/3", deleted)
    assert walk.turn.look_again == timedelta(seconds=30)
    assert looked(walk, 9.9, "1/3", deleted)
    assert not looked(walk, 0.2, "1/3", deleted)


def test_after_an_outage_it_is_checked_before_it_is_abandoned() -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    walk.now += timedelta(hours=1)
    assert walk.go(deleted_at=begin, new_process=True) == "undo deploy"
    assert walk.go(Done(), deleted_at=begin) == "release"


STUCK: list[Wait | Failed | Pause] = [
    Wait("OldSideNotReady", "2 of 3"),
    Failed("JobFailed", "exit code 1"),
    Pause("ClaimLost", "a label is gone"),
]


@pytest.mark.parametrize("outcome", STUCK, ids=lambda outcome: outcome.reason)
def test_one_that_is_stuck_gets_its_ten_minutes_too(outcome: Wait | Failed | Pause) -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    assert tried(walk, 10, outcome, begin)
    assert walk.is_(Phase.STUCK)
    assert walk.turn.look_again == timedelta(minutes=1)
    until = (begin + timedelta(minutes=11)).strftime("%H:%M:%S UTC")  # from when it was first tried
    how = "runs again only on retry" if isinstance(outcome, Failed) else "is retried every minute"
    says = f"is stuck, and {how} until {until}, then the plan is abandoned: {outcome.message}"
    assert says in walk.status.message
    assert not tried(walk, 1, outcome, begin)
    assert walk.status.message.startswith(
        f"undo of step deploy is stuck ({outcome.reason}: {outcome.message}); not undone"
    )


def test_one_that_is_stuck_and_goes_on_is_finished() -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    assert tried(walk, 9, STUCK[0], begin)
    assert tried(walk, 1, Again(2.0, "goes on", reached=1), begin)
    assert tried(walk, 9, STUCK[0], begin), "it has made progress in between"
    assert walk.go(deleted_at=begin) == "undo deploy"
    assert walk.go(Done(), deleted_at=begin) == "release"


def test_without_its_account_nothing_is_waited_for() -> None:
    walk = Walk().to("deploy")
    walk.go(deleted_at=walk.now)
    assert not tried(walk, 1, Wait("AccountUnusable", "there is no ServiceAccount migrator"), walk.now)


@pytest.mark.parametrize("new_process", [True, False])
@pytest.mark.parametrize("outcome", [STUCK[0], Again(2.0, "1/3 pods")], ids=["stuck", "slow"])
@pytest.mark.parametrize("before", [0, 5], ids=["away when it was deleted", "away later"])
def test_what_was_not_tried_for_ten_minutes_is_not_abandoned_at_the_first_look(
    outcome: Outcome, before: int, *, new_process: bool
) -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    assert tried(walk, before, outcome, begin)
    walk.now += timedelta(hours=1)
    assert walk.go(deleted_at=begin, new_process=new_process) == "undo deploy"
    walk.go(outcome, deleted_at=begin)
    assert walk.status.phase not in ENDED
    assert tried(walk, 2, outcome, begin)
    assert not tried(walk, 8, outcome, begin)
