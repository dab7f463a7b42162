"""The tables of the journal, schema `cutover`: made once, in one transaction, and versioned by a comment."""

from __future__ import annotations

from typing import Final

import psycopg

from cutover.database.engines.postgresql.connecting import Connection
from cutover.database.engines.postgresql.errors import meaning
from cutover.database.journal import VERSION
from cutover.database.outcome import Ended
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result, identifier

_MARK: Final = "bookkeeping of Cutover, version "
_SCHEMA: Final = "CREATE SCHEMA cutover"
_MAKE: Final = (
    """
CREATE TABLE cutover.progress (
    plan_uid text NOT NULL, run integer NOT NULL, step text NOT NULL,
    fence bigint NOT NULL, attempt integer NOT NULL,
    direction text NOT NULL, finished boolean NOT NULL, digest text NOT NULL,
    cursor text[], bound text[], rows bigint NOT NULL, batches bigint NOT NULL,
    version integer NOT NULL, started_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (plan_uid, run, step)
) WITH (fillfactor = 50)""",
    """
CREATE TABLE cutover.history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_uid text NOT NULL, run integer NOT NULL, step text NOT NULL, attempt integer NOT NULL, fence bigint NOT NULL,
    direction text NOT NULL, kind text NOT NULL, digest text NOT NULL, script text NOT NULL, down text NOT NULL,
    rows bigint NOT NULL, answers jsonb NOT NULL, version integer NOT NULL,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    role text NOT NULL DEFAULT session_user, finished_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
)""",
    "CREATE INDEX ON cutover.history (plan_uid, run, step)",
    f"COMMENT ON TABLE cutover.history IS '{_MARK}{VERSION}'",
)
_FOUND: Final = """
SELECT n.oid IS NOT NULL, c.oid IS NOT NULL, pg_catalog.obj_description(c.oid, 'pg_class')
FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = 'cutover'
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'history'
"""
_ONE_AT_A_TIME: Final = 0x6375746F766572
"""The advisory lock of whoever makes them, for the length of that transaction."""
_RIGHTS: Final = """
SELECT current_user, current_database(), pg_catalog.has_database_privilege(current_database(), 'CREATE'),
       CASE WHEN pg_catalog.to_regnamespace('cutover') IS NULL THEN NULL
            ELSE pg_catalog.has_schema_privilege('cutover', 'USAGE') END,
       pg_catalog.has_schema_privilege(coalesce(pg_catalog.to_regnamespace('cutover'), 'pg_catalog'), 'CREATE'),
       (SELECT bool_and(pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
                        AND (c.relname <> 'progress' OR pg_catalog.has_table_privilege(c.oid, 'UPDATE')))
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = pg_catalog.to_regnamespace('cutover') AND c.relkind = 'r')
"""


def exist(connection: Connection) -> bool:
    """Whether the tables are there. Raises Ended: a newer version made them."""
    _, made, mark = _found(connection)
    if not made:
        return False
    version = (mark or "").removeprefix(_MARK)
    if not version.isdigit() or int(version) > VERSION:
        raise Ended(Result(RunnerReason.NEWER_JOURNAL, number=int(version) if version.isdigit() else 0))
    return True


def _found(connection: Connection) -> tuple[bool, bool, str | None]:
    row = connection.execute(_FOUND).fetchone()
    return row or (False, False, None)


def make(connection: Connection) -> None:
    """Make them where they are not there. Raises Ended: the role lacks a right, which is named."""
    if exist(connection):
        return
    try:
        with connection.transaction():
            connection.execute("SELECT pg_catalog.pg_advisory_xact_lock($1::bigint)", (_ONE_AT_A_TIME,))
            if not exist(connection):
                schema, *_ = _found(connection)
                for statement in _MAKE if schema else (_SCHEMA, *_MAKE):
                    connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        raise Ended(_lacking(connection)) from None
    except psycopg.Error as error:
        raise meaning(error) from None


def problem(connection: Connection) -> Result | None:
    """What `make` and the first write would run into; reads only."""
    try:
        exist(connection)
    except Ended as ended:
        return ended.result
    return _lacking(connection) if _needs(connection) else None


def _needs(connection: Connection) -> str:
    """The right that is missing, as GRANT has it; empty where none is."""
    row = connection.execute(_RIGHTS).fetchone() or ("", "", False, None, False, None)
    role, database, may_make_schema, may_use, may_create, may_write = row
    if may_use is None:
        missing = "" if may_make_schema else f"CREATE ON DATABASE {database}"
    elif may_write is None:
        missing = "" if may_use and may_create else "USAGE, CREATE ON SCHEMA cutover"
    elif not may_use:
        missing = "USAGE ON SCHEMA cutover"
    else:
        missing = "" if may_write else "SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA cutover"
    return missing and f"{missing} TO {role}"


def _lacking(connection: Connection) -> Result:
    return Result(RunnerReason.PRIVILEGE, needs=identifier(_needs(connection)))
