"""What a server, a driver or a setting does that a good guess misses, and that must not reach anybody's rows."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.runner_messages.reasons import RunnerReason
from harness.postgresql import Database
from harness.process import until
from support.database.runner import Runner, script

LOWER: dict[str, Any] = {"table": "users", "set": {"email_norm": "lower(email)"}, "verify": "email_norm = lower(email)"}


def users(database: Database, rows: int = 100) -> None:
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL, email_norm text)",
        f"INSERT INTO users SELECT n, 'User' || n FROM generate_series(1, {rows}) AS n",
    )


def test_settings_of_the_role_and_the_database_do_not_change_what_values_mean(
    database: Database, runner: Runner
) -> None:
    """Tools of the JVM set its time zone over database and role: the same ALTER would shift each value by hours."""
    database.run(
        "CREATE TABLE events (day date PRIMARY KEY, at timestamp NOT NULL, zoned timestamptz)",
        "INSERT INTO events SELECT date '2024-01-01' + n, timestamp '2024-01-01 12:00' + n * interval '1 day' FROM generate_series(0, 399) AS n",
        f"ALTER DATABASE {database.name} SET TimeZone = 'America/New_York'",
        f"ALTER DATABASE {database.name} SET DateStyle = 'SQL, DMY'",
        f"ALTER DATABASE {database.name} SET standard_conforming_strings = off",
        f"ALTER DATABASE {database.name} SET extra_float_digits = -10",
    )
    at_noon = "SELECT count(*) FROM events WHERE extract(hour FROM {} AT TIME ZONE 'UTC') <> 12 OR {} IS NULL"
    fill = {"table": "events", "set": {"zoned": "at"}, "verify": "zoned = at", "batchSize": 7, "targetBatchTime": "0s"}
    assert runner.run("up", backfill=fill, step="fill").rows == 400
    assert database.value(at_noon.format("zoned", "zoned")) == 0
    change = {"up": script("ALTER TABLE events ALTER at TYPE timestamptz"), "allow": ["RewritesTable"]}
    assert runner.run("up", schema=change).reason is RunnerReason.DONE
    assert database.value(at_noon.format("at", "at")) == 0


@pytest.mark.parametrize("database", [15, 17, 18], indirect=True)
def test_an_index_that_breaks_analyze_does_not_fail_what_is_done(database: Database, runner: Runner) -> None:
    """From 17 on the search path of ANALYZE is safe and nearly empty: a function of an index that calls another one by its bare name fails there."""
    users(database, 0)
    database.run(
        "ALTER TABLE users ADD COLUMN short varchar(10) DEFAULT 'x'",
        "CREATE FUNCTION inner_one(text) RETURNS text IMMUTABLE LANGUAGE sql AS 'SELECT $1'",
        "CREATE FUNCTION outer_one(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_one($1); END'",
        "CREATE INDEX ON users (outer_one(email))",
        "INSERT INTO users SELECT n, 'User' || n FROM generate_series(1, 100) AS n",
    )
    result = runner.run("up", backfill=LOWER, step="fill")
    assert (result.reason, result.rows) == (RunnerReason.DONE, 100), result
    change = {"up": script("ALTER TABLE users ALTER short TYPE varchar(20)"), "allow": ["RewritesTable"]}
    assert runner.run("up", schema=change).reason is RunnerReason.DONE


def test_a_query_goes_on_when_its_table_is_changed(database: Database, runner: Runner) -> None:
    """The driver would prepare it by itself after a few times, and then it fails for ever once the type of its answer is another one."""
    users(database, 2000)
    database.run("CREATE TABLE busy (n int)", "INSERT INTO busy VALUES (0)")
    slow = LOWER | {"batchSize": 100, "targetBatchTime": "0s", "delay": "1100ms", "throttle": {"query": "TABLE busy"}}
    process = runner.start("up", backfill=slow)
    until("it has asked often", lambda: _batches(database) > 7, deadline=60)
    database.run("ALTER TABLE busy ALTER n TYPE bigint")
    code, result, log = process.wait()
    assert (code, result and result.reason) == (0, RunnerReason.DONE), log


def _batches(database: Database) -> int:
    if not database.value("SELECT to_regclass('cutover.history') IS NOT NULL"):
        return 0
    return int(database.value("SELECT coalesce(max(batches), 0) FROM cutover.progress"))


def test_what_a_trigger_makes_of_a_value_is_what_is_verified(database: Database, runner: Runner) -> None:
    users(database)
    database.run(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.email_norm := upper(NEW.email_norm); RETURN NEW; END'",
        "CREATE TRIGGER shout BEFORE UPDATE ON users FOR EACH ROW EXECUTE FUNCTION shout()",
    )
    result = runner.run("up", backfill=LOWER)
    assert (result.reason, result.number) == (RunnerReason.VERIFY_FAILED, 100)
    assert database.value("SELECT count(email_norm) FROM users") == 0


def test_columns_that_are_set_from_each_other_are_set_at_once(database: Database, runner: Runner) -> None:
    database.run(
        "CREATE TABLE pairs (id int PRIMARY KEY, a int, b int)",
        "INSERT INTO pairs SELECT n, n, -n FROM generate_series(1, 50) AS n",
    )
    swap = {"table": "pairs", "set": {"a": "b", "b": "a"}, "verify": "a = -id AND b = id"}
    assert runner.run("up", backfill=swap).rows == 50


def test_texts_of_expressions_are_sent_as_they_are(database: Database, runner: Runner) -> None:
    users(database, 10)
    odd = "email || ' 100% %s %(a)s {0} $1 ' || E'\\\\' || $q$ '; -- $q$ -- and a comment"
    work = LOWER | {"set": {"email_norm": odd}, "verify": "email_norm LIKE '%\\%s \\%(a)s {0} $1 %' -- so"}
    assert runner.run("up", backfill=work).reason is RunnerReason.DONE
    assert database.value("SELECT email_norm FROM users WHERE id = 1") == "User1 100% %s %(a)s {0} $1 \\ '; -- "


@pytest.mark.parametrize("database", [15, 18], indirect=True)
def test_a_generated_column_is_not_filled(database: Database, runner: Runner) -> None:
    """Said before anything runs, by preflight too."""
    users(database, 10)
    database.run(
        "ALTER TABLE users ADD COLUMN made text GENERATED ALWAYS AS (lower(email)) STORED",
        "ALTER TABLE users ADD COLUMN counted int GENERATED ALWAYS AS IDENTITY",
    )
    for column, value in (("made", "'x'"), ("counted", "1")):
        work = LOWER | {"set": {column: value}, "verify": f"{column} = {value}"}
        for direction in ("preflight", "up"):
            result = runner.run(direction, backfill=work)
            assert (result.reason, result.field) == (RunnerReason.GENERATED_COLUMN, f"backfill.set.{column}"), result
