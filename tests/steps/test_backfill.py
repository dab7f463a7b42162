"""`backfill` and `validate` in memory: batches that are done once, what takes them back, queries with their figures before and after."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.errors import PlanError
from cutover.plan.parsing import parse
from cutover.runner_messages.payload import Direction
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result
from cutover.saga.turn import Done, Failed
from cutover.testing import MemoryCluster
from support.fakes.database_jobs import DatabaseJobs
from support.fakes.job_step import Bench
from support.fakes.shop import parsed, shop
from support.plans.simulated import DATABASE, FILLED

FILL: dict[str, Any] = {
    "table": "users",
    "set": {"n": "n + 1"},
    "where": "n == 0",
    "verify": "n == 1",
    "reverse": {"n": "n - 1"},
    "batchSize": 3,
    "targetBatchTime": "0s",
}
ASK: dict[str, Any] = {"queries": [{"name": "low", "sql": "sum(row['n'] < 0 for row in rows.values())"}]}


def document(**kind: Any) -> dict[str, Any]:
    return {"serviceAccountName": "migrator", **parsed(DATABASE), "steps": [{"name": "fill", **kind}]}


class Step(Bench):
    """The step, and the database that its Jobs work in."""

    def __init__(self, **kind: Any) -> None:
        cluster = MemoryCluster()
        shop(cluster)
        self.database = DatabaseJobs(cluster, rows=10)
        super().__init__("", cluster, parse(document(**kind)).steps[0].kind)


# --- backfill ---------------------------------------------------------------------------------------------------------


async def test_each_row_is_changed_once_and_the_figures_are_told() -> None:
    step = Step(backfill=FILL)
    assert await step.to_the_end("do") == Done(message="10 rows in 4 batches")
    assert step.database.rows == [1] * 10
    assert await step.back() == Done(message="10 rows in 4 batches")
    assert step.database.rows == [0] * 10
    up, down = step.database.payloads
    assert (up.direction, down.direction) == (Direction.UP, Direction.DOWN)
    assert up.backfill is not None
    assert (up.backfill.batch_size, up.backfill.set_, up.backfill.key) == (3, {"n": "n + 1"}, ())


async def test_it_goes_on_after_pods_that_were_killed() -> None:
    step = Step(backfill=FILL)
    step.database.fails = [Result(RunnerReason.INTERRUPTED, rows=6), Result(RunnerReason.LOCKS)]
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Done)
    assert step.job()["status"]["failed"] == 2
    assert step.database.rows == [1] * 10


async def test_rows_that_are_not_right_fail_it_and_no_batch_of_them_is_kept() -> None:
    step = Step(backfill=FILL | {"verify": "n == 2"})
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "VerifyFailed"
    assert "database orders: verify is not true for " in outcome.message
    assert step.database.rows == [0] * 10
    assert await step.back() == Done(message="the database's journal says that it was never done, so nothing is undone")


def test_it_has_no_timeout_unless_it_says_so() -> None:
    plan = parse(document(backfill=FILL))
    assert plan.steps[0].rule().timeout is None
    assert parse(document(backfill=FILL, timeout="1h")).steps[0].rule().timeout is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"reverse": None},
            "steps[fill].backfill: no reverse is defined; add reverse, or irreversible: true on the step",
        ),
        ({"batchSize": 0}, "steps[fill].backfill.batchSize: 0 is too small; the minimum is 1"),
        ({"verify": None}, "steps[fill].backfill.verify: required field is missing"),
        ({"workers": 4}, "steps[fill].backfill.workers: unknown field; remove it"),
        ({"transform": {}}, "steps[fill].backfill.transform: unknown field; remove it"),
        ({"where": 5}, "steps[fill].backfill.where: 5 is not a string; put it in quotes"),
        ({"database": "b"}, "steps[fill].backfill.database: the plan has no database b; use orders"),
    ],
)
def test_one_sentence(change: dict[str, Any], message: str) -> None:
    fields = {key: value for key, value in (FILL | change).items() if value is not None}
    with pytest.raises(PlanError) as caught:
        parse(document(backfill=fields))
    assert [str(problem) for problem in caught.value.problems] == [message]


# --- validate ---------------------------------------------------------------------------------------------------------


async def test_queries_are_answered_with_their_figures() -> None:
    step = Step(validate=ASK)
    assert await step.to_the_end("do") == Done(message="low: 0 failures")
    assert await step.back() == Done()
    assert step.undo_jobs() == []


async def test_a_query_with_failures_fails_the_step() -> None:
    step = Step(validate={"queries": [{"name": "new", "sql": "len(rows)"}, *ASK["queries"]]})
    outcome = await step.to_the_end("do")
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ValidationFailed"
    assert "database orders: validate: new: 10 failures; fix the data or the query; " in outcome.message


def test_it_compares_with_an_earlier_step_of_its_kind() -> None:
    plan = {"serviceAccountName": "migrator"} | parsed(FILLED)
    assert parse(plan)
    plan["steps"][-1]["validate"]["compareWith"] = "fill"
    plan["steps"][0]["validate"]["compareWith"] = "after"
    with pytest.raises(PlanError) as caught:
        parse(plan)
    no = "no earlier validate step of database orders is named"
    assert [str(problem) for problem in caught.value.problems] == [
        f"steps[before].validate.compareWith: {no} after; remove it, or add such a step before this one",
        f"steps[after].validate.compareWith: {no} fill; use before",
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            {"name": "a"},
            "give exactly one of sql, orphans, duplicates, nulls, compareColumns; it has none",
        ),
        ({"name": "a", "sql": "SELECT 0", "value": "7"}, "value goes with expect: equals, and expect: equals needs it"),
        (
            {"name": "a", "orphans": {"table": "b", "columns": ["c", "d"], "references": "e"}},
            "columns has 2 and key 1; give as many of each",
        ),
    ],
)
def test_a_query_asks_one_question(query: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        parse(document(validate={"queries": [query]}))
    assert [problem.message for problem in caught.value.problems] == [message]
    assert caught.value.problems[0].where.startswith("steps[fill].validate.queries[a]")
