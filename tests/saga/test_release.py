"""How long the release of a run that is over may fail: counted while it is tried, never in an interruption."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cutover.saga.turn import Again, Done, Outcome, Wait
from cutover.status.durable import durable_part
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import ENDED, Phase
from saga.test_saga import Walk

AWAY = timedelta(minutes=11)
REFUSED, UNANSWERED = Wait("NotReleased", "no"), Again(5.0, "no answer")
BOTH = pytest.mark.parametrize("failure", [REFUSED, UNANSWERED], ids=["refused", "unanswered"])


def over() -> Walk:
    """All steps are done, and the release is announced."""
    walk = Walk().to("look")
    assert walk.go(Done()) == "release"
    return walk


def fail(walk: Walk, failure: Outcome, for_: timedelta, every: float = 10.0) -> None:
    """The release fails for so long, from now on."""
    until = walk.now + for_
    while walk.now < until:
        walk.now += timedelta(seconds=every)
        assert walk.go() == "release"
        assert walk.go(failure) == ""


@BOTH
@pytest.mark.parametrize("new_process", [True, False])
def test_the_first_try_after_an_interruption_does_not_decide(failure: Outcome, *, new_process: bool) -> None:
    walk = over()
    walk.now += AWAY
    assert walk.go(new_process=new_process) == "release"
    assert walk.go(failure) == ""
    assert walk.is_(Phase.RUNNING)
    assert walk.go() == "release"
    assert walk.go(Done()) == "remove finalizer"
    assert "not everything" not in walk.status.message


@BOTH
@pytest.mark.parametrize("new_process", [True, False])
def test_nor_does_it_where_the_release_had_failed_before_that(failure: Outcome, *, new_process: bool) -> None:
    walk = over()
    fail(walk, failure, timedelta(minutes=1))
    walk.now += AWAY
    assert walk.go(new_process=new_process) == "release"
    assert walk.go(failure) == ""
    fail(walk, failure, timedelta(seconds=30))
    assert walk.is_(Phase.RUNNING)


@BOTH
def test_a_new_process_tries_for_a_while_whatever_the_former_one_was_answered(failure: Outcome) -> None:
    walk = over()
    fail(walk, failure, timedelta(seconds=110) if failure is REFUSED else timedelta(minutes=9, seconds=50))
    walk.now += timedelta(seconds=15)
    assert walk.go(new_process=True) == "release"
    assert walk.go(failure) == ""
    fail(walk, failure, timedelta(seconds=60))
    assert walk.is_(Phase.RUNNING)


def test_processes_that_are_replaced_again_and_again_give_up_too() -> None:
    walk = over()
    for at in range(90):
        if walk.status.phase in ENDED:
            break
        walk.now += timedelta(seconds=10)
        assert walk.go(new_process=at % 18 == 0) == "release"
        walk.go(UNANSWERED)
    assert walk.is_(Phase.SUCCEEDED)
    assert "no answer" in walk.status.message


def test_one_refusal_after_a_long_time_without_an_answer_does_not_decide() -> None:
    """An API server that comes back may refuse everything until it has read the roles."""
    walk = over()
    fail(walk, UNANSWERED, timedelta(minutes=5))
    fail(walk, REFUSED, timedelta(seconds=100))
    assert walk.is_(Phase.RUNNING)
    fail(walk, UNANSWERED, timedelta(seconds=30))
    fail(walk, REFUSED, timedelta(seconds=100))
    assert walk.is_(Phase.RUNNING)


@pytest.mark.parametrize(("failure", "seconds"), [(REFUSED, 120), (UNANSWERED, 600)])
@pytest.mark.parametrize("abandoned", [True, False])
def test_it_fails_for_two_minutes_or_ten_and_no_longer(failure: Outcome, seconds: int, *, abandoned: bool) -> None:
    walk = Walk().to("look") if abandoned else over()
    if abandoned:
        assert walk.go(requests=(Request(RequestVerb.ABANDON, "1"),)) == "release"
    fail(walk, failure, timedelta(seconds=seconds))
    walk.now += timedelta(seconds=10)
    assert walk.go() == "release"
    assert walk.go(failure) == "remove finalizer"
    assert walk.is_(Phase.ABANDONED if abandoned else Phase.SUCCEEDED)
    assert "not everything could be released: no" in walk.status.message


ABANDON = (Request(RequestVerb.ABANDON, "1"),)


@BOTH
@pytest.mark.parametrize("new_process", [True, False])
def test_abandon_ends_it_with_the_next_answer_and_not_before(failure: Outcome, *, new_process: bool) -> None:
    """Whoever announced the release may have died before the first try: what nobody has tried is not left out."""
    walk = over()
    walk.now += AWAY
    assert walk.go(requests=ABANDON, new_process=new_process) == "release"
    assert walk.go(failure) == "remove finalizer"
    assert walk.is_(Phase.SUCCEEDED)
    assert "not everything could be released: no" in walk.status.message


@BOTH
def test_abandon_ends_it_at_once_where_the_answer_is_there(failure: Outcome) -> None:
    walk = over()
    assert walk.go(failure, requests=ABANDON) == "remove finalizer"
    assert walk.is_(Phase.SUCCEEDED)


@BOTH
def test_an_abandoned_plan_too_is_tried_again_after_an_interruption(failure: Outcome) -> None:
    walk = Walk().to("look")
    assert walk.go(requests=(Request(RequestVerb.ABANDON, "1"),)) == "release"
    walk.now += AWAY
    assert walk.go() == "release"
    assert walk.go(failure) == ""
    assert walk.go() == "release"
    assert walk.go(Done()) == "remove finalizer"
    assert "not everything" not in walk.status.message


def test_how_long_it_has_failed_is_no_save_of_its_own() -> None:
    """Nor is it essential: with a CRD that lacks it, each process counts from its own first try."""
    walk = over()
    before = durable_part(walk.status)
    fail(walk, UNANSWERED, timedelta(minutes=1))
    assert walk.status.run is not None
    assert walk.status.run.unreleased is not None
    assert durable_part(walk.status) == before
