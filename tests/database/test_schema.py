"""The kind `schema` on real servers: a script, its validation and the row that says so are one transaction."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from cutover.database.engines.base import Statement
from cutover.database.engines.postgresql.engine import Postgresql
from cutover.database.outcome import Ended
from cutover.runner_messages.payload import DatabaseSettings
from cutover.runner_messages.reasons import ExitCode, RunnerReason
from cutover.runner_messages.sentences import sentence
from harness.postgresql import Database
from harness.process import until
from support.database.runner import Runner, script

VERSIONS = pytest.mark.parametrize("database", [15, 17, 18], indirect=True)
USERS = "CREATE TABLE users (id int PRIMARY KEY, email text, email_confirmed_at timestamptz)"
ADD: dict[str, Any] = {
    "up": script("ALTER TABLE users ADD COLUMN email_verified boolean"),
    "down": script("ALTER TABLE users DROP COLUMN email_verified"),
    "validate": script("SELECT count(*) FROM users WHERE email_verified IS NOT NULL"),
    "allow": ["DropsData"],
}
COLUMNS = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"


@pytest.fixture
def users(database: Database) -> Database:
    database.run(USERS, "INSERT INTO users SELECT n, 'A' || n, now() FROM generate_series(1, 10) AS n")
    return database


def columns(database: Database) -> str:
    return str(database.value(COLUMNS))


@VERSIONS
def test_up_verify_and_down_once_each(users: Database, runner: Runner) -> None:
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.DONE
    assert users.rows("SELECT nspname FROM pg_namespace WHERE nspname = 'cutover'") == [], "preflight only reads"
    assert runner.run("verify", schema=ADD).reason is RunnerReason.NOT_DONE
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE
    assert columns(users) == "id email email_confirmed_at email_verified"
    assert runner.run("up", schema=ADD).reason is RunnerReason.ALREADY_DONE
    assert runner.run("verify", schema=ADD).reason is RunnerReason.DONE
    assert runner.run("down", schema=ADD, fence=2).reason is RunnerReason.DONE
    assert columns(users) == "id email email_confirmed_at"
    assert runner.run("down", schema=ADD, fence=2).reason is RunnerReason.ALREADY_DONE
    assert runner.run("verify", schema=ADD, fence=2).reason is RunnerReason.NOT_DONE
    assert runner.run("up", schema=ADD, fence=3, attempt=2).reason is RunnerReason.DONE
    kept = users.rows("SELECT direction, attempt, script, down FROM cutover.history ORDER BY id")
    up, down = ADD["up"]["text"], ADD["down"]["text"]
    assert kept == [("up", 1, up, down), ("down", 1, down, ""), ("up", 2, up, down)]


def test_the_entry_point_leaves_a_result_and_an_exit_code(users: Database, runner: Runner) -> None:
    code, result, log = runner.start("up", schema=ADD).wait()
    assert (code, result and result.reason) == (0, RunnerReason.DONE), log
    assert columns(users).endswith("email_verified")
    code, result, log = runner.start("up", schema={"up": script("SELEC 1")}, step="other").wait()
    assert (code, result and result.reason) == (int(ExitCode.BAD_INPUT), RunnerReason.SCRIPT_SYNTAX)
    assert "schema.up: is not valid SQL in line 1" in log


def test_nothing_is_undone_that_was_never_done(users: Database, runner: Runner) -> None:
    before = columns(users)
    assert runner.run("down", schema=ADD, fence=2).reason is RunnerReason.NOTHING_TO_UNDO
    assert runner.run("up", schema=ADD, fence=1).reason is RunnerReason.FENCED, "a late do, after its undo"
    assert columns(users) == before


def test_a_failed_validation_takes_the_change_with_it(users: Database, runner: Runner) -> None:
    wrong = ADD | {
        "validate": script("SELECT count(*) FROM users;\n\nSELECT email_verified IS NULL FROM users WHERE id < 4")
    }
    result = runner.run("up", schema=wrong)
    assert (result.reason, result.statement, result.number) == (RunnerReason.VALIDATION_FAILED, 1, 10)
    right = ADD | {
        "validate": script("SELECT 1 WHERE false; SELECT true; SELECT 'orphans', 0 UNION ALL SELECT 'nulls', 0")
    }
    assert columns(users) == "id email email_confirmed_at"
    assert runner.run("up", schema=right).reason is RunnerReason.DONE


@pytest.mark.parametrize(
    ("question", "failures"),
    [
        ("SELECT 'a', 2 UNION ALL SELECT 'b', 3", 5),
        ("SELECT false", 1),
        ("SELECT NULL::int", 1),
        ("SELECT 'NaN'::float8", 1),
        ("SELECT 0.5", 1),
        ("SELECT email FROM users WHERE id <= 3", 3),
        ("SELECT -4", 4),
    ],
)
def test_what_counts_as_a_failure(users: Database, runner: Runner, question: str, failures: int) -> None:
    del users
    result = runner.run("validate", schema=ADD | {"validate": script(question)})
    assert (result.reason, result.number) == (RunnerReason.VALIDATION_FAILED, failures)


def test_validation_cannot_write(users: Database, runner: Runner) -> None:
    users.run("CREATE FUNCTION sly() RETURNS int LANGUAGE sql AS 'DELETE FROM users RETURNING 0'")
    result = runner.run("up", schema=ADD | {"validate": script("SELECT sly()")})
    assert result.reason is RunnerReason.STATEMENT_FAILED
    assert result.sqlstate == "25006"
    assert users.value("SELECT count(*) FROM users") == 10


def test_an_error_names_its_statement_and_line_and_keeps_nothing(users: Database, runner: Runner) -> None:
    text = "ALTER TABLE users ADD COLUMN a int;\n\n-- and\nINSERT INTO users (id,\n  email) VALUES (1,\n 'secret@example.com');"
    result = runner.run("up", schema={"up": script(text)})
    assert (result.reason, result.statement, result.line) == (RunnerReason.STATEMENT_FAILED, 2, 4)
    assert (result.sqlstate, result.names) == ("23505", ("UniqueViolation", "users", "users_pkey"))
    assert "secret" not in result.encode() + sentence(result)
    assert columns(users) == "id email email_confirmed_at"
    result = runner.run("up", schema={"up": script("SELECT 1;\nSELECT id,\n  nonsense FROM users")})
    assert (result.statement, result.line) == (2, 3), "the server's position counts"


@pytest.mark.parametrize(
    ("text", "reason", "statement"),
    [
        ("CREATE TABLE a (i int); COMMIT; CREATE TABLE b (i int)", RunnerReason.TRANSACTION_STATEMENT, 2),
        ("SAVEPOINT a", RunnerReason.TRANSACTION_STATEMENT, 1),
        ("CREATE INDEX CONCURRENTLY ON users (email)", RunnerReason.NON_TRANSACTIONAL, 1),
        ("DROP INDEX CONCURRENTLY i", RunnerReason.NON_TRANSACTIONAL, 1),
        ("REINDEX TABLE CONCURRENTLY users", RunnerReason.NON_TRANSACTIONAL, 1),
        ("SELECT 1; VACUUM users", RunnerReason.NON_TRANSACTIONAL, 2),
        ("ALTER TABLE a DETACH PARTITION b CONCURRENTLY", RunnerReason.NON_TRANSACTIONAL, 1),
        ("ALTER SYSTEM SET work_mem = '1GB'", RunnerReason.NON_TRANSACTIONAL, 1),
        (" -- nothing\n ;", RunnerReason.SCRIPT_EMPTY, 0),
        ("SELECT 1;\nSELEC 2", RunnerReason.SCRIPT_SYNTAX, 0),
        ("SELECT 1; \0 DROP TABLE users", RunnerReason.SCRIPT_SYNTAX, 0),
        ("SELECT " + "1+" * 20_000 + "1", RunnerReason.SCRIPT_SYNTAX, 0),
    ],
    ids=range(12),
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    users: Database, runner: Runner, text: str, reason: RunnerReason, statement: int
) -> None:
    for direction in ("preflight", "up"):
        result = runner.run(direction, schema={"up": script(text), "allow": ["NeedsReview"]})
        assert (result.reason, result.statement) == (reason, statement)
        assert result.reason.code is ExitCode.BAD_INPUT
    assert users.value("SELECT to_regnamespace('cutover') IS NULL")


def test_a_body_with_semicolons_is_one_statement(users: Database, runner: Runner) -> None:
    text = "/* a; /* b; */ */ CREATE FUNCTION ü() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END; SELECT $q$;$q$, E'\\';'"
    assert runner.run("up", schema={"up": script(text), "allow": ["NeedsReview"]}).reason is RunnerReason.DONE
    assert users.value("SELECT ü()") == 2


def test_a_script_that_is_another_one_than_when_the_run_began_is_refused(users: Database, runner: Runner) -> None:
    other = {"up": {"text": "SELECT 1", "sha256": "0" * 64}}
    assert runner.run("up", schema=other).reason is RunnerReason.SCRIPT_CHANGED
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE
    assert runner.run("up", schema=ADD | {"up": script("SELECT 1")}).reason is RunnerReason.SCRIPT_CHANGED
    assert columns(users).endswith("email_verified")


def test_a_script_may_be_a_file_in_the_pod(users: Database, runner: Runner) -> None:
    file = runner.folder / "up.sql"
    file.write_text("ALTER TABLE users ADD COLUMN ü int")
    assert runner.run("up", schema={"up": {"file": str(file)}}).reason is RunnerReason.DONE
    assert columns(users).endswith(" ü")
    assert runner.run("up", schema={"up": {"file": "/nowhere.sql"}}, step="b").field == "schema.up.file"


def test_percent_signs_and_dollars_are_text(users: Database, runner: Runner) -> None:
    text = "INSERT INTO users (id, email) VALUES (11, '100%s %(a)s $1 %')"
    assert runner.run("up", schema={"up": script(text), "allow": ["NeedsReview"]}).reason is RunnerReason.DONE
    assert users.value("SELECT email FROM users WHERE id = 11") == "100%s %(a)s $1 %"


def test_a_column_of_another_type_has_statistics_at_once(users: Database, runner: Runner) -> None:
    """The server deletes them, even where it writes no row again, and does not make them by itself."""
    users.run("ALTER TABLE users ADD COLUMN short varchar(10)", "UPDATE users SET short = email", "ANALYZE users")
    known = "SELECT count(*) FROM pg_stats WHERE tablename = 'users' AND attname = 'short'"
    with users.connect(autocommit=False) as connection:
        connection.execute("ALTER TABLE users ALTER short TYPE varchar(20)")
        (left,) = connection.execute(known.encode()).fetchone() or (1,)
        connection.rollback()
    assert left == 0
    work = {
        "up": script("ALTER TABLE users ALTER short TYPE varchar(20)"),
        "down": script("ALTER TABLE users ALTER short TYPE varchar(10)"),
        "allow": ["RewritesTable"],
    }
    assert runner.run("up", schema=work).reason is RunnerReason.DONE
    assert users.value(known) == 1
    users.run("ALTER TABLE users ALTER short TYPE varchar(20)")  # as if it had died before
    assert users.value(known) == 0
    assert runner.run("up", schema=work).reason is RunnerReason.ALREADY_DONE
    assert users.value(known) == 1
    assert runner.run("down", schema=work, fence=2).reason is RunnerReason.DONE
    assert users.value(known) == 1


# --- locks ------------------------------------------------------------------------------------------------------------


@contextmanager
def blocking(database: Database, application: str = "nightly report") -> Iterator[Any]:
    """A session that is idle in a transaction which has read the table."""
    with database.connect(autocommit=False, application_name=application) as blocker:
        blocker.execute("SELECT count(*) FROM users")
        yield blocker


def test_who_has_the_lock_is_named_when_the_budget_is_used_up(users: Database, runner: Runner) -> None:
    with blocking(users) as blocker:
        pid = blocker.info.backend_pid
        result = runner.run("up", schema=ADD)
    assert (result.reason, result.reason.code, result.lock_waits) == (RunnerReason.LOCKS, ExitCode.LOCKS, 5)
    (found,) = result.blockers
    assert (found.pid, found.application, found.state) == (pid, "nightly report", "idle in transaction")
    assert columns(users) == "id email email_confirmed_at"
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE


def test_the_lock_is_had_when_the_blocker_ends(users: Database, runner: Runner) -> None:
    runner.settings["lockRetries"] = {"maxAttempts": 1000, "backoff": "50ms", "maxBackoff": "100ms"}
    done = []
    with blocking(users) as blocker:
        work = threading.Thread(target=lambda: done.append(runner.run("up", schema=ADD)))
        work.start()
        until("it waits", lambda: users.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0)
        time.sleep(0.5)  # longer than lockTimeout, so that it has to try again
        blocker.rollback()
        work.join(60)
    (result,) = done
    assert (result.reason, result.lock_waits > 0) == (RunnerReason.DONE, True)


# --- two at once, and none ----------------------------------------------------------------------------------------------


def test_two_runners_of_one_job_do_it_once(users: Database, runner: Runner) -> None:
    users.run("CREATE TABLE counted (n int)")
    work = {"up": script("INSERT INTO counted (n) SELECT 1 FROM pg_sleep(0.2)"), "allow": ["NeedsReview"]}
    runner.settings["lockRetries"] = {"maxAttempts": 1000, "backoff": "50ms", "maxBackoff": "100ms"}
    both = [runner.start("up", schema=work) for _ in range(2)]
    ended = [process.wait() for process in both]
    assert sorted(str(result and result.reason) for _, result, _ in ended) == ["AlreadyDone", "Done"], ended
    assert users.value("SELECT count(*) FROM counted") == 1


@pytest.mark.parametrize("way_out", ["COMMIT", "ROLLBACK"])
def test_a_script_that_leaves_its_transaction_is_found_out(users: Database, way_out: str) -> None:
    """The parser refuses such scripts; should one get past it, the transaction's own number tells."""
    session = Postgresql(users.url, DatabaseSettings(name="shop"), "test").connect()

    def escape() -> None:
        with session.transaction() as tx:
            tx.run(Statement("CREATE TABLE IF NOT EXISTS escaped (i int)", 1, 1), "schema.up")
            tx.run(Statement(way_out, 2, 1), "schema.up")

    with pytest.raises(Ended) as ended:
        escape()
    session.close()
    assert ended.value.result.reason is RunnerReason.ESCAPED
    assert ended.value.result.reason.code is ExitCode.TRANSACTION_ESCAPED


# --- a server that cannot be used ---------------------------------------------------------------------------------------


def test_a_role_without_rights_is_told_which(users: Database, runner: Runner) -> None:
    users.run("CREATE ROLE mere LOGIN")
    try:
        runner.url = users.server.url(users.name, user="mere")
        for direction in ("preflight", "up"):
            result = runner.run(direction, schema=ADD)
            assert result.reason is RunnerReason.PRIVILEGE
            assert f"GRANT CREATE ON DATABASE {users.name} TO mere" in sentence(result)
        users.run("CREATE SCHEMA cutover", "GRANT USAGE, CREATE ON SCHEMA cutover TO mere")
        assert runner.run("preflight", schema=ADD).reason is RunnerReason.DONE
        result = runner.run("up", schema=ADD)
        assert (result.reason, result.field, result.statement) == (RunnerReason.PRIVILEGE, "schema.up", 1)
        users.run("ALTER TABLE users OWNER TO mere")
        assert runner.run("up", schema=ADD).reason is RunnerReason.DONE
    finally:
        users.run("DROP OWNED BY mere CASCADE", "DROP ROLE mere")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://postgres@127.0.0.1:{port}/nowhere", RunnerReason.DATABASE_NOT_FOUND),
        ("postgresql://nobody@127.0.0.1:{port}/postgres", RunnerReason.AUTHENTICATION),
        ("postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=require", RunnerReason.TLS_FAILED),
        ("mysql://postgres@127.0.0.1:{port}/postgres", RunnerReason.INVALID_URL),
        ("postgresql://postgres@/postgres", RunnerReason.INVALID_URL),
        ("postgresql://:::/", RunnerReason.INVALID_URL),
        ("", RunnerReason.INVALID_URL),
    ],
)
def test_a_url_that_does_not_do_is_told_by_its_reason(
    database: Database, runner: Runner, url: str, reason: RunnerReason
) -> None:
    runner.url = url.format(port=database.server.port)
    result = runner.run("preflight", schema=ADD)
    assert (result.reason, result.reason.code) == (reason, ExitCode.BAD_INPUT)


def test_parts_stand_in_for_what_the_url_lacks(users: Database, runner: Runner) -> None:
    runner.url = "postgresql+psycopg://postgres@"
    runner.settings |= {"host": "127.0.0.1", "port": users.server.port, "database": users.name}
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE


def test_a_read_only_server_is_no_place_to_write(users: Database, runner: Runner) -> None:
    users.run(f"ALTER DATABASE {users.name} SET default_transaction_read_only = on")
    assert runner.run("preflight", schema=ADD).reason is RunnerReason.READ_ONLY
    assert RunnerReason.READ_ONLY.code is ExitCode.CONNECTION, "after a fail-over the next try finds the primary"


def test_all_that_preflight_finds_is_told_at_once(users: Database, runner: Runner) -> None:
    users.run(f"ALTER DATABASE {users.name} SET default_transaction_read_only = on")
    work = {"up": script("COMMIT"), "down": script("SELEC"), "validate": script("")}
    said = sentence(runner.run("preflight", schema=work))
    for part in (
        "takes no writes",
        "schema.up: begins or ends",
        "schema.down: is not valid",
        "schema.validate: has no",
    ):
        assert part in said


def test_the_journal_of_a_newer_version_is_left_alone(users: Database, runner: Runner) -> None:
    assert runner.run("up", schema=ADD).reason is RunnerReason.DONE
    users.run("COMMENT ON TABLE cutover.history IS 'bookkeeping of Cutover, version 99'")
    for direction in ("preflight", "up", "down", "verify"):
        result = runner.run(direction, schema=ADD, fence=2)
        assert (result.reason, result.number) == (RunnerReason.NEWER_JOURNAL, 99)
