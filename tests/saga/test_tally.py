"""What is kept of gates and guards once their stage is over."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from cutover.saga.draft import Draft
from cutover.saga.tables import StepEvent
from cutover.saga.tally import REMEMBERED, _record_comparisons
from cutover.saga.turn import Done, Inputs, Opening
from cutover.saga.unreadable_spec import unreadable
from cutover.status.report import RunTally
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import GateStatus, Phase, Status, StepState, Verdict
from saga.test_saga import NOW, RULES, Walk

CLOSED = Opening(open=False, opens_at=NOW + timedelta(hours=2))
PASS = GateStatus(name="errors", verdict=Verdict.PASS, message="0.1 is <= 0.5")
WAIT = replace(PASS, verdict=Verdict.WAIT)
GUARD = replace(PASS, name="budget", guard=True)


def seen(walk: Walk) -> RunTally:
    return walk.status.tally or RunTally()


def test_a_stage_that_waits_for_a_window_is_counted_when_it_ends() -> None:
    walk = Walk().to("shift")
    before = seen(walk)
    walk.go(Done())
    walk.now += timedelta(minutes=1)
    for _ in range(3):
        walk.go(opening=CLOSED)
        walk.go(Done(), opening=CLOSED, gates=(PASS, PASS), guards=(GUARD,))
        assert seen(walk) == before
        walk.now += timedelta(minutes=30)
    walk.go()
    assert walk.go(Done(), gates=(PASS, PASS), guards=(GUARD,)) == "do shift 1"
    assert (seen(walk).gates_passed, seen(walk).guarded_stages) == (2, 1)


def test_a_stage_without_anything_to_do_was_not_judged() -> None:
    walk = Walk().to("shift")
    assert walk.go(Done(skip=True), gates=(PASS,), guards=(GUARD,)) == "do shift 1"
    assert (seen(walk).gates_passed, seen(walk).guarded_stages) == (0, 0)


@pytest.mark.parametrize(
    ("first", "last", "judged"),
    [
        ((PASS, PASS), (PASS, PASS), True),
        ((WAIT, PASS), (WAIT, PASS), False),
        ((PASS, PASS), (WAIT, PASS), False),
        ((PASS, PASS), None, True),
        (None, (PASS, PASS), True),
        (None, None, False),
    ],
)
def test_a_step_is_judged_when_each_gate_passed_where_it_was_looked_at_last(
    first: tuple[GateStatus, ...] | None,
    last: tuple[GateStatus, ...] | None,
    judged: bool,  # noqa: FBT001
) -> None:
    """None: in that stage there was nothing to do."""
    walk = Walk().to("shift")
    skip = Request(RequestVerb.SKIP, "t", "alice", "shift")
    for stage, gates in enumerate((first, last)):
        if gates is not None and stage == 0:
            walk.go(Done(), gates=gates)  # it dwells
            walk.now += timedelta(minutes=1)
        asked = (skip,) if gates and WAIT in gates else ()
        walk.go(Done(skip=gates is None), gates=gates or (), requests=asked)
    assert walk.states == "Done Done Doing"
    assert walk.status.steps[1].gates_passed is judged


def test_a_new_attempt_is_judged_again() -> None:
    steps = tuple(replace(step, state=StepState.PENDING, gates_passed=True) for step in Walk().to("shift").status.steps)
    draft = Draft(RULES, Status(steps=steps), Inputs(), NOW)
    draft.step_event(1, StepEvent.START)
    assert [step.gates_passed for step in draft.status.steps] == [True, False, True]


def test_the_last_stage_of_a_step_counts_too() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Done(), gates=(PASS,)) == "do shift 0"
    assert (seen(walk).gates_passed, seen(walk).steps_done, seen(walk).guarded_stages) == (1, 1, 0)


def test_of_skipped_gates_those_that_passed_have_passed() -> None:
    walk = Walk().to("deploy")
    skip = Request(RequestVerb.SKIP, "t", "alice", "deploy")
    assert walk.go(Done(), gates=(PASS, WAIT, WAIT), requests=(skip,)) == "do shift 0"
    assert (seen(walk).gates_passed, seen(walk).gates_skipped) == (1, 2)


def test_of_comparisons_the_last_word_counts_and_the_latest_are_kept() -> None:
    walk = Walk().to("shift")
    many = tuple(replace(PASS, name=f"gate-{at}", compared=True) for at in range(REMEMBERED))
    walk.go(Done(), gates=(*many, PASS))
    walk.now += timedelta(minutes=1)
    assert walk.go(Done(), gates=(*many, PASS)) == "do shift 1"
    assert [one.gate for one in seen(walk).comparisons] == [gate.name for gate in many]
    other = replace(GUARD, compared=True, message="1 is <= 2")
    again = replace(many[3], message="0.3 is <= 0.5")
    assert walk.go(Done(), gates=(again,), guards=(other,)) == "do look 0"
    kept = seen(walk).comparisons
    assert len(kept) == REMEMBERED
    assert [(one.step, one.gate, one.message) for one in kept[-2:]] == [
        ("shift", "gate-3", "0.3 is <= 0.5"),
        ("", "budget", "1 is <= 2"),
    ]
    assert [one.gate for one in kept].count("gate-3") == 1


def test_a_comparison_that_failed_is_not_pushed_out_by_those_that_passed() -> None:
    walk = Walk().to("shift")
    slow = replace(PASS, name="slow", compared=True, message="9, must be <= 0.5")
    walk.go(gates=(replace(slow, verdict=Verdict.FAIL),))
    many = [replace(PASS, name=f"gate-{at}", compared=True) for at in range(REMEMBERED)]
    _record_comparisons(draft := Draft(RULES, walk.status, Inputs(), walk.now), many)
    kept = draft.tally.comparisons
    assert len(kept) == REMEMBERED
    assert [one.gate for one in kept if not one.passed] == ["slow"]
    _record_comparisons(draft, [slow])
    assert all(one.passed for one in draft.tally.comparisons), "its last word counts"


@pytest.mark.parametrize("verdict", [Verdict.WAIT, Verdict.FAIL])
def test_a_comparison_that_was_skipped_has_not_passed_because_it_did_in_an_earlier_stage(verdict: Verdict) -> None:
    walk = Walk().to("shift")
    slow = replace(PASS, compared=True)
    walk.go(Done(), gates=(slow,))
    walk.now += timedelta(minutes=1)
    walk.go(Done(), gates=(slow,))
    assert [one.passed for one in seen(walk).comparisons] == [True]
    skip = Request(RequestVerb.SKIP, "t", "alice", "shift")
    assert walk.go(Done(), gates=(replace(slow, verdict=verdict),), requests=(skip,)) == "do look 0"
    assert [one.passed for one in seen(walk).comparisons] == ([] if verdict is Verdict.WAIT else [False])


@pytest.mark.parametrize("guard", [False, True])
def test_what_has_failed_is_kept(guard: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    walk = Walk().to("shift")
    failed = replace(PASS, verdict=Verdict.FAIL, compared=True, guard=guard, message="9, must be <= 0.5")
    walk.go(gates=() if guard else (failed,), guards=(failed,) if guard else ())
    assert walk.status.failure is not None
    (kept,) = seen(walk).comparisons
    assert (kept.step, kept.passed, kept.message) == ("" if guard else "shift", False, "9, must be <= 0.5")
    assert seen(walk).failed_guard == ("guard errors failed: 9, must be <= 0.5" if guard else "")
    assert seen(walk).gates_failed == (0 if guard else 1)


def test_each_pause_counts_no_matter_its_cause() -> None:
    walk = Walk().to("shift")
    walk.go(suspended=True)
    assert seen(walk).pauses == 1
    walk.go()
    walk.go(requests=(Request(RequestVerb.PAUSE, "t"),))
    assert seen(walk).pauses == 2
    walk.go(requests=(Request(RequestVerb.RESUME, "t"),))
    assert walk.is_(Phase.RUNNING)
    turn = unreadable(walk.status, "no such field", Inputs(), walk.now)
    assert turn.status.phase is Phase.PAUSED
    assert (turn.status.tally or RunTally()).pauses == 3
