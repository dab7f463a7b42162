"""The hazards of scripts: by the tree of PostgreSQL's parser, and against what a real server does."""

from __future__ import annotations

import pytest

from cutover.database.engines.postgresql import hazards
from cutover.database.engines.postgresql.scripts import split
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.sentences import RIGHT_FORMS, sentence
from harness.postgresql import Database
from support.database.runner import Runner, script

H = Hazard


def found(text: str) -> list[tuple[str, str]]:
    return [(one.hazard, one.table) for one in hazards.find(split(text, "schema.up"))]


TABLE = [
    ("ALTER TABLE t ADD COLUMN a int", []),
    ("ALTER TABLE t ADD COLUMN a int DEFAULT 5 NOT NULL", []),
    ("ALTER TABLE t ADD COLUMN a timestamptz DEFAULT now()", []),
    ("ALTER TABLE t ADD COLUMN a timestamptz DEFAULT CURRENT_TIMESTAMP", []),
    ("ALTER TABLE t ADD COLUMN a text DEFAULT 'x'::text", []),
    ("ALTER TABLE t ADD COLUMN a uuid DEFAULT gen_random_uuid()", [H.REWRITES_TABLE]),
    ("ALTER TABLE t ADD COLUMN a bigserial", [H.REWRITES_TABLE]),
    ("ALTER TABLE t ADD COLUMN a int GENERATED ALWAYS AS IDENTITY", [H.REWRITES_TABLE]),
    ("ALTER TABLE t ADD COLUMN a int GENERATED ALWAYS AS (v + 1) STORED", [H.REWRITES_TABLE]),
    ("ALTER TABLE t ADD COLUMN a positive", [H.NEEDS_REVIEW]),
    ("ALTER TABLE t ADD COLUMN a int REFERENCES p", []),
    ("ALTER TABLE t ADD COLUMN a int UNIQUE", [H.BUILDS_INDEX]),
    ("ALTER TABLE t ADD COLUMN a int CHECK (a > 0)", [H.SCANS_TABLE]),
    ("ALTER TABLE t DROP COLUMN w", [H.DROPS_DATA]),
    ("ALTER TABLE t ALTER v DROP NOT NULL", []),
    ("ALTER TABLE t ALTER v SET DEFAULT 3", []),
    ("ALTER TABLE t ALTER v SET NOT NULL", [H.SCANS_TABLE]),
    ("ALTER TABLE t ALTER v TYPE bigint", [H.REWRITES_TABLE]),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (v > 0)", [H.SCANS_TABLE]),
    ("ALTER TABLE t ADD CONSTRAINT c CHECK (v > 0) NOT VALID", []),
    ("ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (v) REFERENCES p", [H.SCANS_TABLE]),
    ("ALTER TABLE t ADD CONSTRAINT c FOREIGN KEY (v) REFERENCES p NOT VALID", []),
    ("ALTER TABLE t ADD CONSTRAINT c UNIQUE (v)", [H.BUILDS_INDEX]),
    ("ALTER TABLE t ADD CONSTRAINT c UNIQUE USING INDEX i", []),
    ("ALTER TABLE t VALIDATE CONSTRAINT old", []),
    ("ALTER TABLE t SET (fillfactor = 90)", []),
    ("ALTER TABLE t SET UNLOGGED", [H.REWRITES_TABLE]),
    ("ALTER TABLE t RENAME COLUMN w TO x", [H.RENAMES]),
    ("ALTER TABLE t RENAME TO u", [H.RENAMES]),
    ("ALTER INDEX i RENAME TO j", []),
    ("CREATE INDEX ON t (v)", [H.BUILDS_INDEX]),
    ("DROP INDEX i", []),
    ("DROP TABLE t CASCADE", [H.DROPS_DATA, H.CASCADES]),
    ("TRUNCATE t CASCADE", [H.TRUNCATES, H.CASCADES]),
    ("UPDATE t SET v = 1", [H.UNBOUNDED_DML]),
    ("UPDATE t SET v = 1 WHERE w = 2", []),
    ("WITH gone AS (DELETE FROM t RETURNING 1) SELECT count(*) FROM gone", [H.UNBOUNDED_DML]),
    ("LOCK TABLE t", [H.LOCKS_TABLE]),
    ("CLUSTER t USING i", [H.REWRITES_TABLE]),
    ("REINDEX TABLE t", [H.BUILDS_INDEX]),
    ("CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()", []),
    ("SET lock_timeout = 0", [H.NEEDS_REVIEW]),
    ("RESET ALL", [H.NEEDS_REVIEW]),
    ("CALL anything()", [H.NEEDS_REVIEW]),
    ("COPY t FROM PROGRAM 'curl example.com'", [H.NEEDS_REVIEW]),
    ("DO $$ BEGIN EXECUTE 'DROP TABLE t'; END $$", [H.NEEDS_REVIEW]),
    ("DO $$ BEGIN RAISE NOTICE 'hello'; END $$", []),
    ("DO LANGUAGE plpython3u $$ pass $$", [H.NEEDS_REVIEW]),
    ("CREATE TYPE mood AS ENUM ('a'); ALTER TABLE t ADD COLUMN m mood DEFAULT 'a'", []),
    (
        "CREATE TABLE own (i int); CREATE INDEX ON own (i); UPDATE own SET i = 1; ALTER TABLE own ALTER i TYPE bigint",
        [],
    ),
    ("ANALYZE t; COMMENT ON TABLE t IS 'x'; CREATE VIEW x AS SELECT 1", []),
]


@pytest.mark.parametrize(("text", "expected"), TABLE, ids=[text[:60] for text, _ in TABLE])
def test_each_statement_has_its_hazards(text: str, expected: list[Hazard]) -> None:
    assert [hazard for hazard, _ in found(text)] == expected


def test_a_hazard_is_told_by_statement_line_and_table() -> None:
    (one,) = hazards.find(split("SELECT 1;\n-- next\nTRUNCATE s.t", "schema.up"))
    assert (one.hazard, one.statement, one.line, one.table) == (H.TRUNCATES, 2, 3, "s.t")


@pytest.mark.parametrize(
    "text",
    [
        "ALTER TABLE t ADD COLUMN a int; UPDATE t SET a = 1 WHERE v = 2",
        "ALTER TABLE t ADD CONSTRAINT c CHECK (v > 0) NOT VALID; ALTER TABLE t VALIDATE CONSTRAINT c",
        "ALTER TABLE t ADD COLUMN a int; SELECT count(*) FROM t",
        "CREATE TRIGGER g BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f(); DELETE FROM u WHERE v = 2",
        "ALTER TABLE t ADD COLUMN a int; CREATE TABLE b AS SELECT * FROM u",
    ],
)
def test_what_takes_long_does_not_follow_a_lock(text: str) -> None:
    assert (H.DML_AFTER_BLOCKING_DDL in [hazard for hazard, _ in found(text)]) is True


def test_every_hazard_has_its_right_form() -> None:
    assert set(RIGHT_FORMS) == set(Hazard)


# --- the shapes of a migration that lose data or stop the application ---------------------------------------------------

PREFERENCES = """
CREATE TYPE theme AS ENUM ('light', 'dark', 'auto');
CREATE TABLE user_preferences (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    theme theme DEFAULT 'auto', notifications_enabled boolean DEFAULT true, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX ON user_preferences (user_id);
"""
FILL = """
INSERT INTO user_preferences (id, user_id, created_at, updated_at)
SELECT gen_random_uuid(), id, now(), now() FROM users WHERE NOT EXISTS (SELECT 1 FROM user_preferences WHERE user_id = users.id);
"""
LARGE = """
DO $$
DECLARE batch_size INTEGER := 10000; offset_val INTEGER := 0; total_rows INTEGER;
BEGIN
  SELECT COUNT(*) INTO total_rows FROM large_table;
  WHILE offset_val < total_rows LOOP
    UPDATE large_table SET new_column = lower(old_column)
    WHERE id IN (SELECT id FROM large_table WHERE new_column IS NULL ORDER BY id LIMIT batch_size);
    RAISE NOTICE 'Processed % of % rows', offset_val, total_rows;
    PERFORM pg_sleep(0.1);
    offset_val := offset_val + batch_size;
  END LOOP;
END $$;
"""
RESTORE = "TRUNCATE users; INSERT INTO users SELECT * FROM users_backup_20240120; SELECT COUNT(*) FROM users"
EXPAND = """
ALTER TABLE users ADD COLUMN email_verified BOOLEAN DEFAULT false;
UPDATE users SET email_verified = (email_confirmed_at IS NOT NULL) WHERE email_verified IS NULL;
"""


def test_a_new_table_is_harmless_and_filling_it_beside_its_foreign_key_is_not() -> None:
    assert found(PREFERENCES) == []
    assert found(PREFERENCES + FILL) == [(H.DML_AFTER_BLOCKING_DDL, "")]


def test_a_loop_in_a_block_is_one_transaction() -> None:
    assert found(LARGE) == [(H.DML_IN_BLOCK, "")]


def test_a_restore_by_truncate_and_by_position_is_refused() -> None:
    kinds = [hazard for hazard, _ in found(RESTORE)]
    assert kinds[0] == H.TRUNCATES
    assert H.COLUMNS_BY_POSITION in kinds


def test_a_default_that_fills_what_the_update_looks_for_is_found() -> None:
    assert (H.DEFAULT_HIDES_BACKFILL, "users") in found(EXPAND)


# --- on a real server ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", [15, 17, 18], indirect=True)
def test_what_is_said_of_statements_is_what_the_server_does(database: Database) -> None:
    """Each statement is run and rolled back: a file of the table that changed is a rewrite, and hazards must have said so."""
    database.run(
        "CREATE TABLE p (id int PRIMARY KEY)",
        "CREATE TABLE t (id int PRIMARY KEY, v int NOT NULL, w text, CONSTRAINT old CHECK (v > 0))",
        "CREATE UNIQUE INDEX i ON t (v)",
        "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "INSERT INTO p SELECT generate_series(1, 9)",
        "INSERT INTO t SELECT n, n, n FROM generate_series(1, 9) AS n",
    )
    mine = database.value("SELECT array_agg(oid) FROM pg_class WHERE relname IN ('t', 't_pkey', 'i')")
    stops = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation IN ('p'::regclass, 't'::regclass) AND mode IN ('ShareLock', 'ShareRowExclusiveLock', 'AccessExclusiveLock')"
    files = "SELECT array_agg(relfilenode ORDER BY oid) FROM pg_class WHERE oid = ANY (%s)"
    wrong = []
    with database.connect(autocommit=False) as connection:
        for text, expected in TABLE:
            if not text.startswith("ALTER TABLE t ") or "RENAME TO" in text:
                continue
            (before,) = connection.execute(files, (mine,)).fetchone() or ((),)
            connection.execute(text.encode())
            (after,) = connection.execute(files, (mine,)).fetchone() or ((),)
            (stopped,) = connection.execute(stops.encode()).fetchone() or (0,)
            connection.rollback()
            rewritten = before != after
            if rewritten != (expected in ([H.REWRITES_TABLE], [H.NEEDS_REVIEW])):
                wrong.append((text, "rewritten" if rewritten else "not rewritten"))
            statement = split(f"{text}; DELETE FROM u WHERE w = 'x'", "schema.up")
            said = any(one.hazard == H.DML_AFTER_BLOCKING_DDL and one.statement == 2 for one in hazards.find(statement))
            if bool(stopped) != said:
                wrong.append((text, f"{stopped} locks that stop others"))
    assert wrong == []


def test_hazards_are_allowed_one_by_one(database: Database, runner: Runner) -> None:
    database.run("CREATE TABLE t (id int PRIMARY KEY, v int)")
    text = "ALTER TABLE t ALTER v SET NOT NULL;\nCREATE INDEX ON t (v)"
    result = runner.run("up", schema={"up": script(text), "allow": ["ScansTable"]})
    assert result.reason is RunnerReason.HAZARD
    said = [(one.hazard, one.statement) for one in result.findings]
    assert said == [("BuildsIndex", 2), ("DmlAfterBlockingDdl", 2)]
    assert "BuildsIndex (statement 2, line 2, table t: SHARE, stops writers, builds an index)" in sentence(result)
    allowed = ["ScansTable", "BuildsIndex", "DmlAfterBlockingDdl"]
    assert runner.run("up", schema={"up": script(text), "allow": allowed}).reason is RunnerReason.DONE
