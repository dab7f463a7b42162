"""What is said of locks and versions, against real servers: `pg_locks` inside the transaction, and what their parsers take."""

from __future__ import annotations

import psycopg
import pytest

from cutover.database.engines.postgresql import hazards
from cutover.database.engines.postgresql.scripts import refusals, split
from cutover.runner_messages.locks import Effort, Lock
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.sentences import sentence
from harness.postgresql import Database
from support.database.runner import Runner, script

TABLES = (
    "CREATE SCHEMA other",
    "CREATE TABLE parent (id int NOT NULL, v int NOT NULL, w text)",
    "CREATE TABLE p (id int PRIMARY KEY)",
    "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL, w text, CONSTRAINT old CHECK (v > 0))",
    "CREATE UNIQUE INDEX i ON t (v)",
    "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
    "INSERT INTO p SELECT generate_series(1, 9)",
    "INSERT INTO t SELECT n, n, n FROM generate_series(1, 9) AS n",
    "ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (id) REFERENCES p NOT VALID",
    "CREATE TABLE parted (k int) PARTITION BY RANGE (k)",
    "CREATE TABLE one (k int)",
    "CREATE TABLE two PARTITION OF parted FOR VALUES FROM (100) TO (200)",
    "CREATE MATERIALIZED VIEW m AS SELECT 1 AS one",
)
LOCKS: list[tuple[str, dict[str, Lock], Effort]] = [
    ("ALTER TABLE t ADD COLUMN a int", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t ADD COLUMN a bigserial", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.REWRITE),
    ("ALTER TABLE t ADD COLUMN a int REFERENCES p", {"t": Lock.ACCESS_EXCLUSIVE, "p": Lock.SHARE_ROW_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (v) REFERENCES p", {"t": Lock.SHARE_ROW_EXCLUSIVE, "p": Lock.SHARE_ROW_EXCLUSIVE}, Effort.SCAN),
    ("ALTER TABLE t VALIDATE CONSTRAINT old", {"t": Lock.SHARE_UPDATE_EXCLUSIVE}, Effort.SCAN),
    ("ALTER TABLE t ALTER v SET NOT NULL", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.SCAN),
    ("ALTER TABLE t ALTER v TYPE bigint", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.REWRITE),
    ("ALTER TABLE t ALTER v SET STATISTICS 100", {"t": Lock.SHARE_UPDATE_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t ALTER v SET (n_distinct = 5)", {"t": Lock.SHARE_UPDATE_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t SET (fillfactor = 90)", {"t": Lock.SHARE_UPDATE_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t SET (user_catalog_table = true)", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t CLUSTER ON i", {"t": Lock.SHARE_UPDATE_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t DISABLE TRIGGER ALL", {"t": Lock.SHARE_ROW_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t REPLICA IDENTITY FULL", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE parted ATTACH PARTITION one FOR VALUES FROM (0) TO (10)", {"parted": Lock.SHARE_UPDATE_EXCLUSIVE, "one": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("CREATE TABLE three PARTITION OF parted FOR VALUES FROM (20) TO (30)", {"parted": Lock.ACCESS_EXCLUSIVE}, Effort.SCAN),
    ("CREATE TABLE child (LIKE t INCLUDING ALL)", {"t": Lock.ACCESS_SHARE}, Effort.NONE),
    ("CREATE TABLE child (p int REFERENCES p)", {"p": Lock.SHARE_ROW_EXCLUSIVE}, Effort.NONE),
    ("CREATE INDEX ON t (w)", {"t": Lock.SHARE}, Effort.BUILD),
    ("REINDEX TABLE t", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.BUILD),
    ("CREATE TRIGGER h BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()", {"t": Lock.SHARE_ROW_EXCLUSIVE}, Effort.NONE),
    ("DROP TRIGGER g ON t", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("CREATE RULE r AS ON INSERT TO t DO ALSO NOTHING", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("CREATE POLICY c ON t USING (true)", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("ALTER TABLE t SET SCHEMA other", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("LOCK TABLE t IN SHARE MODE", {"t": Lock.SHARE}, Effort.NONE),
    ("LOCK TABLE t IN ROW EXCLUSIVE MODE", {"t": Lock.ROW_EXCLUSIVE}, Effort.NONE),
    ("LOCK TABLE t", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("CLUSTER t USING i", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.REWRITE),
    ("REFRESH MATERIALIZED VIEW m", {"m": Lock.ACCESS_EXCLUSIVE}, Effort.REWRITE),
    ("TRUNCATE t", {"t": Lock.ACCESS_EXCLUSIVE}, Effort.NONE),
    ("UPDATE t SET v = v + 10 WHERE w = '9'", {"t": Lock.ROW_EXCLUSIVE}, Effort.CHANGE),
    ("INSERT INTO t (id, v) VALUES (10, 10)", {"t": Lock.ROW_EXCLUSIVE}, Effort.NONE),
]  # fmt: skip


@pytest.mark.parametrize(
    "database",
    [15, 17, 18, *(pytest.param(version, marks=pytest.mark.long) for version in (13, 14, 16))],
    indirect=True,
)
def test_locks_are_those_that_the_server_takes(database: Database) -> None:
    database.run(*TABLES, "DELETE FROM t WHERE id > 5", "ALTER TABLE t DROP CONSTRAINT fk")
    held = """
        SELECT coalesce(t.relname, c.relname), array_agg(l.mode) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
        LEFT JOIN pg_index AS i ON i.indexrelid = c.oid LEFT JOIN pg_class AS t ON t.oid = i.indrelid
        WHERE l.pid = pg_backend_pid() AND c.oid = ANY (%s) GROUP BY 1
    """
    there = database.value("SELECT array_agg(oid) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
    wrong: list[tuple[str, object]] = []
    with database.connect(autocommit=False) as connection:
        for text, expected, effort in LOCKS:
            connection.execute(text.encode())
            found = {
                table: max(map(_lock, modes), key=lambda one: one.strength)
                for table, modes in connection.execute(held.encode(), (there,)).fetchall()
            }
            connection.rollback()
            said = {one.table: one.lock for one in hazards.impacts(split(text, "schema.up")) if one.table}
            if (said, found) != (expected, expected):
                wrong.append((text, {"said": said, "seen": found}))
            if effort not in {one.effort for one in hazards.impacts(split(text, "schema.up"))}:
                wrong.append((text, effort))
    assert wrong == []


def _lock(mode: str) -> Lock:
    """``AccessExclusiveLock``"""
    return next(one for one in Lock if one.replace(" ", "").lower() + "lock" == mode.lower())


def test_who_waits_is_said_of_each_lock() -> None:
    assert [lock for lock in Lock if "writers" in lock.victims] == [lock for lock in Lock if lock.stops_others]
    assert [lock for lock in Lock if "readers" in lock.victims] == [Lock.ACCESS_EXCLUSIVE]


# --- versions -----------------------------------------------------------------------------------------------------------

SINCE = [
    ("ALTER TABLE t ALTER w SET COMPRESSION pglz", 14),
    ("CREATE FUNCTION one() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; END", 14),
    ("CREATE OR REPLACE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()", 14),
    ("ALTER TABLE t SET ACCESS METHOD heap", 15),
    ("MERGE INTO t USING p ON p.id = t.id WHEN MATCHED THEN DO NOTHING", 15),
    ("CREATE UNIQUE INDEX ON t (v) NULLS NOT DISTINCT", 15),
    ("ALTER TABLE t ADD CONSTRAINT c UNIQUE NULLS NOT DISTINCT (v)", 15),
    ("SELECT w IS JSON FROM t", 16),
    ("SELECT JSON_OBJECT('a': 1)", 16),
    ("CREATE TABLE made (a text STORAGE plain)", 16),
    ("MERGE INTO t USING p ON p.id = t.id WHEN MATCHED THEN UPDATE SET w = 'x' RETURNING t.id", 17),
    ("SELECT JSON_VALUE('{}'::jsonb, '$.b')", 17),
    ("ALTER TABLE t ADD COLUMN virtual int GENERATED ALWAYS AS (v + 1)", 18),
    ("ALTER TABLE t ADD CONSTRAINT c NOT NULL w NOT VALID", 18),
    ("INSERT INTO p VALUES (99) RETURNING WITH (NEW AS fresh) fresh.id", 18),
    ("ALTER TABLE t ADD COLUMN a int", 0),
]


@pytest.mark.parametrize(
    "database",
    [15, 17, 18, *(pytest.param(version, marks=pytest.mark.long) for version in (13, 14, 16))],
    indirect=True,
)
def test_what_a_server_does_not_know_yet_is_said_before_it_is_sent(database: Database) -> None:
    database.run(*TABLES)
    version = database.server.version
    wrong = []
    with database.connect(autocommit=False) as connection:
        for text, since in SINCE:
            try:
                connection.execute(text.encode())
            except (psycopg.errors.SyntaxError, psycopg.errors.UndefinedFunction):
                known = False
            else:
                known = True
            connection.rollback()
            said = not list(refusals(split(text, "schema.up"), "schema.up", version))
            if (known, said) != (since <= version, since <= version):
                wrong.append((text, known, said))
    assert wrong == []


@pytest.mark.parametrize("database", [15], indirect=True)
def test_the_runner_refuses_it_for_the_version_of_its_server(database: Database, runner: Runner) -> None:
    database.run(*TABLES)
    text = "SELECT 1;\nALTER TABLE t ADD COLUMN v2 int GENERATED ALWAYS AS (v + 1)"
    for direction in ("preflight", "up"):
        result = runner.run(direction, schema={"up": script(text)})
        assert (result.reason, result.statement, result.line) == (RunnerReason.SCRIPT_SYNTAX, 2, 2)
        assert "in statement 2, line 2 (PostgreSQL 18 or later knows it and this is 15)" in sentence(result)
