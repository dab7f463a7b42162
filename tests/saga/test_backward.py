"""The way back, in the saga alone: what is undone next, and when a deletion gives up."""

from __future__ import annotations

from dataclasses import replace

from cutover.requests import Request, RequestVerb
from cutover.saga.turn import Again, Done
from cutover.status import StepState
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
