"""The kind `backfill` on real servers: each row exactly once, whoever dies, and `verify` true of every row at the end."""

from __future__ import annotations

import random
import signal
import time
from typing import Any

import pytest

from cutover.runner_messages.reasons import ExitCode, RunnerReason
from harness.postgresql import Database, Server
from harness.process import until
from support.database.runner import Runner

VERSIONS = pytest.mark.parametrize("database", [15, 17, 18], indirect=True)
LOWER: dict[str, Any] = {
    "table": "users",
    "set": {"email_norm": "lower(email)"},
    "verify": "email_norm = lower(email)",
    "batchSize": 100,
    "targetBatchTime": "0s",
}
COUNTED: dict[str, Any] = {
    "table": "counted",
    "set": {"n": "n + 1"},
    "verify": "n > 0",
    "reverse": {"n": "n - 1"},
    "batchSize": 200,
    "targetBatchTime": "0s",
}
"""An expression that shows each time it is applied."""


def users(database: Database, rows: int) -> None:
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL, email_norm text)",
        f"INSERT INTO users SELECT n, 'User' || n || '@Example.com', NULL FROM generate_series(1, {rows}) AS n",
        "ANALYZE users",
    )


def counted(database: Database, rows: int) -> None:
    database.run(
        "CREATE TABLE counted (id bigint PRIMARY KEY, n int NOT NULL DEFAULT 0)",
        f"INSERT INTO counted SELECT n * 7, 0 FROM generate_series(1, {rows}) AS n",
        "ANALYZE counted",
    )


def counts(database: Database) -> list[tuple[Any, ...]]:
    return database.rows("SELECT n, count(*) FROM counted GROUP BY n ORDER BY n")


@VERSIONS
def test_all_rows_are_filled_in_batches_and_once(database: Database, runner: Runner) -> None:
    users(database, 1050)
    assert runner.run("preflight", backfill=LOWER).reason is RunnerReason.DONE
    assert runner.run("verify", backfill=LOWER).reason is RunnerReason.NOT_DONE
    result = runner.run("up", backfill=LOWER)
    assert (result.reason, result.rows, result.batches) == (RunnerReason.DONE, 1050, 11)
    assert database.value("SELECT count(*) FROM users WHERE email_norm IS DISTINCT FROM lower(email)") == 0
    assert runner.run("up", backfill=LOWER, fence=2).reason is RunnerReason.ALREADY_DONE
    assert runner.run("verify", backfill=LOWER, fence=2).reason is RunnerReason.DONE
    database.run("UPDATE users SET email_norm = 'x' WHERE id = 7")
    broken = runner.run("verify", backfill=LOWER, fence=2)
    assert (broken.reason, broken.number, broken.reason.code) == (RunnerReason.VERIFY_FAILED, 1, ExitCode.VERIFY_FAILED)


KEYS = [
    ("uuid", "gen_random_uuid()"),
    ("text", "md5(n::text)"),
    ('text COLLATE "C"', "chr(65 + n % 26) || n"),
    ("real", "n / 3.0"),
    ("double precision", "CASE WHEN n = 1 THEN 'NaN' WHEN n = 2 THEN 'Infinity' ELSE n / 7.0 END::float8"),
    ("numeric", "n / 3.0"),
    ("interval", "n * interval '1 hour 1 microsecond'"),
    ("timestamptz", "CASE WHEN n = 1 THEN 'infinity' WHEN n = 2 THEN '-infinity' ELSE now() + n * interval '1 microsecond' END::timestamptz"),
    ("bytea", "decode(md5(n::text), 'hex')"),
    ("char(12)", "n::text"),
    ("varchar(3)", "n::text"),
    ("bit(12)", "n::bit(12)"),
    ("inet", "'10.0.0.0'::inet + n"),
    ("date", "'2020-01-01'::date + n"),
    ("smallint", "n::int2"),
    ("mood", "('m' || n % 500)::mood"),
    ("numrange", "numrange(n, n + 1)"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), KEYS, ids=[kind for kind, _ in KEYS])
def test_no_row_is_lost_whatever_its_key_is(database: Database, runner: Runner, kind: str, value: str) -> None:
    """Keys travel as the server's own text: a round trip through another language loses digits, orders and infinities."""
    labels = ", ".join(f"'m{n}'" for n in range(500))
    database.run(
        f"CREATE TYPE mood AS ENUM ({labels})",
        f"CREATE TABLE counted (id {kind} PRIMARY KEY, n int NOT NULL DEFAULT 0)",
        f"INSERT INTO counted SELECT {value}, 0 FROM generate_series(1, 500) AS n",
    )
    result = runner.run("up", backfill=COUNTED | {"batchSize": 37})
    assert (result.reason, result.rows) == (RunnerReason.DONE, 500)
    assert counts(database) == [(1, 500)]


def test_a_key_of_several_columns(database: Database, runner: Runner) -> None:
    database.run(
        'CREATE TABLE "Odd ""name" (a int, "B b" text, n int NOT NULL DEFAULT 0, PRIMARY KEY ("B b", a))',
        """INSERT INTO "Odd ""name" SELECT n / 10, (n % 10)::text, 0 FROM generate_series(1, 500) AS n""",
    )
    result = runner.run("up", backfill=COUNTED | {"table": 'Odd "name', "batchSize": 7})
    assert (result.reason, result.rows) == (RunnerReason.DONE, 500)
    assert database.rows('SELECT n, count(*) FROM "Odd ""name" GROUP BY n') == [(1, 500)]


# --- dying, and others beside it ------------------------------------------------------------------------------------------


def killed(database: Database, runner: Runner, direction: str, times: int, **kind: Any) -> None:
    """Kill the runner so many times, each time after it has moved on."""
    chance = random.Random(7)  # noqa: S311 -- repeatable on purpose
    for _ in range(times):
        before = database.value("SELECT coalesce(max(batches), 0) FROM cutover.progress") if exists(database) else 0
        process = runner.start(direction, backfill=kind["backfill"], fence=kind.get("fence", 1))
        until(
            "it moves on",
            lambda before=before: (
                exists(database)  # type: ignore[misc]
                and database.value("SELECT max(batches) FROM cutover.progress") > before
            ),
            deadline=60,
        )
        time.sleep(chance.uniform(0, 0.05))
        process.kill()


def exists(database: Database) -> bool:
    return bool(database.value("SELECT to_regclass('cutover.history') IS NOT NULL"))


@pytest.mark.parametrize("database", [18], indirect=True)
def test_each_row_is_changed_once_though_the_runner_is_killed(database: Database, runner: Runner) -> None:
    counted(database, 20_000)
    slow = COUNTED | {"delay": "10ms"}
    killed(database, runner, "up", 4, backfill=slow)
    assert len(counts(database)) == 2, "killed in the middle"
    result = runner.run("up", backfill=slow | {"delay": "0s"})
    assert result.reason is RunnerReason.DONE, result
    assert counts(database) == [(1, 20_000)]


@pytest.mark.long
@pytest.mark.parametrize("database", [13, 14, 15, 16, 17, 18], indirect=True)
def test_each_row_of_a_million_is_changed_once_though_all_is_killed(database: Database, runner: Runner) -> None:
    """Twenty times the runner, in between the server."""
    counted(database, 1_000_000)
    slow = COUNTED | {"delay": "2ms", "batchSize": 2000}
    for _ in range(5):
        killed(database, runner, "up", 4, backfill=slow)
        database.server.kill()
        database.server.start()
    assert len(counts(database)) == 2, "killed in the middle"
    assert runner.run("up", backfill=slow | {"delay": "0s"}).reason is RunnerReason.DONE
    assert counts(database) == [(1, 1_000_000)]


def test_two_runners_at_once_share_the_work(database: Database, runner: Runner) -> None:
    counted(database, 10_000)
    runner.settings["lockRetries"] = {"maxAttempts": 1000, "backoff": "10ms", "maxBackoff": "50ms"}
    both = [runner.start("up", backfill=COUNTED | {"delay": "1ms"}) for _ in range(2)]
    for process in both:
        code, result, log = process.wait()
        assert code == 0, (result, log)
    assert counts(database) == [(1, 10_000)]
    assert database.value("SELECT count(*) FROM cutover.history") == 1


def test_a_later_attempt_fences_the_earlier_one_off(database: Database, runner: Runner) -> None:
    """The undo begins while the do still runs: the do ends by itself, and only what it did is undone."""
    counted(database, 20_000)
    work = COUNTED | {"delay": "20ms"}
    process = runner.start("up", backfill=work)
    until(
        "it moves on",
        lambda: exists(database) and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > 2,
    )
    result = runner.run("down", backfill=work | {"delay": "0s"}, fence=2)
    assert result.reason is RunnerReason.DONE
    assert result.rows > 0
    code, late, log = process.wait()
    assert (code, late and late.reason) == (int(ExitCode.FENCED), RunnerReason.FENCED), log
    assert counts(database) == [(0, 20_000)]
    assert runner.run("up", backfill=work, fence=1).reason is RunnerReason.FENCED


def test_who_goes_the_other_way_takes_over_whatever_its_fence(database: Database, runner: Runner) -> None:
    """Two with one fence that go the same way share the work; one that finds the row turned ends, and changes nothing more."""
    counted(database, 20_000)
    process = runner.start("up", backfill=COUNTED | {"delay": "50ms"})
    until(
        "it moves on",
        lambda: exists(database) and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > 2,
    )
    assert runner.run("down", backfill=COUNTED).reason is RunnerReason.DONE
    code, late, log = process.wait()
    assert (code, late and late.reason) == (int(ExitCode.FENCED), RunnerReason.FENCED), log
    assert counts(database) == [(0, 20_000)]


def test_undo_takes_back_as_much_as_was_done(database: Database, runner: Runner) -> None:
    counted(database, 5000)
    killed(database, runner, "up", 1, backfill=COUNTED | {"delay": "10ms"})
    killed(database, runner, "down", 1, backfill=COUNTED | {"delay": "10ms", "batchSize": 20}, fence=2)
    assert runner.run("down", backfill=COUNTED, fence=2).reason is RunnerReason.DONE
    assert counts(database) == [(0, 5000)]
    assert runner.run("up", backfill=COUNTED, fence=3, attempt=2).reason is RunnerReason.DONE
    assert runner.run("down", backfill=COUNTED, fence=4, attempt=2).rows == 5000
    assert counts(database) == [(0, 5000)]
    other = {"backfill": COUNTED, "fence": 5, "step": "never"}
    assert runner.run("down", **other).reason is RunnerReason.NOTHING_TO_UNDO


def test_nothing_is_undone_of_what_never_began_though_its_column_is_not_there(
    database: Database, runner: Runner
) -> None:
    """As after a schema change that failed: the step behind it has nothing to take back, and must not stop the rollback."""
    database.run("CREATE TABLE users (id int PRIMARY KEY)", "INSERT INTO users VALUES (1)")
    for _ in range(2):
        result = runner.run("down", backfill=COUNTED, fence=2)
        assert result.reason in (RunnerReason.NOTHING_TO_UNDO, RunnerReason.ALREADY_DONE), result
    assert runner.run("up", backfill=COUNTED, fence=1).reason is RunnerReason.FENCED


def test_a_signal_ends_it_and_the_next_run_goes_on(database: Database, runner: Runner) -> None:
    counted(database, 10_000)
    process = runner.start("up", backfill=COUNTED | {"delay": "50ms"})
    until(
        "it moves on",
        lambda: exists(database) and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > 2,
    )
    process.popen.send_signal(signal.SIGTERM)
    code, result, _ = process.wait()
    assert (code, result and result.reason) == (int(ExitCode.INTERRUPTED), RunnerReason.INTERRUPTED)
    assert len(counts(database)) == 2
    assert runner.run("up", backfill=COUNTED).reason is RunnerReason.DONE
    assert counts(database) == [(1, 10_000)]


def test_a_server_that_restarts_is_waited_for(runner: Runner) -> None:
    server = Server().start()
    try:
        with server.database() as database:
            runner.url = database.url
            counted(database, 5000)
            process = runner.start("up", backfill=COUNTED | {"delay": "20ms"})
            until(
                "it moves on",
                lambda: exists(database) and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > 2,
            )
            server.kill()
            server.start()
            code, result, log = process.wait()
            assert (code, result and result.reason) == (0, RunnerReason.DONE), log
            assert counts(database) == [(1, 5000)]
    finally:
        server.stop()


# --- the data while it goes on --------------------------------------------------------------------------------------------


def test_rows_that_are_written_behind_the_cursor_are_swept(database: Database, runner: Runner) -> None:
    users(database, 2000)
    database.run("DELETE FROM users WHERE id <= 500")
    process = runner.start("up", backfill=LOWER | {"delay": "20ms"})
    until(
        "it moves on",
        lambda: exists(database) and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > 3,
    )
    database.run(
        "INSERT INTO users SELECT n, 'Late' || n FROM generate_series(1, 450) AS n",
        "INSERT INTO users VALUES (99999, 'Beyond')",
        "UPDATE users SET email = 'CHANGED' WHERE id = 501",
    )
    code, result, log = process.wait()
    assert code == 0, log
    assert result is not None
    assert result.rows == 1500 + 450 + 2
    assert database.value("SELECT count(*) FROM users WHERE email_norm IS DISTINCT FROM lower(email)") == 0


def test_rows_that_are_right_already_are_not_written(database: Database, runner: Runner) -> None:
    users(database, 1000)
    database.run("UPDATE users SET email_norm = lower(email) WHERE id % 2 = 0")
    assert runner.run("up", backfill=LOWER).rows == 500
    again = runner.run("up", backfill=LOWER, step="again")
    assert (again.reason, again.rows) == (RunnerReason.DONE, 0)


@pytest.mark.parametrize("database", [15], indirect=True)  # the wheels of 17 and 18 are built without ICU
@pytest.mark.parametrize(
    ("kind", "old", "new"),
    [
        ("numeric", "1.0", "1.00"),
        ("interval", "'30 days'", "'1 mon'"),
        ("box", "'((0,0),(1,1))'", "'((5,5),(6,6))'"),
        ("json", "'{\"a\":1}'", "'{\"a\": 1}'"),
        ("insensitive", "'A'", "'a'"),
        ("float8", "'-0'", "'0'"),
    ],
)
def test_what_is_equal_and_not_the_same_is_written(
    database: Database, runner: Runner, kind: str, old: str, new: str
) -> None:
    """A comparison by = would leave these rows as they are."""
    database.run(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE DOMAIN insensitive AS text COLLATE ci",
        f"CREATE TABLE users (id int PRIMARY KEY, v {kind})",
        f"INSERT INTO users VALUES (1, {old})",
    )
    work = LOWER | {"set": {"v": f"{new}::{kind}"}, "verify": "v IS NOT NULL"}
    assert runner.run("up", backfill=work).rows == 1
    assert database.value("SELECT v::text FROM users") == database.value(f"SELECT ({new}::{kind})::text")


def test_a_batch_that_fails_verify_is_not_kept(database: Database, runner: Runner) -> None:
    users(database, 1000)
    work = LOWER | {"verify": "email_norm = lower(email) AND id <= 350"}
    result = runner.run("up", backfill=work)
    assert (result.reason, result.number) == (RunnerReason.VERIFY_FAILED, 50)
    assert result.reason.code is ExitCode.VERIFY_FAILED
    assert database.value("SELECT count(*) FROM users WHERE email_norm IS NOT NULL") == 300


def test_a_default_that_has_filled_every_row_is_found_out(database: Database, runner: Runner) -> None:
    """The rows that `where` looks for are not there, and `verify` fails for half of the table: said, not passed over."""
    users(database, 1000)
    database.run("ALTER TABLE users ADD COLUMN even boolean DEFAULT false")
    work = LOWER | {"set": {"even": "id % 2 = 0"}, "where": "even IS NULL", "verify": "even = (id % 2 = 0)"}
    for direction in ("up", "up"):
        result = runner.run(direction, backfill=work)
        assert (result.reason, result.field, result.number) == (RunnerReason.MATCHES_NOTHING, "backfill.where", 500)
    assert runner.run("up", backfill=work | {"allowEmpty": True}).rows == 500, "the sweep goes by verify"


def test_a_row_that_somebody_locks_is_waited_for(database: Database, runner: Runner) -> None:
    users(database, 1000)
    with database.connect(autocommit=False, application_name="shop") as blocker:
        blocker.execute("UPDATE users SET email = email WHERE id = 555")
        result = runner.run("up", backfill=LOWER)
        assert (result.reason, result.lock_waits) == (RunnerReason.LOCKS, 5)
        assert [one.application for one in result.blockers] == ["shop"]
    assert database.value("SELECT count(*) FROM users WHERE email_norm IS NOT NULL") == 500
    assert runner.run("up", backfill=LOWER).reason is RunnerReason.DONE


# --- what cannot be done ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason", "field", "name"),
    [
        ({"table": "user"}, RunnerReason.TABLE_NOT_FOUND, "backfill.table", "did you mean users"),
        ({"set": {"email_nrm": "1"}}, RunnerReason.COLUMN_NOT_FOUND, "backfill.set", "did you mean email_norm"),
        ({"key": ["email"]}, RunnerReason.NULLABLE_KEY, "backfill.key", "email"),
        ({"table": "keyless", "set": {"a": "1"}}, RunnerReason.NO_USABLE_KEY, "backfill", "keyless"),
        ({"set": {"email_norm": "lower(email) FROM users"}}, RunnerReason.SCRIPT_SYNTAX, "backfill.set.email_norm", ""),
        ({"set": {"email_norm": "1), (SELECT 2"}}, RunnerReason.SCRIPT_SYNTAX, "backfill.set.email_norm", ""),
        ({"verify": "true) OR (true; DROP TABLE users"}, RunnerReason.SCRIPT_SYNTAX, "backfill.verify", ""),
        ({"where": "id > 0) UNION SELECT (1"}, RunnerReason.SCRIPT_SYNTAX, "backfill.where", ""),
        ({"throttle": {"query": "DELETE FROM users"}}, RunnerReason.SCRIPT_SYNTAX, "backfill.throttle.query", ""),
    ],
)
def test_a_backfill_that_cannot_be_done_is_told_by_field(
    database: Database, runner: Runner, change: dict[str, Any], reason: RunnerReason, field: str, name: str
) -> None:
    users(database, 10)
    database.run("CREATE TABLE keyless (a int, b int UNIQUE)")
    for direction in ("preflight", "up"):
        result = runner.run(direction, backfill=LOWER | change)
        assert (result.reason, result.field) == (reason, field)
        assert name in " ".join(result.names)
    assert database.value("SELECT count(*) FROM users WHERE email_norm IS NOT NULL") == 0


def test_no_value_of_a_row_is_told(database: Database, runner: Runner) -> None:
    users(database, 10)
    result = runner.run("up", backfill=LOWER | {"set": {"email_norm": "email::int::text"}})
    assert (result.reason, result.sqlstate) == (RunnerReason.STATEMENT_FAILED, "22P02")
    assert "xample" not in result.encode()


# --- how fast -----------------------------------------------------------------------------------------------------------------


def test_it_waits_while_the_query_says_so(database: Database, runner: Runner) -> None:
    users(database, 300)
    database.run("CREATE TABLE busy (n int)", "INSERT INTO busy VALUES (1)")
    process = runner.start("up", backfill=LOWER | {"throttle": {"query": "SELECT count(*) FROM busy"}})
    until("it begins", lambda: exists(database) and database.value("SELECT count(*) FROM cutover.progress") > 0)
    time.sleep(0.3)
    assert database.value("SELECT max(batches) FROM cutover.progress") == 0
    database.run("DELETE FROM busy")
    code, _, log = process.wait()
    assert code == 0, log


def test_it_keeps_to_the_maximum_rate(database: Database, runner: Runner) -> None:
    """It sleeps for what the batches were too fast; how long that is in all, its own sums say."""
    users(database, 300)
    begun = time.monotonic()
    result = runner.run("up", backfill=LOWER | {"maxRowsPerSecond": 300})
    assert result.reason is RunnerReason.DONE
    assert time.monotonic() - begun >= 0.6, "three batches at 300 rows a second, the last pause included or not"
