"""The saga alone: one line a case. Status in, status and command out; no I/O, no clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cutover.saga import advance
from cutover.saga.turn import (
    Again,
    Done,
    Failed,
    Inputs,
    Outcome,
    Pause,
    Rules,
    StageRule,
    StepRule,
    Turn,
    Verb,
    Wait,
)
from cutover.saga.unreadable_spec import unreadable
from cutover.status.durable import durable_part
from cutover.status.requests import Answer, Request, RequestVerb
from cutover.status.status import GateStatus, Phase, Status, Verdict

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
RULES = Rules(
    steps=(
        StepRule("deploy", "deploy", (StageRule("roll out"),), timedelta(minutes=30)),
        StepRule(
            "shift",
            "traffic",
            (StageRule("weight 10", timedelta(minutes=1), weight=10), StageRule("weight 100", weight=100)),
        ),
        StepRule("look", "check", (StageRule("watch"),), undoes=False),
    ),
    generation=1,
    spec_hash="h",
    start_deadline=timedelta(minutes=2),
    timeout=timedelta(hours=1),
)


class Walk:
    """A plan in memory, driven by outcomes alone."""

    def __init__(self, rules: Rules = RULES) -> None:
        self.rules, self.status, self.now = rules, Status(), NOW
        self.turn = Turn(Status())
        self.held = False

    def go(self, outcome: Outcome | None = None, **inputs: object) -> str:
        """One call; the command as text."""
        answered = self.turn.command.verb if outcome is not None and self.turn.command else None
        given = Inputs(outcome=outcome, last_command=answered, has_finalizer=self.held, **inputs)  # type: ignore[arg-type]
        self.turn = advance(self.rules, self.status, given, self.now)
        self.status = self.turn.status
        command = self.turn.command
        if command is None:
            return ""
        if command.verb is Verb.REMOVE_FINALIZER:
            self.held = False
        if command.verb is Verb.CLAIM:
            self.held = True
        step = f" {self.rules.steps[command.step].name}" if command.step >= 0 else ""
        return f"{command.verb}{step}{f' {command.stage}' if command.stage >= 0 else ''}"

    def to(self, step: str, stage: int = 0) -> Walk:
        """Forward, everything going well, until a stage is announced."""
        said = self.go()
        for _ in range(50):
            if said == f"do {step} {stage}":
                return self
            self.now += timedelta(minutes=1)
            said = self.go(Done()) or self.go()
        raise AssertionError(f"never came to {step} {stage}: {said}")

    def is_(self, phase: Phase) -> bool:
        return self.status.phase is phase

    @property
    def states(self) -> str:
        return " ".join(step.state for step in self.status.steps)


def gate(verdict: Verdict, *, guard: bool = False) -> GateStatus:
    return GateStatus(name="errors", verdict=verdict, message="0.9, must be <= 0.5", guard=guard)


# --- what done steps have left, and is looked after ---------------------------------------------------------------------


def looked_after() -> Walk:
    """The rollout is done and looked after; the first weight is announced."""
    rules = replace(RULES, steps=(replace(RULES.steps[0], enforced=True), *RULES.steps[1:]))
    walk = Walk(rules).to("shift")
    assert walk.go(Again(5.0, "not all routes")) == ""
    assert walk.go(to_restore=True) == "enforce"
    return walk


def test_what_a_done_step_has_left_and_is_lost_rolls_the_plan_back() -> None:
    walk = looked_after()
    assert walk.go(Failed("TargetGone", "shop-v2 is gone")) == "undo shift"
    assert walk.status.failure is not None
    assert (walk.status.failure.reason, walk.status.failure.message) == ("TargetGone", "shop-v2 is gone")


def test_what_a_done_step_has_left_is_looked_at_again_in_its_time() -> None:
    walk = looked_after()
    for _ in range(2):
        assert walk.go(Again(7.0, "something is put back")) == "", "nothing builds on it meanwhile"
        assert walk.turn.look_again == timedelta(seconds=7)
        assert walk.go(to_restore=True) == "enforce"
    assert walk.go(Done()) == "do shift 0"
    assert walk.go(ask_again=timedelta(seconds=3)) == "do shift 0"
    walk.go(Again(60.0, "not all routes"), ask_again=timedelta(seconds=3))
    assert walk.turn.look_again == timedelta(seconds=3)


def test_a_stage_is_over_only_when_all_that_is_done_stands() -> None:
    walk = looked_after()
    assert walk.go(Done()) == "do shift 0"
    walk.now += timedelta(minutes=5)
    assert walk.go(Done(), to_restore=True) == "enforce"
    assert walk.go(Done()) == "do shift 0"
    assert walk.go(Done(), target_problem=Pause("ForeignChange", "spec.replicas is 1")) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.PAUSED, "ForeignChange")


def at_its_end() -> Walk:
    """All steps are done, and the release is announced."""
    walk, said = Walk(), ""
    while said != "release":
        walk.now += timedelta(minutes=2)
        said = walk.go(Done()) or walk.go()
    return walk


def test_a_release_waits_until_all_that_is_done_stands() -> None:
    walk = at_its_end()
    assert walk.go(Again(0.0, "something has changed")) == ""
    assert walk.go(to_restore=True) == "enforce"
    assert walk.go(Done()) == "release"
    assert walk.go(Again(0.0, "something has changed")) == ""
    assert walk.go(target_problem=Pause("ForeignChange", "spec.replicas is 1")) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.PAUSED, "ForeignChange")
    assert walk.go(requests=(Request(RequestVerb.RESUME, "1"),)) == "enforce", "what differs is set again"
    assert walk.go(Done()) == "release"
    walk.go(Done())
    assert walk.is_(Phase.SUCCEEDED)


def test_a_target_that_is_gone_at_the_very_end_rolls_back() -> None:
    walk = at_its_end()
    assert walk.go(target_problem=Failed("TargetGone", "shop-v2 is gone")) == "undo shift"
    assert walk.is_(Phase.ROLLING_BACK)


@pytest.mark.parametrize("problem", [Failed("TargetGone", "shop-v2 is gone"), Pause("ForeignChange", "replicas is 1")])
def test_who_abandons_a_release_of_what_no_longer_stands_gets_no_success(problem: Failed | Pause) -> None:
    walk = at_its_end()
    walk.go(target_problem=problem, requests=(Request(RequestVerb.ABANDON, "1"),))
    assert walk.is_(Phase.ABANDONED)


@pytest.mark.parametrize("answer", [Done(), Again(7.0, "something is put back")])
def test_a_guard_is_evaluated_also_while_done_steps_are_enforced(answer: Outcome) -> None:
    walk = looked_after()
    assert walk.go(answer, guards=(gate(Verdict.FAIL, guard=True),)) == "undo shift"
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "GuardFailed"


# --- what a step makes --------------------------------------------------------------------------------------------------


def test_what_is_made_is_saved_before_the_command_comes_again() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Again(0.0, "it is made", made="uid-1")) == ""
    assert walk.turn.look_again == timedelta()
    assert walk.status.steps[0].made == "uid-1"
    assert durable_part(walk.status).steps[0].made == "uid-1", "worth a save of its own"
    assert walk.go() == "do deploy 0"
    walk.go(Again(5.0, "it runs"))
    assert walk.status.steps[0].made == "uid-1"
    walk.go(Failed("JobFailed", "exit 1"))
    assert walk.go(Again(0.0, "its undo is made", made="uid-1 uid-2")) == ""
    assert walk.status.steps[0].made == "uid-1 uid-2"


def test_another_attempt_has_made_nothing() -> None:
    rules = replace(RULES, steps=(replace(RULES.steps[0], retries=1), *RULES.steps[1:]))
    walk = Walk(rules).to("deploy")
    walk.go(Again(0.0, "it is made", made="uid-1"))
    walk.go()
    assert walk.go(Failed("JobFailed", "exit 1")) == "undo deploy"
    assert walk.status.steps[0].made == "uid-1", "the undo needs it"
    walk.go(Again(0.0, "its undo is made", made="uid-1 uid-2"))
    assert walk.status.steps[0].made == "uid-1 uid-2"
    walk.go()
    assert walk.go(Done()) == "do deploy 0"
    assert (walk.status.steps[0].attempt, walk.status.steps[0].made) == (2, "")


# --- forward ------------------------------------------------------------------------------------------------------------


def test_the_way_forward() -> None:
    walk = Walk()
    said = [walk.go()]
    for _ in range(6):
        walk.now += timedelta(minutes=2)
        said.append(walk.go(Done()) or walk.go())
    while not walk.is_(Phase.SUCCEEDED):
        walk.now += timedelta(minutes=2)
        said.append(walk.go(Done()) or walk.go(Done()))
    assert [line for line in said if line.startswith("do")] == [
        "do deploy 0",
        "do shift 0",
        "do shift 0",
        "do shift 1",
        "do look 0",
    ]
    assert walk.states == "Done Done Done"


def test_a_command_comes_again_until_its_outcome() -> None:
    walk = Walk().to("deploy")
    assert [walk.go() for _ in range(3)] == ["do deploy 0"] * 3


def test_the_same_command_after_a_restart() -> None:
    walk = Walk().to("shift", 1)
    walk.status = durable_part(walk.status)
    fence = walk.status.run.fence  # type: ignore[union-attr]
    assert walk.go(new_process=True) == "do shift 1"
    assert walk.status.run.fence == fence + 1  # type: ignore[union-attr]


def test_the_fence_rises_before_each_step_and_each_undo() -> None:
    walk = Walk()
    seen = []
    for step in ("deploy", "shift", "look"):
        walk.to(step)
        seen.append(walk.status.run.fence)  # type: ignore[union-attr]
    walk.go(gates=(gate(Verdict.FAIL),))
    seen.append(walk.status.run.fence)  # type: ignore[union-attr]
    walk.go(Done())
    seen.append(walk.status.run.fence)  # type: ignore[union-attr]
    assert seen == sorted(set(seen))


def test_dwell_is_kept() -> None:
    walk = Walk().to("shift")
    assert walk.go(Done()) == ""
    assert walk.turn.look_again == timedelta(minutes=1)
    walk.now += timedelta(seconds=59)
    assert walk.go(Done()) == ""
    walk.now += timedelta(seconds=1)
    assert walk.go(Done()) == "do shift 1"


def test_a_waiting_gate_keeps_the_stage() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Done(), gates=(gate(Verdict.WAIT),)) == ""
    assert walk.states == "Doing Pending Pending"
    assert walk.go(Done(), gates=(gate(Verdict.PASS),)) == "do shift 0"


def test_a_guard_without_data_blocks_the_next_stage_and_fails_nothing() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Done(), guards=(gate(Verdict.WAIT, guard=True),)) == ""
    assert walk.is_(Phase.RUNNING)


def test_a_skipped_stage_neither_dwells_nor_is_judged() -> None:
    walk = Walk().to("shift")
    assert walk.go(Done(skip=True)) == "do shift 1"


def test_again_says_when() -> None:
    walk = Walk().to("deploy")
    assert walk.go(Again(7.0, "2/3 pods are ready", "2/3")) == ""
    assert walk.turn.look_again == timedelta(seconds=7)
    assert walk.status.current.ready == "2/3"  # type: ignore[union-attr]


# --- turning back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({"gates": (gate(Verdict.FAIL),)}, "GateFailed"),
        ({"guards": (gate(Verdict.FAIL, guard=True),)}, "GuardFailed"),
        ({"deleted_at": NOW}, "Deleted"),
        ({"requests": (Request(RequestVerb.ABORT, "t", "alice"),)}, "Aborted"),
        ({"outcome": Failed("Rejected", "no")}, "Rejected"),
    ],
)
def test_what_rolls_back(inputs: dict[str, object], reason: str) -> None:
    walk = Walk().to("shift", 1)
    assert walk.go(**inputs) == "undo shift"  # type: ignore[arg-type]
    assert walk.status.failure.reason == reason  # type: ignore[union-attr]
    assert walk.states == "Done Undoing Pending"
    assert walk.go(Done()) == "undo deploy"
    assert walk.go(Done()) == "release"
    assert walk.go(Done()) == "remove finalizer"
    assert walk.is_(Phase.ROLLED_BACK)
    assert walk.states == "Undone Undone Pending"


def test_what_changes_nothing_is_undone_without_a_command() -> None:
    walk = Walk().to("look")
    assert walk.go(gates=(gate(Verdict.FAIL),)) == "undo shift"
    assert walk.states == "Done Undoing Undone"


def test_the_plan_timeout_counts_running_only() -> None:
    walk = Walk().to("deploy")
    walk.go(requests=(Request(RequestVerb.PAUSE, "1"),))
    walk.now += timedelta(hours=5)
    assert walk.go() == ""
    walk.go(requests=(Request(RequestVerb.PAUSE, "1"), Request(RequestVerb.RESUME, "2")))
    assert walk.is_(Phase.RUNNING)
    walk.now += timedelta(minutes=29)
    assert walk.go() == "do deploy 0"
    walk.now += timedelta(minutes=2)
    assert walk.go() == "undo deploy"
    assert walk.status.failure.reason == "StageTimedOut"  # type: ignore[union-attr]


def test_an_undo_that_cannot_continue_is_stuck_and_recovers() -> None:
    walk = Walk().to("shift")
    walk.go(gates=(gate(Verdict.FAIL),))
    assert walk.go(Wait("ForeignChange", "weight is 7")) == ""
    assert walk.is_(Phase.STUCK)
    assert walk.turn.look_again == timedelta(minutes=1)
    assert walk.go() == "undo shift"
    assert walk.go(Done()) == "undo deploy"
    assert walk.is_(Phase.ROLLING_BACK)


def test_abort_is_judged_before_everything() -> None:
    walk = Walk().to("shift", 1)
    abort, hold = Request(RequestVerb.ABORT, "1"), Request(RequestVerb.PAUSE, "2")
    assert walk.go(requests=(abort, hold), suspended=True) == "undo shift"
    answers = {record.verb: record.answer for record in walk.status.requests}
    assert answers == {"abort": Answer.ACCEPTED, "pause": Answer.REJECTED}


def test_no_abort_once_it_releases() -> None:
    walk = Walk().to("look")
    assert walk.go(Done()) == "release"
    assert walk.go(requests=(Request(RequestVerb.ABORT, "1"),)) == "release"
    assert walk.status.requests[-1].answer is Answer.REJECTED


# --- people -------------------------------------------------------------------------------------------------------------


def test_a_token_is_handled_once() -> None:
    walk = Walk().to("deploy")
    hold, resume = Request(RequestVerb.PAUSE, "1"), Request(RequestVerb.RESUME, "1")
    walk.go(requests=(hold,))
    assert walk.is_(Phase.PAUSED)
    walk.go(requests=(hold, resume))
    assert walk.is_(Phase.RUNNING)
    walk.go(requests=(hold, resume))
    assert walk.is_(Phase.RUNNING)


def test_requests_that_were_there_before_are_ignored() -> None:
    walk = Walk()
    assert walk.go(requests=(Request(RequestVerb.ABORT, "old"),)) == "examine"
    assert walk.status.requests[0].answer is Answer.IGNORED


def test_pause_while_pending_pauses_without_a_deadline() -> None:
    walk = Walk()
    walk.go()
    hold = Request(RequestVerb.PAUSE, "1")
    assert walk.go(Again(None, "no Deployment shop"), requests=(hold,)) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.PENDING, "PausedByPerson")
    walk.now += timedelta(hours=5)
    assert walk.go(requests=(hold,)) == ""
    assert walk.turn.look_again is None
    assert walk.go(requests=(hold, Request(RequestVerb.RESUME, "1"))) == "examine"
    walk.go(Again(None, "no Deployment shop"))
    assert walk.status.reason == "Preflight", "its time begins now"


def test_abort_while_pending_refuses_and_touches_nothing() -> None:
    walk = Walk()
    walk.go()
    assert walk.go(requests=(Request(RequestVerb.ABORT, "1", "alice"),)) == ""
    assert (walk.status.phase, walk.status.reason) == (Phase.REFUSED, "Aborted")
    assert walk.status.requests[-1].answer is Answer.ACCEPTED
    assert walk.states == "Pending Pending Pending"


ASKING = replace(
    RULES,
    steps=(RULES.steps[0], StepRule("ok", "approve", (StageRule("ask", needs_approval=True),), undoes=False)),
)


@pytest.mark.parametrize(
    ("step", "digest", "answer", "says"),
    [
        ("ok", "right", Answer.ACCEPTED, ""),
        ("ok", "", Answer.ACCEPTED, ""),
        ("ok", "sha256:0000", Answer.REJECTED, "which has digest=sha256:"),
        ("deploy", "right", Answer.REJECTED, "step ok waits for an approval, not deploy"),
        ("", "right", Answer.REJECTED, "add step=ok"),
    ],
)
def test_what_is_approved_is_what_waits(step: str, digest: str, answer: Answer, says: str) -> None:
    walk = Walk(ASKING).to("ok")
    walk.go(Wait("AwaitingApproval", "go?"))
    assert walk.is_(Phase.WAITING)
    current = walk.status.current
    assert current is not None
    assert current.digest.startswith("sha256:")
    given = current.digest if digest == "right" else digest
    walk.go(requests=(Request(RequestVerb.APPROVE, "1", "alice", step, given),))
    assert walk.status.requests[-1].answer is answer
    assert says in walk.status.requests[-1].message
    assert walk.status.current is not None
    assert walk.status.current.approved is (answer is Answer.ACCEPTED)


def test_a_busy_target_is_waited_for_without_a_deadline() -> None:
    walk = Walk()
    for _ in range(3):
        assert walk.go() == "examine"
        assert walk.go(Wait("TargetBusy", "Deployment shop is claimed by plan other")) == ""
        assert (walk.status.phase, walk.status.reason) == (Phase.PENDING, "TargetBusy")
        assert walk.turn.look_again == timedelta(seconds=30)
        walk.now += timedelta(hours=1)
    walk.go()
    walk.go(Again(None, "no Deployment shop"))
    assert walk.is_(Phase.PENDING), "only now what is missing has its deadline"
    walk.now += timedelta(minutes=2)
    walk.go()
    walk.go(Again(None, "no Deployment shop"))
    assert walk.is_(Phase.REFUSED)


def test_a_target_that_gets_busy_while_it_is_claimed_sends_the_plan_back() -> None:
    walk = Walk()
    walk.go()
    assert walk.go(Done()) == "claim"
    assert walk.go(Wait("TargetBusy", "Deployment shop is claimed by plan other")) == "remove finalizer"
    assert (walk.status.phase, walk.status.reason) == (Phase.PENDING, "TargetBusy")
    assert walk.turn.look_again == timedelta(seconds=30)


def test_pause_stops_the_dwell() -> None:
    walk = Walk().to("shift")
    walk.go(Done())
    walk.now += timedelta(seconds=30)
    hold = Request(RequestVerb.PAUSE, "1")
    walk.go(requests=(hold,))
    walk.now += timedelta(hours=3)
    walk.go(requests=(hold, Request(RequestVerb.RESUME, "1")))
    assert walk.go(Done()) == ""
    assert walk.turn.look_again == timedelta(seconds=30)


def test_deleted_before_the_first_step() -> None:
    walk = Walk()
    walk.go()
    assert walk.go(deleted_at=NOW) == ""
    assert walk.is_(Phase.REFUSED)


def test_what_is_missing_is_refused_after_the_deadline() -> None:
    walk = Walk()
    assert walk.go() == "examine"
    pauses = []
    while walk.is_(Phase.PENDING):
        walk.go(Again(None, "no Deployment shop"))
        if walk.turn.look_again is None:
            break
        pauses.append(walk.turn.look_again.total_seconds())
        walk.now += walk.turn.look_again
        walk.go()
    assert pauses[:5] == [1, 2, 4, 5, 5]
    assert sum(pauses) == 120
    assert walk.is_(Phase.REFUSED)
    assert walk.status.message == "no Deployment shop"


def test_an_unreadable_spec_pauses_and_continues() -> None:
    walk = Walk().to("shift")
    walk.status = unreadable(walk.status, "the CRD is older", Inputs(), walk.now).status
    assert (walk.status.phase, walk.status.reason) == (Phase.PAUSED, "UnreadableSpec")
    assert walk.go() == "do shift 0"


@pytest.mark.parametrize("why", ["failed", "held"])
def test_a_paused_plan_also_says_that_its_spec_cannot_be_read(why: str) -> None:
    walk = Walk().to("shift")
    if why == "held":
        walk.go(requests=(Request(RequestVerb.PAUSE, "1"),))
    else:
        walk.go(Pause("ForeignWriter", "somebody writes it too"))
    held = walk.status
    for _ in range(2):
        walk.status = unreadable(walk.status, "the CRD is older", Inputs(), walk.now).status
    assert walk.status.message == f"{held.message}; and the plan cannot continue with this spec: the CRD is older"
    assert (walk.status.phase, walk.status.reason) == (held.phase, held.reason)
    walk.go()
    assert walk.status.message == held.message


def test_what_is_asked_of_a_plan_whose_spec_cannot_be_read_is_answered_later() -> None:
    walk, abort = Walk().to("shift"), (Request(RequestVerb.ABORT, "1"),)
    for _ in range(2):
        walk.status = unreadable(walk.status, "the CRD is older", Inputs(requests=abort), walk.now).status
    assert (
        walk.status.message == "the CRD is older; abort will be answered as soon as the plan can continue with its spec"
    )
    assert walk.go(requests=abort) == "undo shift"


# --- while preflight may not look again yet ---------------------------------------------------------------------------

RESTS = Again(None, "", pause=60.0)


@pytest.mark.parametrize(
    ("found", "reason"),
    [(Again(None, "there is no ConfigMap", pause=60.0), "Preflight"), (Again(1.0, "no answer"), "Unanswered")],
)
def test_the_start_deadline_is_not_put_off_until_the_next_look(found: Outcome, reason: str) -> None:
    walk = Walk()
    assert walk.go() == "examine"
    walk.now += timedelta(seconds=90)
    walk.go()
    walk.go(found)
    assert walk.status.reason == reason
    walk.go()
    assert walk.go(RESTS) == ""
    assert walk.turn.look_again == timedelta(seconds=30), "when the deadline is due"
    walk.now += timedelta(seconds=30)
    walk.go()
    walk.go(RESTS)
    assert walk.is_(Phase.REFUSED)
    assert found.message in walk.status.message


def test_a_rest_before_anything_was_found_decides_nothing() -> None:
    walk = Walk()
    walk.now += timedelta(hours=1)
    walk.go()
    walk.now += timedelta(hours=1)
    walk.go()
    assert walk.go(RESTS) == ""
    assert (walk.status.phase, walk.turn.look_again) == (Phase.PENDING, timedelta(minutes=1))
