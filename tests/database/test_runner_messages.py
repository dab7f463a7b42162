"""What the operator and the runner tell each other: nothing but known keys, finite numbers, known words and names."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cutover.errors import PlanError
from cutover.runner_messages.payload import Direction, Payload, Script, read_payload
from cutover.runner_messages.progress import Activity, Progress, Slow, read_progress
from cutover.runner_messages.reasons import FINAL, ExitCode, RunnerReason
from cutover.runner_messages.result import LONGEST, Answer, Blocker, Finding, Result, decode
from cutover.runner_messages.sentences import sentence

BASE: dict[str, Any] = {
    "plan": {"namespace": "shop", "name": "checkout", "uid": "7c9e6679-7425-40de-944b-e07fc1f90ae7"},
    "run": 1,
    "step": "expand",
    "attempt": 1,
    "fence": 3,
    "direction": "up",
    "database": {"name": "shop"},
}
SCHEMA = {"schema": {"up": {"text": "ALTER TABLE users ADD COLUMN email_verified boolean"}}}


def read(**parts: Any) -> Payload:
    return read_payload(json.dumps(BASE | SCHEMA | parts))


def problems(**parts: Any) -> str:
    with pytest.raises(PlanError) as found:
        read(**parts)
    return str(found.value)


def test_a_payload_reads_back_as_it_was_written() -> None:
    payload = read(direction="preflight")
    assert read_payload(payload.encode()) == payload
    assert (payload.kind, payload.direction) == ("schema", Direction.PREFLIGHT)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"schema": None}, "give exactly one of schema, backfill, validate; it has none"),
        ({"validate": {"queries": [{"name": "a", "sql": "SELECT 0"}]}}, "it has schema and validate"),
        ({"schema": {"up": {}}}, "give text or file, exactly one of them"),
        ({"database": {"name": "shop", "lockTimeout": "0s"}}, "0s would wait for ever; use 1ms or more"),
        ({"database": {"name": "shop", "password": "secret"}}, "unknown field"),
        ({"format": 2}, "format 2 is newer than 1; use the runner's image of the operator's version"),
        ({"direction": "sideways"}, "use 'up', 'down', 'validate', 'verify' or 'preflight'"),
        ({"schema": None, "backfill": {"table": "t", "set": {"a": "1"}, "verify": "true", "batchSize": 0}}, "minimum is 1"),
        ({"schema": None, "validate": {"queries": [{"name": "a"}]}}, "give exactly one of sql, orphans, duplicates"),
        (
            {"schema": None, "validate": {"queries": [{"name": "a", "sql": "SELECT 0"}, {"name": "a", "sql": "SELECT 1"}]}},
            "remove duplicates: a",
        ),
    ],
)  # fmt: skip
def test_a_bad_payload_is_told_by_field_and_way_out(parts: dict[str, Any], expected: str) -> None:
    assert expected in problems(**parts)


def test_all_problems_of_a_payload_are_told_at_once() -> None:
    assert problems(run=0, attempt=0, step="Not A Label").count(";") >= 3


def test_a_script_is_known_by_the_hash_of_its_bytes() -> None:
    assert Script.digest("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- the result -------------------------------------------------------------------------------------------------------

FULL = Result(
    RunnerReason.LOCKS,
    field="schema.up",
    statement=2,
    line=7,
    sqlstate="55P03",
    names=("users",),
    number=3,
    rows=10,
    batches=2,
    seconds=1.5,
    lock_waits=30,
    findings=(Finding("RewritesTable", 1, 2, "users"),),
    blockers=(Blocker(42, "report", 12.5, "idle in transaction"),),
    answers=(Answer("orphans", passed=False, failures=4, before=2),),
)


def test_a_result_reads_back_as_it_was_written() -> None:
    assert decode(FULL.encode()) == FULL
    assert decode(Result(RunnerReason.DONE).encode()) == Result(RunnerReason.DONE)


def test_a_long_result_is_cut_and_says_by_how_much() -> None:
    many = Result(RunnerReason.HAZARD, findings=tuple(Finding("NeedsReview", n, n, "x" * 63) for n in range(200)))
    text = many.encode()
    assert len(text.encode()) <= LONGEST
    cut = decode(text)
    assert cut is not None
    assert len(cut.findings) + cut.more == 200
    assert f"and {cut.more} more" in sentence(cut)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"reason":"Nonsense"}', "[" * 5000, '{"reason":["Done"]}'])
def test_what_is_not_a_result_is_none(text: str) -> None:
    assert decode(text) is None


def test_nothing_unknown_is_taken_from_a_foreign_message() -> None:
    text = json.dumps(
        {
            "reason": "VerifyFailed",
            "secret": "hunter2",
            "names": ["alice@example.com\x1b[31m <script>", 7, None],
            "rows": 1e999,
            "number": -5,
            "seconds": "12",
            "sqlstate": "not one",
            "findings": [{"hazard": "rm -rf", "extra": 1}, "text"],
            "blockers": {"pid": 1},
        }
    )
    result = decode(text)
    assert result == Result(
        RunnerReason.VERIFY_FAILED, names=("alice@example.com?[31m ?script?", "", ""), findings=(Finding(),)
    )


@settings(deadline=None)
@given(some.recursive(some.none() | some.booleans() | some.floats() | some.text(max_size=9), some.lists))
def test_no_value_of_a_known_key_does_harm(value: Any) -> None:
    for key in ("rows", "seconds", "names", "findings", "answers", "field", "sqlstate", "needs"):
        result = decode(json.dumps({"reason": "Done", key: value}))
        assert result is not None
        assert decode(result.encode()) is not None
        assert math.isfinite(result.seconds)
        assert "\n" not in sentence(result)


def test_every_reason_has_its_sentence_and_its_code() -> None:
    for reason in RunnerReason:
        assert sentence(Result(reason))
        assert isinstance(reason.code, ExitCode)
    assert {reason.code for reason in RunnerReason} == set(ExitCode)
    assert [int(code) for code in FINAL] == [10, 11, 12, 13, 30]


def test_the_sentence_names_place_blockers_and_way_out() -> None:
    assert sentence(FULL) == (
        "the locks were not to be had in 30 tries; blocked by pid 42 (report, idle in transaction for 12s)"
    )
    failed = Result(
        RunnerReason.STATEMENT_FAILED, field="schema.up", statement=2, line=7, sqlstate="23505", names=("users_pkey",)
    )
    assert sentence(failed) == (
        "schema.up: was refused by the server in statement 2, line 7 (SQLSTATE 23505) (users_pkey); nothing of it was kept"
    )


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_reads_back_as_it_was_shown() -> None:
    shown = Progress(Activity.RUNNING, 400, 1000, 20.0, 50, Slow.RATE, 2, 1.5, datetime(2026, 12, 1, tzinfo=UTC))
    assert read_progress(shown.document()) == shown
    assert (shown.percent, shown.eta_seconds) == (40, 30.0)


def test_an_estimate_that_is_too_low_never_says_that_all_is_done() -> None:
    assert Progress(rows=2000, total=1000).percent == 99
    assert Progress(rows=10).eta_seconds is None


@pytest.mark.parametrize("data", [{}, {"progress": "x"}, {"progress": '{"activity":"Dancing"}'}, {"progress": "[]"}])
def test_what_is_not_progress_is_none(data: dict[str, str]) -> None:
    assert read_progress(data) is None
