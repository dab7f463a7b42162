"""A status stays below 64 KiB, whatever the plan: with 64 steps, and 16 gates and 16 guards that all have much to say."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from cutover.plan.status_document import read_status, write_status
from cutover.status.conditions import present
from cutover.status.limits import clip, size, with_risks
from cutover.status.report import Comparison, Criterion, Result, RunTally, SuccessCriterion
from cutover.status.requests import Answer, RequestRecord, RequestVerb
from cutover.status.state import State
from cutover.status.status import (
    RISKS,
    Current,
    Failure,
    GateStatus,
    PastRun,
    Phase,
    Risk,
    Run,
    Status,
    StepState,
    StepStatus,
    Verdict,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
NAME = "n" * 63
WORDS = {"letters": "x", "two bytes": "é", "three bytes": "漢", "four bytes": "😀", "quotes": '"', "control": "\x01"}


def largest(word: str) -> Status:
    """Everything that a status can hold, with texts made of one letter."""
    long = word * 100_000
    gates = tuple(
        GateStatus(
            name=NAME,
            verdict=Verdict.PASS,
            value="1.23456e+07",
            bound=">= 0.123456 and <= 123456%",
            passes=1000,
            needed=1000,
            fails=1000,
            message=long,
            guard=place > 15,
            compared=True,
        )
        for place in range(32)
    )
    run = Run(
        number=99,
        generation=99,
        spec_hash="f" * 64,
        started_at=NOW,
        fence=999,
        running_seconds=1e6,
        paused_at=NOW,
        finished_at=NOW,
        keep_until=NOW,
        steps_digest="f" * 16,
    )
    step = StepStatus(
        name=NAME,
        kind="traffic",
        state=StepState.UNDOING,
        attempt=10,
        made="u" * 32,
        snapshot_taken=True,
        gates_passed=True,
        started_at=NOW,
        finished_at=NOW,
        message=long[:256],
    )
    record = RequestRecord(
        verb="rollback",
        token="t" * 64,
        answer=Answer.REJECTED,
        at=NOW,
        run=99,
        by=long[:253],
        step=NAME,
        message=long[:256],
    )
    past = PastRun(
        number=9,
        phase=Phase.SUCCEEDED,
        reason="PastPointOfNoReturn",
        message=long[:256],
        started_at=NOW,
        finished_at=NOW,
        steps_digest="f" * 16,
        steps_done=64,
    )
    compared = Comparison(step=NAME, gate=NAME, passed=True, message=long)
    status = Status(
        observed_generation=99,
        phase=Phase.ROLLING_BACK,
        state=State.RELEASING_ROLLED_BACK,
        reason="PastPointOfNoReturn",
        message=long,
        run=run,
        failure=Failure(step=NAME, stage="32/32", reason="StageTimedOut", message=long[:1024]),
        current=Current(
            step=NAME,
            stage="32/32",
            intent=long[:512],
            weight=50,
            started_at=NOW,
            applied_at=NOW,
            ready="1000/1000",
            digest="sha256:0123456789abcdef",
            reapply=True,
            not_started=True,
            approved=True,
            gates_skipped=True,
            message=long,
            gates=gates,
        ),
        point_of_no_return=NAME,
        steps=tuple(replace(step, name=f"{place:063}") for place in range(64)),
        requests=tuple(replace(record, verb=verb) for verb in RequestVerb),
        history=(past,) * 5,
        tally=RunTally(
            gates_passed=9999,
            gates_skipped=9999,
            gates_failed=9999,
            guarded_stages=9999,
            steps_done=64,
            pauses=9999,
            failed_guard=long,
            comparisons=(compared,) * 8,
        ),
        report=tuple(Criterion(criterion=aim, result=Result.NOT_MEASURED, evidence=long) for aim in SuccessCriterion),
    )
    return with_risks(status, [Risk(kind, "OwnedBySeveral", long) for kind in RISKS], NOW)


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_the_largest_status(word: str) -> None:
    shown = present(largest(word), NOW)
    size = len(json.dumps(write_status(shown), ensure_ascii=False).encode())
    assert 40_000 < size < 64 * 1024, size
    assert present(shown, NOW) == shown, "what was cut once is not cut again"
    assert shown.current is not None
    assert len(shown.current.intent.encode()) <= 512
    assert read_status(write_status(shown)) == shown


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_nothing_that_the_saga_rests_on_is_cut(word: str) -> None:
    """All but texts for people comes through as it was."""

    def bare(status: Status) -> Status:
        current = status.current and replace(status.current, intent="", message="", gates=())
        return replace(
            status,
            message="",
            progress="",
            conditions=(),
            failure=status.failure and replace(status.failure, message=""),
            current=current,
            steps=tuple(replace(step, message="") for step in status.steps),
            requests=tuple(replace(record, message="", by="") for record in status.requests),
            history=tuple(replace(past, message="") for past in status.history),
            tally=status.tally
            and replace(
                status.tally,
                failed_guard="",
                comparisons=tuple(replace(one, message="") for one in status.tally.comparisons),
            ),
            report=tuple(replace(line, evidence="") for line in status.report),
        )

    status = largest(word)
    assert bare(present(status, NOW)) == bare(status)


def test_steps_share_their_room_and_those_that_matter_keep_theirs() -> None:
    status = largest("x")
    steps = list(status.steps)
    steps[3] = replace(steps[3], state=StepState.FAILED)
    steps[5] = replace(steps[5], name=NAME)  # in hand
    steps[7] = replace(steps[7], message="short")
    shown = present(replace(status, steps=tuple(steps)), NOW).steps
    assert [len(shown[at].message) for at in (3, 5)] == [256, 256]
    assert shown[7].message == "short"
    assert shown[0].message.endswith("xx…")
    assert 70 < size(shown[0].message) < 96
    few = present(replace(status, steps=status.steps[:24]), NOW).steps
    assert {step.message for step in few} == {"x" * 256}


@pytest.mark.parametrize("word", WORDS.values(), ids=WORDS)
def test_a_text_is_cut_between_letters(word: str) -> None:
    cut = clip(word * 100, 50)
    assert 40 < size(cut) <= 50
    assert cut == word * (len(cut) - 1) + "…"
    assert clip(cut, 50) == cut
    assert clip(word * 3, 50) == word * 3
