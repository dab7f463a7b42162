"""`cutover database` on a real server, as people and scripts call it."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

from cutover.cli import main
from cutover.runner_messages.reasons import ExitCode
from harness.cluster import ROOT
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


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def cutover(url: Database | str, *arguments: str, options: Sequence[str] = ("--url-env", "SHOP_URL")) -> Done:
    """In this process, which is quicker; the tests below that kill it or look at its terminal start one."""
    env = environment(url if isinstance(url, str) else url.url)
    said, complained = io.StringIO(), io.StringIO()
    argv = ["cutover", *(() if "lint" in arguments[:1] else ("database",)), *arguments, *options]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(complained):
        patch.setattr(os, "environ", env)
        patch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as end:
            main()
    return Done(int(end.value.code or 0), said.getvalue(), complained.getvalue())


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
    assert "1000 rows in 10 batches" in done.stdout
    assert "Running, 0 of about 1,000 rows (0%)" in done.stderr
    assert users.value("SELECT count(*) FROM users WHERE email_norm = lower(email)") == 1000
    assert cutover(users, *FILL, "--verify").returncode == 0
    assert cutover(users, *FILL, "--undo").returncode == 0
    assert users.value("SELECT count(email_norm) FROM users") == 0
    assert cutover(users, *FILL, "--verify").returncode == ExitCode.VALIDATION_FAILED
    assert cutover(users, *ADD, "allow=DropsData", "--step", "expand", "--undo").returncode == 0
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
    assert "ValidationFailed: validate: empty: 1000 failures" in done.stderr
    done = cutover(users, "validate", "queries=[{name: keys, nulls: {table: users, columns: [id]}}]")
    assert (done.returncode, done.stdout.partition(": ")[2].partition(",")[0]) == (0, "keys: 0 failures")


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
    ],
    ids=range(5),
)  # fmt: skip
def test_mistakes_are_told_all_at_once_before_anybody_connects(arguments: Sequence[str], says: Sequence[str]) -> None:
    done = cutover("postgresql://nobody@127.0.0.1:1/none", *arguments)
    assert done.returncode == ExitCode.BAD_INPUT, done.stderr
    for one in says:
        assert one in done.stderr


def test_wrong_usage() -> None:
    for arguments, says in (
        (
            ["index"],
            "index is neither a kind of step in a database (schema, backfill, validate) nor the file of a plan",
        ),
        (["schema", "up=SELECT 1", "--undo", "--verify"], "keep one of them"),
        (["schema", "up=SELECT 1", "--step", "a", "--step", "b"], "--step names the one step"),
    ):
        done = cutover("postgresql://nobody@127.0.0.1:1/none", *arguments)
        assert (done.returncode, says in done.stderr) == (64, True), done.stderr


def test_the_url_is_never_an_argument() -> None:
    for options, says in (
        ([], "--url-env is missing"),
        (["--url-env", "NOWHERE"], "the environment variable NOWHERE is not set"),
        (["--url-env", "postgresql://a:secret@b/c"], "others can see the arguments"),
    ):
        done = cutover("", "schema", "up=SELECT 1", options=options)
        assert (done.returncode, says in done.stderr) == (64, True), done.stderr
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


# --- a plan ---------------------------------------------------------------------------------------------------------------

PLAN = """
apiVersion: cutover.dev/v1alpha1
kind: MigrationPlan
metadata: {name: emails, namespace: shop}
spec:
  serviceAccountName: migrator
  databases:
    - {name: shop, engine: postgresql, host: db.shop, database: shop, user: app}
  steps:
    - name: expand
      schema:
        up: {inline: "ALTER TABLE users ADD COLUMN email_norm text"}
        down: {inline: "ALTER TABLE users DROP COLUMN email_norm"}
        allow: [DropsData]
    - {name: pause, wait: {for: 1h}}
    - name: fill
      backfill:
        table: users
        set: {email_norm: lower(email)}
        verify: email_norm = lower(email)
        reverse: {email_norm: "NULL"}
    - name: unique
      validate: {queries: [{name: twice, duplicates: {table: users, columns: [email_norm]}}]}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN)
    return file


def test_all_database_steps_of_a_plan_there_and_back(users: Database, plan: Path) -> None:
    done = cutover(users, str(plan), "--dry-run")
    assert (done.returncode, done.stderr) == (0, "nothing was written\n")
    assert "fill: backfill, up" in done.stdout
    assert "about 1,000 rows would be changed" in done.stdout, "of a column that an earlier step adds"
    assert users.value("SELECT to_regnamespace('cutover') IS NULL")
    done = cutover(users, str(plan))
    assert done.returncode == 0, done.stderr
    said = [re.sub(r"[\d.]+ s$", "", line) for line in done.stdout.splitlines()]
    assert said == [
        "pause: wait, which does not work in a database: left out",
        "expand: done, ",
        "fill: 1000 rows in 1 batches, ",
        "unique: twice: 0 failures, ",
    ]
    assert cutover(users, str(plan), "--verify").returncode == 0
    assert "fill: backfill, up on PostgreSQL 18: done already" in cutover(users, str(plan), "--dry-run").stdout
    assert cutover(users, str(plan), "--undo").returncode == 0
    assert users.rows("SELECT step, direction FROM cutover.history ORDER BY id")[3:] == [
        ("fill", "down"),
        ("expand", "down"),
    ]
    assert (
        users.value(
            "SELECT count(*) FROM pg_attribute WHERE attrelid = 'users'::regclass AND attnum > 0 AND NOT attisdropped"
        )
        == 2
    )


def test_what_would_stop_a_later_step_is_said_before_the_first(users: Database, plan: Path) -> None:
    plan.write_text(PLAN.replace("table: users\n", "table: user\n").replace("lower(email)}", "lower(email}"))
    done = cutover(users, str(plan))
    assert done.returncode == ExitCode.BAD_INPUT
    assert "fill: ScriptSyntax: backfill.set.email_norm: is not valid SQL" in done.stderr
    assert done.stderr.endswith("nothing was written\n")
    plan.write_text(PLAN.replace("table: users\n", "table: user\n"))
    assert (
        "fill: TableNotFound: backfill.table: no table is named (user, did you mean users)"
        in cutover(users, str(plan)).stderr
    )
    assert users.value("SELECT to_regnamespace('cutover') IS NULL")


def test_some_steps_of_a_plan(users: Database, plan: Path) -> None:
    assert cutover(users, str(plan), "--step", "expand").returncode == 0
    assert users.rows("SELECT step FROM cutover.history") == [("expand",)]
    done = cutover(users, str(plan), "--step", "pause")
    assert (done.returncode, "no database step is named pause; use expand, fill, unique" in done.stderr) == (64, True)


def test_a_plan_that_stopped_at_its_first_step_is_taken_back(users: Database, plan: Path) -> None:
    users.run("CREATE VIEW seen AS SELECT * FROM users", "ALTER TABLE users RENAME TO people")
    assert cutover(users, str(plan), "--step", "expand").returncode == ExitCode.BAD_INPUT
    users.run("ALTER TABLE people RENAME TO users")
    done = cutover(users, str(plan), "--undo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("so nothing is undone") == 2, done.stdout


def test_each_database_of_a_plan_has_its_url(users: Database, plan: Path) -> None:
    two = PLAN.replace(
        "  steps:", "    - {name: other, engine: postgresql, host: other, database: o, user: o}\n  steps:"
    )
    two = two.replace("schema:\n", "schema:\n        database: shop\n").replace(
        "backfill:\n", "backfill:\n        database: other\n"
    )
    plan.write_text(two.replace("validate: {", "validate: {database: shop, "))
    for options, says in (
        (["--url-env", "SHOP_URL"], ["name the database of SHOP_URL, as --url-env shop=SHOP_URL"]),
        (["--url-env", "shop=SHOP_URL"], ["database other has no URL; give --url-env other=NAME"]),
        (["--url-env", "shop=NOWHERE", "--url-env", "third=SHOP_URL"], ["NOWHERE is not set", "third is not a database that these steps use; use shop, other", "database other has no URL"]),
    ):  # fmt: skip
        done = cutover(users, str(plan), "--dry-run", options=options)
        assert done.returncode == 64
        for one in says:
            assert one in done.stderr, done.stderr
    both = ["--url-env", "shop=SHOP_URL", "--url-env", "other=SHOP_URL"]
    done = cutover(users, str(plan), "--dry-run", options=both)
    assert done.returncode == 0, done.stderr


def test_a_plan_that_is_wrong_is_told_as_by_lint(users: Database, plan: Path) -> None:
    plan.write_text(PLAN.replace("        table: users\n", "").replace("engine: postgresql", "engine: oracle"))
    done = cutover(users, str(plan))
    assert done.returncode == ExitCode.BAD_INPUT
    assert "steps[fill].backfill.table: required field is missing" in done.stderr
    assert "databases[shop].engine: 'oracle' is not supported" in done.stderr


def test_the_readme_as_it_is_written(users: Database, tmp_path: Path) -> None:
    """The plan, and each command in its turn, in a shell."""
    section = (ROOT / "README.md").read_text().partition("## On your own PostgreSQL")[2].partition("\n## ")[0]
    (plan,), (shell,) = (
        re.findall(rf"^```{kind}\n(.*?)^```", section, re.MULTILINE | re.DOTALL) for kind in ("yaml", "sh")
    )
    (tmp_path / "emails.yaml").write_text(plan)
    commands = [line for line in shell.splitlines() if line.startswith("cutover ")]
    env = environment(users.url) | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    right = "SELECT count(*) FROM users WHERE email_norm = lower(email)"
    before = users.rows("SELECT * FROM users ORDER BY id")
    for line, option in zip(commands, ("--dry-run", "", "--undo"), strict=True):
        assert option in line
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        if option:
            assert users.rows("SELECT * FROM users ORDER BY id") == before
        else:
            assert users.value(right) == 1000


def lint(plan: Path, *options: str) -> Done:
    return cutover("", "lint", str(plan), *options, options=())


def test_lint_reads_the_sql_of_a_plan(plan: Path) -> None:
    assert lint(plan).stdout == "no errors\n"
    wrong = PLAN.replace("ADD COLUMN email_norm text", "ALTER id TYPE bigint; CREATE INDEX ON users (id); SET x TO 1")
    wrong = wrong.replace("verify: email_norm = lower(email)", "verify: email_norm = lower(")
    wrong = wrong.replace("{queries: [", "{queries: [{name: writes, sql: DELETE FROM users}, ")
    plan.write_text(wrong)
    done = lint(plan)
    assert done.returncode == 1
    lines = [line.removeprefix(f"{plan}: ") for line in done.stderr.splitlines()]
    locked = "ACCESS EXCLUSIVE, stops readers and writers, writes the table and its indexes again"
    assert lines[0] == (
        f"steps[expand].schema.up: RewritesTable (statement 1, line 1, table users: {locked}); "
        "add a new column, fill it by a backfill, and switch to it, or add RewritesTable to allow"
    )
    assert [line.partition(" ")[2].partition(" ")[0] for line in lines[1:3]] == ["BuildsIndex", "DmlAfterBlockingDdl"]
    assert lines[3].startswith("steps[fill].backfill.verify: is not valid SQL")
    assert lines[4].startswith("steps[unique].validate.queries[writes].sql: is not valid SQL (write one query")
    assert lines[5:] == ["5 errors"]


def test_lint_knows_what_an_old_server_does_not(plan: Path) -> None:
    plan.write_text(PLAN.replace("email_norm text", "email_norm text GENERATED ALWAYS AS (lower(email))"))
    assert lint(plan).returncode == 0
    done = lint(plan, "--postgresql", "17")
    assert done.returncode == 1
    assert (
        "steps[expand].schema.up: is not valid SQL in statement 1, line 1 (PostgreSQL 18 or later knows it and this is 17)"
        in done.stderr
    )


def test_lint_without_the_packages_says_that_sql_is_not_checked(plan: Path) -> None:
    program = "import sys; sys.modules['postgast'] = None; from cutover.cli import main; main()"
    argv = [sys.executable, "-c", program, "lint", str(plan)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment(""), timeout=60)
    assert (done.returncode, done.stdout) == (0, "no errors\n")
    assert "warning: its SQL is not checked: the packages for databases are not installed; install them" in done.stderr


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
    assert "1000 rows in 10 batches" in shown
