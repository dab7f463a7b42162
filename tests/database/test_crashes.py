"""The runner dies, or loses its connection, at every call that it makes: the journal tells the truth each time.

In memory, so that every call can be tried; `test_backfill.py` kills it on real servers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from cutover.database.engines.base import Engine
from cutover.database.outcome import ConnectionBroken, Ended
from cutover.database.reporting import Reporter
from cutover.database.run import carry_out
from cutover.database.works.transactions import Clock
from cutover.runner_messages.payload import Payload, read_payload
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result
from cutover.testing.crash import Crash, CrashSwitch
from support.database.double import Double
from support.database.runner import PLAN

SCHEMA = {
    "schema": {"up": {"text": "a; b; c"}, "down": {"text": "-c; -b; -a"}, "validate": {"text": "len(applied) - 3"}}
}
FILL = {
    "table": "t",
    "set": {"n": "n + 1"},
    "verify": "n == 1",
    "reverse": {"n": "n - 1"},
    "batchSize": 3,
    "targetBatchTime": "0s",
}
BACKFILL = {"backfill": FILL}
ROWS = 10


def payload(direction: str, fence: int, **kind: Any) -> Payload:
    document = {
        "plan": PLAN,
        "run": 1,
        "step": "s",
        "attempt": 1,
        "fence": fence,
        "direction": direction,
        "database": {"name": "d"},
    }
    return read_payload(json.dumps(document | kind))


class Time:
    """Sleeping costs nothing and takes its time."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.seconds, self.sleep)


def once(database: Double, work: Payload) -> Result | None:
    """One process: its result, or None when it died."""
    engine: Engine = database
    try:
        return carry_out(work, engine, engine.connect(), Reporter(), Time().clock())
    except (Ended, ConnectionBroken) as ended:
        return ended.result
    except Crash:
        return None


def until_done(database: Double, work: Payload) -> Result:
    """Processes one after the other, as Kubernetes starts them."""
    for _ in range(5):
        if (result := once(database, work)) is not None:
            return result
    raise AssertionError("it never ended")


def calls(begin: Callable[[], Double], work: Payload) -> int:
    database = begin()
    database.switch = CrashSwitch()
    assert once(database, work) is not None
    return database.switch.calls


def schema_done(database: Double) -> None:
    assert database.state.applied == ["a", "b", "c"]
    assert [claim.direction for claim, _ in database.state.history] == ["up"]


def schema_undone(database: Double) -> None:
    assert database.state.applied in ([], ["a", "b", "c", "-c", "-b", "-a"])


def filled(database: Double) -> None:
    assert [row["n"] for row in database.state.rows.values()] == [1] * ROWS
    assert [claim.direction for claim, _ in database.state.history] == ["up"]


def emptied(database: Double) -> None:
    assert [row["n"] for row in database.state.rows.values()] == [0] * ROWS


KINDS = [(SCHEMA, schema_done, schema_undone), (BACKFILL, filled, emptied)]
MODES = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("after", "lost"), MODES, ids=["dies-before", "dies-after", "lost-before", "lost-after"])
@pytest.mark.parametrize(("kind", "done", "undone"), KINDS, ids=["schema", "backfill"])
def test_done_once_wherever_it_dies(kind: Any, done: Any, undone: Any, after: bool, lost: bool) -> None:  # noqa: FBT001 -- a table of cases
    up, down = payload("up", 1, **kind), payload("down", 2, **kind)
    for at in range(1, calls(lambda: Double(ROWS), up) + 1):
        database = Double(ROWS, CrashSwitch(at, after, lost=lost))
        assert until_done(database, up).reason in (RunnerReason.DONE, RunnerReason.ALREADY_DONE), at
        done(database)
        assert until_done(database, down).reason is RunnerReason.DONE
        undone(database)


@pytest.mark.parametrize(("after", "lost"), MODES, ids=["dies-before", "dies-after", "lost-before", "lost-after"])
@pytest.mark.parametrize(("kind", "done", "undone"), KINDS, ids=["schema", "backfill"])
def test_undone_once_wherever_it_dies(kind: Any, done: Any, undone: Any, after: bool, lost: bool) -> None:  # noqa: FBT001 -- a table of cases
    up, down = payload("up", 1, **kind), payload("down", 2, **kind)

    def begin() -> Double:
        database = Double(ROWS)
        assert once(database, up) is not None
        done(database)
        return database

    for at in range(1, calls(begin, down) + 1):
        database = begin()
        database.switch = CrashSwitch(at, after, lost=lost)
        assert until_done(database, down).reason in (RunnerReason.DONE, RunnerReason.ALREADY_DONE), at
        undone(database)


@pytest.mark.parametrize(("kind", "done", "undone"), KINDS, ids=["schema", "backfill"])
def test_what_died_half_way_is_undone_as_far_as_it_came(kind: Any, done: Any, undone: Any) -> None:
    del done
    up, down = payload("up", 1, **kind), payload("down", 2, **kind)
    for after in (False, True):
        for at in range(1, calls(lambda: Double(ROWS), up) + 1):
            database = Double(ROWS, CrashSwitch(at, after))
            once(database, up)
            assert until_done(database, down).reason in (RunnerReason.DONE, RunnerReason.NOTHING_TO_UNDO), at
            undone(database)
            late = once(database, up)
            assert late is not None
            assert late.reason is RunnerReason.FENCED
            undone(database)


def test_a_validation_is_asked_again_and_kept(database_of_three: Double) -> None:
    query = {"validate": {"queries": [{"name": "few", "sql": "len(rows) - 3"}]}}
    assert until_done(database_of_three, payload("up", 1, **query)).reason is RunnerReason.DONE
    database_of_three.state.rows[9] = {"id": 9, "n": 0}
    compared = {"validate": query["validate"] | {"compareWith": "s"}}
    result = once(database_of_three, payload("up", 1, **compared).model_copy(update={"step": "later"}))
    assert result is not None
    (answer,) = result.answers
    assert (result.reason, answer.failures, answer.before) == (RunnerReason.VALIDATION_FAILED, 1, 0)


@pytest.fixture
def database_of_three() -> Double:
    return Double(3)


def test_a_server_that_stays_away_ends_the_run() -> None:
    """The pod ends with a code that lets Kubernetes start another."""

    class Away(Double):
        def connect(self) -> Any:
            session = super().connect()

            def gone() -> None:
                raise ConnectionBroken(Result(RunnerReason.CONNECTION_REFUSED))

            session.reconnect = gone  # type: ignore[method-assign]
            return session

    result = once(Away(ROWS, CrashSwitch(3, lost=True)), payload("up", 1, **SCHEMA))
    assert result is not None
    assert (result.reason, int(result.reason.code)) == (RunnerReason.CONNECTION_REFUSED, 21)
