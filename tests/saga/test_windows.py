"""Windows: when they are open, and what waits for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cutover.plan.windows import Recurring, Window, opening
from cutover.saga.turn import Again, Done, Opening, StageRule, Verb
from cutover.schema.model import Model
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import Phase, StepState
from saga.test_saga import NOW, RULES, Walk

CLOSED = Opening(open=False, opens_at=NOW + timedelta(hours=2))
OVER = Opening(open=False)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def recurring(**fields: object) -> Recurring:
    return Recurring.model_validate(fields)


# --- when they are open -----------------------------------------------------------------------------------------------

NIGHT = recurring(**{"days": ["Fri", "Sat"], "from": "22:00", "to": "04:00", "timeZone": "Europe/Berlin"})
SKIPPED = recurring(**{"days": ["Sun"], "from": "02:00", "to": "03:00", "timeZone": "Europe/Berlin"})
BACKWARD = recurring(**{"days": ["Sun"], "from": "02:30", "to": "03:00", "timeZone": "Europe/Berlin"})
SPRING = recurring(**{"days": ["Sun"], "from": "02:30", "to": "05:00", "timeZone": "Europe/Berlin"})
ONCE = Window.model_validate({"start": "2026-11-28T22:00:00+01:00", "end": "2026-11-28T23:00:00Z"})


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        (NIGHT, "2026-11-27 20:59", "2026-11-27 21:00"),  # Friday; Berlin is an hour ahead in winter
        (NIGHT, "2026-11-27 21:00", ""),
        (NIGHT, "2026-11-29 02:59", ""),  # begun on Saturday
        (NIGHT, "2026-11-29 03:00", "2026-12-04 21:00"),
        (NIGHT, "2026-07-03 20:00", ""),  # two hours ahead in summer
        (SPRING, "2026-03-28 12:00", "2026-03-29 01:30"),  # 02:30 is skipped that night: an hour later
        (SKIPPED, "2026-03-22 02:30", "2026-04-05 00:00"),  # nothing is left of it on the 29th
        (BACKWARD, "2026-03-29 00:59", "2026-04-05 00:30"),
        (SPRING, "2026-10-25 00:29", "2026-10-25 00:30"),  # 02:30 comes twice that night: the first time counts
        (SPRING, "2026-10-25 00:30", ""),
        (BACKWARD, "2026-10-25 01:59", ""),  # until 03:00, which comes once: an hour longer
        (BACKWARD, "2026-10-25 02:00", "2026-11-01 01:30"),
        (SKIPPED, "2026-03-08 02:00", "2026-03-15 01:00"),  # the same day of next week
        (ONCE, "2026-11-28 20:59", "2026-11-28 21:00"),
        (ONCE, "2026-11-28 22:59", ""),
        (ONCE, "2026-11-28 23:00", "never"),
        (recurring(**{"from": "00:00", "to": "00:00"}), "2026-11-28 23:59", ""),
    ],
)
def test_open(window: Window | Recurring, now: str, opens: str) -> None:
    found = opening((window,), at(now))
    assert found.open is (opens == "")
    if opens:
        assert found.opens_at == (None if opens == "never" else at(opens))


def test_any_of_several_will_do() -> None:
    assert opening((ONCE, NIGHT), at("2026-11-28 23:30")).open
    assert opening((), at("2026-11-28 23:30")).open
    assert opening((ONCE, NIGHT), at("2026-11-30 12:00")).opens_at == at("2026-12-04 21:00")


@pytest.mark.parametrize(
    ("model", "fields", "says"),
    [
        (Window, {"start": "2026-11-28T22:00:00", "end": "2026-11-28T23:00:00Z"}, "with its zone"),
        (Window, {"start": "2026-11-28T22:00:00Z", "end": "2026-11-28T21:00:00Z"}, "swap start and end"),
        (Recurring, {"from": "24:00", "to": "04:00"}, "a time of day such as 22:00"),
        (Recurring, {"from": "9:00", "to": "04:00"}, "a time of day such as 22:00"),
        (Recurring, {"from": "09:00", "to": "04:00", "timeZone": "Berlin"}, "IANA"),
        (Recurring, {"from": "09:00", "to": "04:00", "days": ["Friday"]}, "Mon"),
    ],
)
def test_mistakes(model: type[Model], fields: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        model.model_validate(fields)


# --- what waits for them ----------------------------------------------------------------------------------------------


def begun() -> Walk:
    """At the first weight of the second step, in a window."""
    walk = Walk()
    walk.go()
    walk.go(Done())
    walk.go(Done())
    assert walk.go(Done()) == "do shift 0"
    return walk


def test_outside_nothing_is_claimed() -> None:
    walk = Walk()
    assert walk.go(opening=CLOSED) == "examine"
    walk.held = True
    assert walk.go(Done(), opening=CLOSED) == "remove finalizer"
    assert (walk.status.phase, walk.status.reason) == (Phase.PENDING, "OutsideWindow")
    assert walk.turn.look_again == timedelta(hours=2)
    assert walk.go(opening=CLOSED) == ""
    assert walk.go() == "examine"
    assert walk.go(Done()) == "claim"


def test_what_is_missing_is_reported_outside_too() -> None:
    walk = Walk()
    walk.go(opening=CLOSED)
    walk.go(Again(None, "no such Deployment"), opening=CLOSED)
    assert walk.status.reason == "Preflight"


def test_a_plan_whose_window_is_over_is_refused() -> None:
    walk = Walk()
    walk.go(opening=OVER)
    walk.go(Done(), opening=OVER)
    assert (walk.status.phase, walk.status.reason) == (Phase.REFUSED, "WindowOver")


def test_a_weight_in_effect_is_kept_and_judged_until_the_next_may_begin() -> None:
    walk = begun()
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    assert walk.go(opening=CLOSED) == "do shift 0"
    assert walk.go(Done(), opening=CLOSED) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.WAITING, "OutsideWindow")
    assert walk.status.steps[1].state is StepState.WAITING
    assert walk.turn.look_again is not None
    assert walk.turn.look_again <= timedelta(hours=2) - timedelta(minutes=1)
    saved = walk.status
    walk.now += timedelta(minutes=30)
    assert walk.go(opening=CLOSED) == "do shift 0"
    assert walk.go(Done(), opening=CLOSED) == ""
    assert walk.status == saved, "nothing new, so nothing is written"
    walk.now += timedelta(hours=3)  # longer than the step's timeout
    assert walk.go() == "do shift 0"
    assert walk.go(Done()) == "do shift 1"
    assert walk.status.phase is Phase.RUNNING


def test_a_step_is_announced_and_waits() -> None:
    walk = begun()
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    walk.go()
    assert walk.go(Done()) == "do shift 1"
    assert walk.go(Done(), opening=CLOSED) == ""
    assert walk.status.current is not None
    assert (walk.status.current.step, walk.status.current.not_started) == ("look", True)
    walk.now += timedelta(hours=2)
    assert walk.go() == "do look 0"
    assert walk.status.current.started_at == walk.now
    assert not walk.status.current.not_started


def test_paused_and_resumed_it_still_waits() -> None:
    walk = begun()
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    walk.go()
    walk.go(Done())
    walk.go(Done(), opening=CLOSED)
    walk.go(opening=CLOSED, suspended=True)
    assert walk.status.phase is Phase.PAUSED
    assert walk.go(opening=CLOSED) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.WAITING, "OutsideWindow")


def test_a_step_fails_when_no_window_is_left() -> None:
    walk = begun()
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    walk.go()
    assert walk.go(Done(), opening=OVER).startswith("undo shift")
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "WindowOver"


CLEANING = replace(
    RULES,
    steps=(
        RULES.steps[0],
        replace(RULES.steps[1], stages=(*RULES.steps[1].stages, StageRule("tidy up", weight=100, cleanup=True))),
        RULES.steps[2],
    ),
)
"""The second step ends with a stage that only cleans up."""


@pytest.mark.parametrize("outside", [CLOSED, OVER])
def test_a_stage_that_only_cleans_up_waits_for_no_window(outside: Opening) -> None:
    walk = Walk(CLEANING).to("shift", 1)
    assert walk.go(Done(), opening=outside) == "do shift 2"
    assert walk.status.phase is Phase.RUNNING
    assert walk.status.current is not None
    assert not walk.status.current.not_started
    said = walk.go(Done(skip=True), opening=outside)
    assert (said, walk.status.reason) == (("", "OutsideWindow") if outside is CLOSED else ("undo shift", "WindowOver"))
    assert walk.status.steps[2].state is not StepState.PENDING, "the step is done, and it is the next one that waits"


def test_one_that_waited_already_continues() -> None:
    """As another version of this program has saved it."""
    walk = Walk().to("shift")
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    walk.go(Done(), opening=CLOSED)
    assert walk.status.steps[1].state is StepState.WAITING
    stages = (RULES.steps[1].stages[0], StageRule("tidy up", weight=100, cleanup=True))
    walk.rules = replace(RULES, steps=(RULES.steps[0], replace(RULES.steps[1], stages=stages), RULES.steps[2]))
    assert walk.go(opening=CLOSED) == "do shift 0"
    assert walk.go(Done(), opening=CLOSED) == "do shift 1"
    assert (walk.status.phase, walk.status.steps[1].state) == (Phase.RUNNING, StepState.DOING)


def test_paused_and_announced_what_only_cleans_up_is_not_done_until_the_plan_continues() -> None:
    walk = Walk(CLEANING).to("shift", 1)
    assert walk.go(Done(), opening=OVER) == "do shift 2"
    assert walk.go(opening=OVER, suspended=True) == ""
    assert walk.is_(Phase.PAUSED)
    walk.now += timedelta(hours=1)
    assert walk.go(opening=OVER, suspended=True) == ""
    assert walk.go(opening=OVER) == "do shift 2"
    assert walk.is_(Phase.RUNNING)


@pytest.mark.parametrize(
    ("stop", "go_on"),
    [
        ({"suspended": True}, {}),
        ({"requests": (Request(RequestVerb.PAUSE, "1"),)}, {"requests": (Request(RequestVerb.RESUME, "2"),)}),
    ],
    ids=["suspended", "held"],
)
def test_who_stops_a_plan_keeps_what_only_the_next_stage_takes_away(
    stop: dict[str, Any], go_on: dict[str, Any]
) -> None:
    walk = Walk(CLEANING).to("shift", 1)
    assert walk.go(Again(1.0, "not yet")) == ""
    assert walk.go(opening=OVER, **stop) == ""
    assert walk.go(Done(), opening=OVER, **stop) == "", "a late answer"
    assert walk.status.phase is Phase.PAUSED
    assert walk.go(opening=OVER, **go_on) == "do shift 1"
    assert walk.go(Done(), opening=OVER) == "do shift 2"


def test_a_rollback_never_waits() -> None:
    walk = begun()
    assert walk.go(deleted_at=NOW, opening=OVER).startswith("undo")
    assert walk.turn.command is not None
    assert walk.turn.command.verb is Verb.UNDO
