"""Sentences of the design about time, retries, guards and the point of no return: each with the case that would break it."""

from __future__ import annotations

import ast
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from cutover import saga
from cutover.saga.turn import Again, Done, Failed, OnFailure, Outcome, Wait
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import Phase, Verdict
from saga.test_saga import NOW, RULES, Walk, gate

DEPLOY, SHIFT, LOOK = RULES.steps
PAUSE, RESUME = Request(RequestVerb.PAUSE, "1"), Request(RequestVerb.RESUME, "2")


def test_the_saga_awaits_nothing_and_reads_no_clock() -> None:
    """That it imports nothing of the outside, and no kind, is a contract in pyproject.toml."""
    files = list(Path(saga.__file__).parent.glob("*.py"))
    assert len(files) > 5
    for node in (node for file in files for node in ast.walk(ast.parse(file.read_text()))):
        assert not isinstance(node, ast.AsyncFunctionDef | ast.Await)
        called = node.func if isinstance(node, ast.Call) else None
        assert not (
            isinstance(called, ast.Attribute) and called.attr in ("now", "utcnow", "today", "monotonic", "time")
        )


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ({"requests": (Request(RequestVerb.ABORT, "1"),)}, "Aborted"),
        ({"deleted_at": NOW}, "Deleted"),
        ({"guards": (gate(Verdict.FAIL, guard=True),)}, "GuardFailed"),
        ({}, "TimedOut"),
    ],
    ids=["abort", "deletion", "guard", "timeout"],
)
@pytest.mark.parametrize(
    "answer",
    [Done(), Again(5.0, "1/3 pods are ready"), Failed("Rejected", "no"), Wait("AwaitingApproval", "go?")],
    ids=["it is done", "it is not ready", "another attempt is left", "a person is asked"],
)
def test_what_rolls_back_is_judged_before_the_current_step(
    what: dict[str, object], reason: str, answer: Outcome
) -> None:
    walk = Walk(replace(RULES, steps=(replace(DEPLOY, retries=1), SHIFT, LOOK))).to("deploy")
    walk.now += timedelta(hours=2) if reason == "TimedOut" else timedelta()
    assert walk.go(answer, **what) == "undo deploy"
    assert walk.status.failure is not None
    assert (walk.status.phase, walk.status.failure.reason) == (Phase.ROLLING_BACK, reason)


@pytest.mark.parametrize("stopped", [{"suspended": True}, {"requests": (PAUSE,)}], ids=["suspended", "held"])
def test_while_the_plan_is_paused_guards_are_evaluated_if_the_traffic_is_split(stopped: dict[str, object]) -> None:
    fails = (gate(Verdict.FAIL, guard=True),)
    for split in (False, True):
        walk = Walk().to("shift" if split else "deploy")
        walk.go(**stopped)  # type: ignore[arg-type]
        assert walk.go(**stopped, guards=fails) == ("undo shift" if split else "")  # type: ignore[arg-type]
        assert walk.is_(Phase.ROLLING_BACK if split else Phase.PAUSED)


def test_all_clocks_stop_while_suspended() -> None:
    shift = replace(SHIFT, timeout=timedelta(minutes=30))
    walk = Walk(replace(RULES, steps=(DEPLOY, shift, LOOK))).to("shift")
    walk.go(Done())
    walk.now += timedelta(seconds=20)
    walk.go(suspended=True)
    assert walk.is_(Phase.PAUSED)
    walk.now += timedelta(hours=3)
    assert walk.go(suspended=True) == ""
    assert walk.go() == "do shift 0"
    assert walk.go(Done()) == "", "neither the plan nor the stage is out of time"
    assert walk.turn.look_again == timedelta(seconds=40), "and it dwells for the rest"


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize("policy", list(OnFailure))
def test_a_failed_gate_follows_its_policy_and_is_never_retried(retries: int, policy: OnFailure) -> None:
    shift = replace(SHIFT, retries=retries, on_failure=policy)
    walk = Walk(replace(RULES, steps=(DEPLOY, shift, LOOK))).to("shift", 1)
    said = walk.go(gates=(gate(Verdict.FAIL),))
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "GateFailed"
    if policy is OnFailure.PAUSE:
        assert (said, walk.status.phase, walk.states) == ("", Phase.PAUSED, "Done Failed Pending")
    else:
        assert (said, walk.status.phase, walk.states) == ("undo shift", Phase.ROLLING_BACK, "Done Undoing Pending")
    assert walk.status.steps[1].attempt == 1


def test_a_failed_guard_is_never_retried() -> None:
    shift = replace(SHIFT, retries=2)
    walk = Walk(replace(RULES, steps=(DEPLOY, shift, LOOK))).to("shift", 1)
    assert walk.go(guards=(gate(Verdict.FAIL, guard=True),)) == "undo shift"
    assert (walk.status.phase, walk.status.steps[1].attempt) == (Phase.ROLLING_BACK, 1)


def test_an_attempt_is_undone_before_the_next_one() -> None:
    walk = Walk(replace(RULES, steps=(replace(DEPLOY, retries=1), SHIFT, LOOK))).to("deploy")
    said = [walk.go(Failed("JobFailed", "exit 1")), walk.go(Done()), walk.go(Failed("JobFailed", "exit 1"))]
    assert said == ["undo deploy", "do deploy 0", "undo deploy"]
    assert (walk.status.phase, walk.status.steps[0].attempt) == (Phase.ROLLING_BACK, 2), "there is no third one"


def test_an_attempt_that_could_not_be_undone_is_undone_again_on_request() -> None:
    """Under a higher fence, and with all of its time: the undo of a kind says that it took too long by when it began."""
    walk = Walk(replace(RULES, steps=(replace(DEPLOY, retries=1), SHIFT, LOOK))).to("deploy")
    walk.go(Failed("JobFailed", "exit 1"))
    walk.go(Wait("NotBackYet", "0/3 pods are ready"))
    assert walk.is_(Phase.PAUSED)
    assert walk.status.run is not None
    fence = walk.status.run.fence
    walk.now += timedelta(hours=1)
    assert walk.go(requests=(Request(RequestVerb.RETRY, "1"),)) == "undo deploy"
    assert walk.status.run.fence == fence + 1
    assert walk.status.current is not None
    assert walk.status.current.started_at == walk.now


@pytest.mark.parametrize("held", [False, True])
def test_guards_after_the_point_of_no_return_pause(held: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    walk = Walk(replace(RULES, steps=(replace(DEPLOY, irreversible=True), SHIFT, LOOK))).to("shift")
    walk.go(Done())
    if held:
        walk.go(requests=(PAUSE,))
    assert walk.go(requests=(PAUSE,) if held else (), guards=(gate(Verdict.FAIL, guard=True),)) == ""
    assert walk.is_(Phase.PAUSED)
    assert walk.states == "Done Doing Pending"


def test_guards_are_not_evaluated_while_rolling_back() -> None:
    walk = Walk().to("shift", 1)
    walk.go(gates=(gate(Verdict.FAIL),))
    failed = walk.status.failure
    assert walk.go(guards=(gate(Verdict.FAIL, guard=True),)) == "undo shift"
    assert walk.status.failure == failed


def test_suspend_stops_new_stages_and_no_undo() -> None:
    walk = Walk().to("shift", 1)
    walk.go(gates=(gate(Verdict.FAIL),))
    assert walk.go(Done(), suspended=True) == "undo deploy"
    assert walk.go(Done(), suspended=True) == "release"


def test_the_timeout_of_the_plan_counts_running_only() -> None:
    steps = (replace(DEPLOY, timeout=None), SHIFT, LOOK)
    walk = Walk(replace(RULES, steps=steps)).to("deploy")  # the plan's timeout is an hour
    walk.now += timedelta(minutes=40)  # two have passed before
    walk.go(requests=(PAUSE,))
    walk.now += timedelta(hours=5)
    walk.go(requests=(PAUSE, RESUME))
    walk.now += timedelta(minutes=17)
    assert walk.go() == "do deploy 0"
    walk.go(Wait("Somebody", "is asked"))
    assert walk.is_(Phase.WAITING)
    walk.now += timedelta(hours=5)
    assert walk.go(Done()) == "do shift 0"
    walk.now += timedelta(minutes=2)
    assert walk.go().startswith("undo")
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "TimedOut"


def test_the_timeout_of_a_step_bounds_a_stage_beyond_its_dwell() -> None:
    stages = tuple(replace(stage, dwell=timedelta(hours=2)) for stage in SHIFT.stages)
    shift = replace(SHIFT, stages=stages, timeout=timedelta(minutes=30))
    walk = Walk(replace(RULES, timeout=None, steps=(DEPLOY, shift, LOOK))).to("shift")
    walk.go(Done())
    walk.now += timedelta(hours=2, minutes=29)
    assert walk.go(Done(), gates=(gate(Verdict.WAIT),)) == ""
    assert walk.is_(Phase.RUNNING)
    walk.now += timedelta(minutes=1)
    assert walk.go().startswith("undo")
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "StageTimedOut"


def test_one_step_done_and_the_next_one_begun_is_one_save() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Done()) == "do shift 0"
    assert walk.states == "Done Doing Pending"


def test_an_undo_that_cannot_continue_keeps_all_earlier_ones_waiting() -> None:
    """Only one whose object is gone is passed over; its kind says that it is done."""
    for outcome in (Wait("AccountUnusable", "no"), Failed("Rejected", "no")):
        walk = Walk().to("shift")
        walk.go(gates=(gate(Verdict.FAIL),))
        for _ in range(3):
            assert walk.go(outcome) == ""
            assert walk.is_(Phase.STUCK)
            assert walk.states == "Done Undoing Pending"
            walk.now += timedelta(minutes=1)
            assert walk.go() == "undo shift"
