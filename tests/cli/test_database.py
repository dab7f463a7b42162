"""`cutover database` on a real server, as people and scripts call it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cutover.runner_messages.reasons import ExitCode
from harness.postgresql import Database
from harness.process import until

ADD = ("schema", "up=ALTER TABLE users ADD COLUMN email_norm text", "down=ALTER TABLE users DROP COLUMN email_norm")
FILL = (
    "backfill",
    "table=users",
    "set.email_norm=lower(email)",
    "verify=email_norm = lower(email)",
    "reverse.email_norm=NULL",
    "batchSize=100",
    "targetBatchTime=0s",
)


@pytest.fixture
def users(database: Database) -> Database:
    database.run(
        "CREATE TABLE users (id int PRIMARY KEY, email text NOT NULL)",
        "INSERT INTO users SELECT n, 'User' || n FROM generate_series(1, 1000) AS n",
        "ANALYZE users",
    )
    return database


def environment(url: str) -> dict[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "SHOP_URL": url, "KUBECONFIG": "/nowhere"}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cutover.cli", "database", *arguments, "--url-env", "SHOP_URL"]


def cutover(url: Database | str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = environment(url if isinstance(url, str) else url.url)
    return subprocess.run(command(*arguments), capture_output=True, text=True, check=False, env=env, timeout=120)


def started(database: Database, *arguments: str) -> subprocess.Popen[str]:
    env = environment(database.url)
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def moves(database: Database, batches: int = 2) -> None:
    """Wait until a backfill has got somewhere."""
    until(
        "it moves on",
        lambda: (
            database.value("SELECT to_regclass('cutover.history') IS NOT NULL")
            and (database.value("SELECT max(batches) FROM cutover.progress") or 0) > batches
        ),
    )


def test_a_schema_change_and_a_backfill_there_and_back(users: Database) -> None:
    done = cutover(users, *ADD, "--step", "expand")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"expand: done, [\d.]+ s\n", done.stdout), done.stdout
    assert "it was done already" in cutover(users, *ADD, "--step", "expand").stdout
    done = cutover(users, *FILL)
    assert done.returncode == 0, done.stderr
    assert "done, 1,000 rows in 10 batches" in done.stdout
    assert "Running, 0 of about 1,000 rows (0%)" in done.stderr
    assert users.value("SELECT count(*) FROM users WHERE email_norm = lower(email)") == 1000
    assert cutover(users, *FILL, "--verify").returncode == 0
    assert cutover(users, *FILL, "--undo").returncode == 0
    assert users.value("SELECT count(email_norm) FROM users") == 0
    assert cutover(users, *FILL, "--verify").returncode == ExitCode.VALIDATION_FAILED
    allowed = (*ADD, "allow=DropsData", "--step", "expand")
    assert cutover(users, *allowed, "--undo").returncode == 0
    kept = users.rows("SELECT step, direction, fence FROM cutover.history ORDER BY id")
    fill = kept[1][0]
    assert re.fullmatch("backfill-[0-9a-f]{8}", fill)
    assert kept == [("expand", "up", 1), (fill, "up", 1), (fill, "down", 2), ("expand", "down", 3)]


def test_a_dry_run_shows_all_and_writes_nothing(users: Database) -> None:
    users.run("ALTER TABLE users ADD COLUMN email_norm text")
    next_one = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
    before = users.value(next_one)
    text = "up=ALTER TABLE users ALTER email TYPE varchar(50);\nCREATE INDEX ON users (email);\nDROP TABLE users"
    done = cutover(users, "schema", text, "allow=DropsData", "--dry-run")
    assert done.returncode == ExitCode.BAD_INPUT
    version = users.server.version
    for line in (
        f"schema, up on PostgreSQL {version}",
        "schema.up, line 1: ALTER TABLE users ALTER email TYPE varchar(50)",
        "users (about 1,000 rows): ACCESS EXCLUSIVE, stops readers and writers, writes the table and its indexes again",
        "RewritesTable: add a new column, fill it by a backfill, and switch to it",
        "users (about 1,000 rows): SHARE, stops writers, builds an index",
        "DropsData: allowed",
    ):
        assert line in done.stdout, done.stdout
    assert "HazardNotAllowed: schema.up: has hazards that are not allowed: RewritesTable" in done.stderr
    assert done.stderr.endswith("nothing was written\n")
    done = cutover(users, *FILL, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "nothing was written\n")
    assert '"id") > ($1::integer) AND ("id") <= ($2::integer)' in done.stdout
    assert re.search(r"about \d+ rows would be changed\n  users: about 1,000 rows\n", done.stdout), done.stdout
    asked = "queries=[{name: gone, orphans: {table: users, columns: [id], references: users}}]"
    assert "NOT EXISTS (SELECT FROM" in cutover(users, "validate", asked, "--dry-run").stdout
    assert users.value(next_one) == before, "no transaction has written anything"
    assert users.value("SELECT to_regnamespace('cutover') IS NULL")


def test_questions_are_answered_one_by_one(users: Database, tmp_path: Path) -> None:
    file = tmp_path / "checks.yaml"
    file.write_text(
        "queries:\n- {name: empty, sql: 'SELECT count(*) FROM users'}\n- {name: keys, nulls: {table: users, columns: [id]}}\n"
    )
    done = cutover(users, "validate", "--file", str(file))
    assert done.returncode == ExitCode.VALIDATION_FAILED
    assert "  empty: 1000 failures\n  keys: 0 failures\n" in done.stdout
    assert "ValidationFailed: validate: empty: 1000 failures" in done.stderr


def test_a_file_has_the_fields_as_a_plan_has_them(users: Database, tmp_path: Path) -> None:
    script, file = tmp_path / "up.sql", tmp_path / "step.yaml"
    script.write_text("ALTER TABLE users ADD COLUMN a int;\n")
    file.write_text("database: shop\nup: {inline: ALTER TABLE users ADD COLUMN b int}\ndown: {inline: SELECT 1}\n")
    assert cutover(users, "schema", "--file", str(file)).returncode == 0
    assert cutover(users, "schema", "--file", str(file), f"up=@{script}").returncode == 0
    assert users.value("SELECT count(a) + count(b) FROM users") == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["backfill", "table=users", "setx=1", "batchSize=x"], ["backfill.set: required", "backfill.verify: required", "did you mean set?", "batchSize: 'x' is a string"]),
        (["backfill", "table"], ["table: is not FIELD=VALUE; write such as table=users"]),
        (["schema", "up=@/nowhere.sql"], ["/nowhere.sql: cannot be read (FileNotFoundError)"]),
        (["schema", "up=SELECT 1", "allow=Nothing"], ["schema.allow[0]: 'Nothing' is not supported; use 'RewritesTable'"]),
        (["schema", "up=SELECT 1", "database.lockTimeout=0s"], ["database.lockTimeout: 0s would wait for ever"]),
        (["index"], ["index is not a kind of step in a database; use schema, backfill, validate"]),
        (["schema", "up=SELECT 1", "--undo", "--verify"], ["keep one of them"]),
    ],
    ids=range(7),
)  # fmt: skip
def test_mistakes_are_told_all_at_once_before_anybody_connects(arguments: Sequence[str], says: Sequence[str]) -> None:
    done = cutover("postgresql://nobody@127.0.0.1:1/none", *arguments)
    assert done.returncode == 64, done.stderr
    for one in says:
        assert one in done.stderr


def test_the_url_is_never_an_argument() -> None:
    env = environment("")
    program = [sys.executable, "-m", "cutover.cli", "database", "schema", "up=SELECT 1"]
    for more, says in (
        ([], "--url-env is missing"),
        (["--url-env", "NOWHERE"], "the environment variable NOWHERE is not set"),
        (["--url-env", "postgresql://a:secret@b/c"], "others can see the arguments"),
    ):
        done = subprocess.run([*program, *more], capture_output=True, text=True, check=False, env=env, timeout=60)
        assert done.returncode == 64
        assert says in done.stderr
        assert "secret" not in done.stderr


def test_exit_codes_are_those_of_the_runner(users: Database) -> None:
    done = cutover("postgresql://nobody@127.0.0.1:1/none", *ADD)
    assert done.returncode == ExitCode.CONNECTION
    assert "ConnectionRefused: the server cannot be reached" in done.stderr
    assert cutover(users, "schema", "up=SELEC 1").returncode == ExitCode.BAD_INPUT
    assert cutover(users, *FILL).returncode == ExitCode.BAD_INPUT, "there is no such column"


def test_without_the_packages_it_says_how_to_install_them() -> None:
    program = "import sys; sys.modules['psycopg'] = None; from cutover.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "database", "schema", "up=SELECT 1", "--url-env", "SHOP_URL"],
        capture_output=True,
        text=True,
        check=False,
        env=environment("postgresql://a@b/c"),
        timeout=60,
    )
    assert done.returncode == 1
    assert "error: the packages for databases are not installed; install them with the extra database" in done.stderr
    assert "Traceback" not in done.stderr


# --- interrupted, and two at once -----------------------------------------------------------------------------------------


def test_a_signal_ends_it_and_the_same_command_goes_on(users: Database) -> None:
    users.run("ALTER TABLE users ADD COLUMN n int NOT NULL DEFAULT 0")
    count = ("backfill", "table=users", "set.n=n + 1", "verify=n > 0", "batchSize=50", "targetBatchTime=0s")
    process = started(users, *count, "delay=100ms", "--step", "count")
    moves(users)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, log
    assert "count: Interrupted: stopped by a signal" in log
    assert len(users.rows("SELECT DISTINCT n FROM users")) == 2, "in the middle"
    assert cutover(users, *count, "--step", "count").returncode == 0
    assert users.rows("SELECT DISTINCT n FROM users") == [(1,)]


def test_who_begins_later_takes_over(users: Database) -> None:
    users.run("ALTER TABLE users ADD COLUMN email_norm text")
    process = started(users, *FILL, "delay=3s", "--step", "fill")
    moves(users, 0)
    assert cutover(users, *FILL, "--undo", "--step", "fill").returncode == 0
    _, log = process.communicate(timeout=60)
    assert process.returncode == ExitCode.FENCED, log
    assert users.value("SELECT count(email_norm) FROM users") == 0


def test_on_a_terminal_there_is_a_bar(users: Database) -> None:
    users.run("ALTER TABLE users ADD COLUMN email_norm text")
    here, there = pty.openpty()
    env = environment(users.url) | {"TERM": "xterm"}
    process = subprocess.Popen(command(*FILL, "delay=100ms"), stdout=there, stderr=there, stdin=there, env=env)
    os.close(there)
    seen = bytearray()

    def read() -> None:
        while True:
            try:
                data = os.read(here, 65536)
            except OSError:  # Linux says so when the other end is closed
                return
            seen.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0, seen.decode()
    reader.join(10)
    os.close(here)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    bars = [line for line in re.split(r"[\r\n]+", shown) if "━" in line]
    assert any(re.search(r"Running ━.*[1-9]00 of about 1,000 rows \(\d0%\).* a second", line) for line in bars), shown
    assert "done, 1,000 rows in 10 batches" in shown
