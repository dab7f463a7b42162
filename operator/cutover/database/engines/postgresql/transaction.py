"""One transaction of PostgreSQL: the journal's rows, the author's statements, and the questions of a validation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from cutover.database.engines.base import Statement
from cutover.database.engines.postgresql import tables
from cutover.database.engines.postgresql.blockers import Watch
from cutover.database.engines.postgresql.connecting import Connection, milliseconds
from cutover.database.engines.postgresql.errors import Place, meaning
from cutover.database.engines.postgresql.names import quoted, quoted_table
from cutover.database.engines.postgresql.questions import answer_of, failures_of, text_of
from cutover.database.journal import VERSION, Claim, Entry, StepKey, StepRow
from cutover.database.outcome import Ended
from cutover.runner_messages.payload import Direction
from cutover.runner_messages.queries import Query
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Answer, Result

_MADE: Final = """
INSERT INTO cutover.progress (plan_uid, run, step, fence, attempt, direction, finished, digest, rows, batches, version)
VALUES ($1, $2::int, $3, $4::bigint, $5::int, 'up', false, '', 0, 0, $6::int) ON CONFLICT DO NOTHING
"""
_COLUMNS: Final = "direction, finished, fence, digest, cursor, bound, rows, batches, version"
_LOOK: Final = f"SELECT {_COLUMNS} FROM cutover.progress WHERE plan_uid = $1 AND run = $2::int AND step = $3"
_FENCE: Final = """
UPDATE cutover.progress SET fence = $4::bigint, attempt = $5::int WHERE plan_uid = $1 AND run = $2::int AND step = $3
"""
_SAVE: Final = """
UPDATE cutover.progress SET direction = $4, finished = $5::bool, fence = $6::bigint, digest = $7, cursor = $8::text[],
       bound = $9::text[], rows = $10::bigint, batches = $11::bigint, version = $12::int, updated_at = clock_timestamp()
WHERE plan_uid = $1 AND run = $2::int AND step = $3
"""
_RECORD: Final = """
INSERT INTO cutover.history (plan_uid, run, step, attempt, fence, direction, kind, digest, script, down, rows, answers, version)
VALUES ($1, $2::int, $3, $4::int, $5::bigint, $6, $7, $8, $9, $10, $11::bigint, $12::jsonb, $13::int)
"""
_RECORDED: Final = """
SELECT answers FROM cutover.history WHERE plan_uid = $1 AND run = $2::int AND step = $3 AND kind = 'validate'
ORDER BY id DESC LIMIT 1
"""


class PostgresTransaction:
    """See `engines/base.py`."""

    def __init__(self, connection: Connection, watch: Watch) -> None:
        self._connection, self._watch = connection, watch
        self._number: str | None = None

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Statements that may wait for locks: what blocks them is in the exception."""
        try:
            with self._watch.over(self._connection.info.backend_pid):
                yield
        except psycopg.Error as error:
            raise meaning(error, blockers=self._watch.found) from None

    def rows(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Run a statement of our own."""
        with self._waiting():
            cursor = self._connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    # --- the journal --------------------------------------------------------------------------------------------------

    def claim(self, claim: Claim) -> StepRow:
        """Insert or find, lock, compare the fence, leave ours."""
        key = (claim.key.plan, claim.key.run, claim.key.step)
        found = self.rows(f"{_LOOK} FOR UPDATE", key)
        if not found:
            self.rows(_MADE, (*key, claim.fence, claim.attempt, VERSION))
            found = self.rows(f"{_LOOK} FOR UPDATE", key)
        row = _row(found[0])
        if row.fence > claim.fence:
            raise Ended(Result(RunnerReason.FENCED))
        if row.version > VERSION:
            raise Ended(Result(RunnerReason.CHECKPOINT_VERSION))
        if row.fence < claim.fence:
            self.rows(_FENCE, (*key, claim.fence, claim.attempt))
        return row

    def save(self, claim: Claim, row: StepRow) -> None:
        """Write the whole row."""
        key = (claim.key.plan, claim.key.run, claim.key.step)
        cursor, bound = (list(value) if value is not None else None for value in (row.cursor, row.bound))
        values = (
            row.direction.value,
            row.finished,
            claim.fence,
            row.digest,
            cursor,
            bound,
            row.rows,
            row.batches,
            VERSION,
        )
        self.rows(_SAVE, (*key, *values))

    def look(self, key: StepKey) -> StepRow | None:
        """Read it."""
        if not tables.exist(self._connection):
            return None
        found = self.rows(_LOOK, (key.plan, key.run, key.step))
        return _row(found[0]) if found else None

    def record(self, claim: Claim, entry: Entry) -> None:
        """Add to the history."""
        who = (claim.key.plan, claim.key.run, claim.key.step, claim.attempt, claim.fence, claim.direction.value)
        what = (
            entry.kind,
            entry.digest,
            entry.script,
            entry.down,
            entry.rows,
            json.dumps(dict(entry.answers)),
            VERSION,
        )
        self.rows(_RECORD, (*who, *what))

    def recorded(self, key: StepKey) -> Mapping[str, int]:
        """What the last validation of a step counted."""
        if not tables.exist(self._connection):
            return {}
        found = self.rows(_RECORDED, (key.plan, key.run, key.step))
        return found[0][0] if found else {}

    # --- the author's statements --------------------------------------------------------------------------------------

    def run(self, statement: Statement, field: str) -> None:
        """Run it as one statement, and see that the transaction is still the same."""
        self._number = self._number or self._assigned()
        try:
            with self._watch.over(self._connection.info.backend_pid):
                self._connection.execute(statement.text.encode(), binary=True)
        except psycopg.Error as error:
            raise meaning(error, _place(error, statement, field), blockers=self._watch.found) from None
        if self._connection.info.transaction_status != TransactionStatus.INTRANS or self._assigned() != self._number:
            raise Ended(Result(RunnerReason.ESCAPED, field, statement.number, statement.line))

    def _assigned(self) -> str | None:
        ((number,),) = self.rows("SELECT pg_catalog.pg_current_xact_id_if_assigned()::text")
        return str(number) if number else None

    def still_ours(self) -> None:
        """Before COMMIT: a transaction that has failed would be rolled back by it without a word."""
        if self._connection.info.transaction_status != TransactionStatus.INTRANS:
            raise Ended(Result(RunnerReason.ESCAPED))

    def measure(self, table: str, columns: Sequence[str]) -> None:
        """ANALYZE of these columns alone."""
        self.rows(f"ANALYZE {quoted_table(table)} ({', '.join(map(quoted, columns))})")

    def only_read(self) -> None:
        """The server refuses writes from here on."""
        self.rows("SET TRANSACTION READ ONLY")

    # --- questions ----------------------------------------------------------------------------------------------------

    def judge(self, statement: Statement, field: str) -> int:
        """Of each row the numbers and booleans count; of a row without any, its being there."""
        try:
            cursor = self._connection.execute(statement.text.encode(), binary=True)
            return failures_of(cursor)
        except psycopg.Error as error:
            raise meaning(error, _place(error, statement, field), reading=True) from None

    def ask(self, query: Query) -> Answer:
        """In a savepoint, so that a query that fails does not take the others with it."""
        try:
            with self._connection.transaction():
                timeout = f"{milliseconds(query.timeout)}ms"
                self.rows("SELECT pg_catalog.set_config('statement_timeout', $1, true)", (timeout,))
                cursor = self._connection.execute(text_of(query).encode(), binary=True)
                return answer_of(query, cursor)
        except psycopg.errors.DatabaseError as error:
            problem = meaning(error, reading=True)
            if not isinstance(problem, Ended):
                raise problem from None
            names = ", ".join(problem.result.names)
            return Answer(query.name, passed=False, problem=f"refused by the server, {names}")

    def number(self, query: str, field: str) -> float:
        """The number that a query of the author answers. Raises Ended."""
        try:
            cursor = self._connection.execute(query.encode(), binary=True)
            rows = cursor.fetchmany(2)
        except psycopg.Error as error:
            raise meaning(error, Place(field), reading=True) from None
        if len(rows) != 1 or len(rows[0]) != 1:
            raise Ended(Result(RunnerReason.NO_ROW, field))
        try:
            return float(rows[0][0])
        except (TypeError, ValueError):
            raise Ended(Result(RunnerReason.NO_ROW, field)) from None


def _row(found: tuple[Any, ...]) -> StepRow:
    direction, finished, fence, digest, cursor, bound, rows, batches, version = found
    after, upto = (tuple(value) if value is not None else None for value in (cursor, bound))
    return StepRow(Direction(direction), finished, fence, digest, after, upto, rows, batches, version)


def _place(error: psycopg.Error, statement: Statement, field: str) -> Place:
    """The line in the script: the server counts characters of the statement."""
    position = error.diag.statement_position or ""
    lines = statement.text[: int(position) - 1].count("\n") if position.isdigit() else 0
    return Place(field, statement.number, statement.line + lines)
