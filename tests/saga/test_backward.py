"""The way back, in the saga alone: what is undone next, and when a deletion gives up."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from cutover.saga.turn import Again, Done
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import Phase, StepState
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


# --- ten minutes without progress ---------------------------------------------------------------------------------------


def looked(walk: Walk, minutes: float, ready: str, deleted_at: datetime | None) -> bool:
    """After so many minutes the undo is looked at and has come so far; whether the plan is still rolling back."""
    walk.now += timedelta(minutes=minutes)
    assert walk.go(deleted_at=deleted_at) == "undo deploy"
    walk.go(Again(30.0, f"{ready} pods", ready, reached=int(ready.partition("/")[0])), deleted_at=deleted_at)
    return walk.is_(Phase.ROLLING_BACK)


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
    deleted = walk.now + timedelta(minutes=11)
    assert looked(walk, 11, "1/3", deleted)
    assert walk.turn.look_again == timedelta(seconds=30)
    assert looked(walk, 9.9, "1/3", deleted)
    assert not looked(walk, 0.1, "1/3", deleted)


def test_after_an_outage_it_is_checked_before_it_is_abandoned() -> None:
    walk = Walk().to("deploy")
    begin = walk.now
    walk.go(deleted_at=begin)
    walk.now += timedelta(hours=1)
    assert walk.go(deleted_at=begin, new_process=True) == "undo deploy"
    assert walk.go(Done(), deleted_at=begin) == "release"
