"""The kind `validate` on real servers: questions with answers, presets, and the difference from before."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.runner_messages.reasons import ExitCode, RunnerReason
from cutover.runner_messages.sentences import sentence
from harness.postgresql import Database
from support.database.runner import Runner

VERSIONS = pytest.mark.parametrize("database", [15, 17, 18], indirect=True)
PRESETS: list[dict[str, Any]] = [
    {"name": "missing-references", "orphans": {"table": "child", "columns": ["parent_id"], "references": "parent"}},
    {"name": "duplicates", "duplicates": {"table": "child", "columns": ["code"]}},
    {"name": "nulls", "nulls": {"table": "child", "columns": ["code", "label"]}},
    {"name": "same", "compareColumns": {"table": "child", "old": "lower(label)", "new": "label_norm"}},
]


@pytest.fixture
def tables(database: Database) -> Database:
    database.run(
        "CREATE TABLE parent (id int PRIMARY KEY)",
        "CREATE TABLE child (id int PRIMARY KEY, parent_id int, code text, label text, label_norm text)",
        "INSERT INTO parent VALUES (1)",
        "INSERT INTO child VALUES (1, 1, 'a', 'A', 'a'), (2, NULL, 'b', 'B', 'b')",
    )
    return database


def ask(runner: Runner, *queries: dict[str, Any], direction: str = "up", **parts: Any) -> dict[str, Any]:
    work = {"queries": list(queries), **parts.pop("work", {})}
    result = runner.run(direction, validate=work, **parts)
    return {"reason": result.reason, **{one.name: one for one in result.answers}}


@VERSIONS
def test_presets_find_what_is_wrong_and_nothing_else(tables: Database, runner: Runner) -> None:
    answers = ask(runner, *PRESETS)
    assert answers.pop("reason") is RunnerReason.DONE
    assert {name: one.failures for name, one in answers.items()} == dict.fromkeys((one["name"] for one in PRESETS), 0)
    tables.run("INSERT INTO child VALUES (3, 7, 'a', 'C', 'c'), (4, 8, 'a', NULL, 'd'), (5, NULL, NULL, 'E', NULL)")
    answers = ask(runner, *PRESETS, step="after", work={"compareWith": "expand"})
    assert answers.pop("reason") is RunnerReason.VALIDATION_FAILED
    found = {name: (one.failures, one.before, one.passed) for name, one in answers.items()}
    assert found == {
        "missing-references": (2, 0, False),
        "duplicates": (2, 0, False),
        "nulls": (2, 0, False),
        "same": (2, 0, False),
    }


@pytest.mark.parametrize(
    ("query", "passed", "failures"),
    [
        ({"sql": "SELECT count(*) FROM child WHERE id > 9"}, True, 0),
        ({"sql": "SELECT count(*) FROM child"}, False, 2),
        ({"sql": "SELECT id FROM child; ", "expect": "zeroRows"}, False, 2),
        ({"sql": "SELECT id FROM child WHERE false -- none", "expect": "zeroRows"}, True, 0),
        ({"sql": "SELECT max(id) FROM child", "expect": "equals", "value": "2"}, True, 0),
        ({"sql": "SELECT 1.50", "expect": "equals", "value": "1.5"}, False, 1),
        ({"sql": "SELECT bool_and(id > 0) FROM child", "expect": "true"}, True, 0),
        ({"sql": "SELECT NULL::bool", "expect": "true"}, False, 1),
        ({"sql": "TABLE parent", "expect": "equals", "value": "1"}, True, 0),
    ],
    ids=range(9),
)
def test_each_expectation(tables: Database, runner: Runner, query: dict[str, Any], passed: bool, failures: int) -> None:  # noqa: FBT001 -- a table of cases
    del tables
    answer = ask(runner, {"name": "asked", **query})["asked"]
    assert (answer.passed, answer.failures, answer.problem) == (passed, failures, "")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("SELECT 1 WHERE false", "it must answer one row with one value"),
        ("SELECT 1, 2", "it must answer one row with one value"),
        ("SELECT 'x'", "it must answer a number"),
        ("SELECT 1 / (id - id) FROM child WHERE id = 1", "refused by the server, DivisionByZero"),
        ("SELECT 0 FROM nowhere", "refused by the server, UndefinedTable"),
        ("SELECT nextval('s')", "refused by the server, ReadOnlySqlTransaction"),
        ("SELECT pg_sleep(20)", "refused by the server, QueryCanceled"),
    ],
)
def test_a_query_that_fails_fails_alone_and_says_why(
    tables: Database, runner: Runner, query: str, problem: str
) -> None:
    tables.run("CREATE SEQUENCE s")
    answers = ask(runner, {"name": "bad", "sql": query, "timeout": "200ms"}, {"name": "good", "sql": "SELECT 0"})
    assert answers["reason"] is RunnerReason.VALIDATION_FAILED
    assert (answers["bad"].passed, answers["bad"].problem) == (False, problem)
    assert answers["good"].passed is True


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM child",
        "SELECT 0; DELETE FROM child",
        "WITH gone AS (DELETE FROM child RETURNING 1) SELECT 0",
        "SELECT 0 INTO kept",
        "SELEC 0",
        "",
    ],
)
def test_what_is_not_a_query_is_refused_before_it_is_sent(tables: Database, runner: Runner, query: str) -> None:
    for direction in ("preflight", "up", "validate"):
        result = runner.run(direction, validate={"queries": [{"name": "asked", "sql": query or " "}]})
        assert (result.reason.code, result.field) == (ExitCode.BAD_INPUT, "validate.queries[asked].sql")
    assert tables.value("SELECT count(*) FROM child") == 2


def test_asking_alone_writes_nothing(tables: Database, runner: Runner) -> None:
    assert ask(runner, *PRESETS, direction="validate")["reason"] is RunnerReason.DONE
    assert tables.value("SELECT to_regnamespace('cutover') IS NULL")


def test_the_sentence_names_the_failures(tables: Database, runner: Runner) -> None:
    tables.run("INSERT INTO child VALUES (3, 7, 'z', 'secret@example.com', 'x')")
    result = runner.run("up", validate={"queries": PRESETS})
    assert sentence(result) == ("validate: missing-references: 1 failures, same: 1 failures; fix the data or the query")
    assert result.reason.code is ExitCode.VALIDATION_FAILED
    assert "secret" not in result.encode()
