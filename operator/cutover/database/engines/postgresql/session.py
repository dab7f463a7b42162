"""One run's connection to PostgreSQL, and the next one when it breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Final

import psycopg
from psycopg.pq import TransactionStatus

from cutover.database.engines.postgresql import tables
from cutover.database.engines.postgresql.blockers import Watch
from cutover.database.engines.postgresql.catalogue import find_table
from cutover.database.engines.postgresql.connecting import Connection
from cutover.database.engines.postgresql.errors import Place, meaning
from cutover.database.engines.postgresql.filler import PostgresFiller
from cutover.database.engines.postgresql.names import quoted_table
from cutover.database.engines.postgresql.transaction import PostgresTransaction
from cutover.runner_messages.payload import BackfillWork, DatabaseSettings
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

_NEWEST: Final = 18
_STATE: Final = (
    "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery(), current_setting('transaction_read_only')"
)
_LAG: Final = """
SELECT count(*), max(coalesce(replay_lag, CASE WHEN pg_catalog.pg_current_wal_lsn() = replay_lsn THEN interval '0' END)),
       count(*) FILTER (WHERE replay_lsn IS NULL)
FROM pg_catalog.pg_stat_replication WHERE state IS DISTINCT FROM 'backup'
"""
_ROWS: Final = "SELECT reltuples::bigint FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)"


class PostgresSession:
    """See `engines/base.py`.

    Args:
        connect: makes a connection; raises as `connecting.connect` does.
        settings: of the database.
    """

    def __init__(self, connect: Callable[[], Connection], settings: DatabaseSettings) -> None:
        self._connect, self._settings = connect, settings
        self.watch = Watch(connect, settings.lock_timeout)
        self.connection = connect()

    @property
    def version(self) -> int:
        """The major version."""
        return self.connection.info.server_version // 10_000

    def prepare(self) -> None:
        """Make the journal's tables."""
        try:
            tables.make(self.connection)
        except psycopg.Error as error:
            raise meaning(error) from None

    def problems(self, *, writes: bool) -> Sequence[Result]:
        """A pooler in the way, a standby, a server that is too new, a right that is missing."""
        try:
            row = self.connection.execute(_STATE).fetchone()
            pid, standby, read_only = row or (0, False, "off")
            found = []
            if pid != self.connection.info.backend_pid:
                found.append(Result(RunnerReason.POOLER))
            if self.version > _NEWEST:
                found.append(Result(RunnerReason.UNSUPPORTED_VERSION, number=self.version))
            if writes and (standby or read_only == "on"):
                found.append(Result(RunnerReason.READ_ONLY))
            elif writes and (lacking := tables.problem(self.connection)):
                found.append(lacking)
        except psycopg.Error as error:
            raise meaning(error) from None
        return found

    @contextmanager
    def transaction(self, *, read_only: bool = False, durable: bool = True) -> Iterator[PostgresTransaction]:
        """READ COMMITTED to write, one snapshot to read."""
        how = "ISOLATION LEVEL REPEATABLE READ, READ ONLY" if read_only else "ISOLATION LEVEL READ COMMITTED"
        connection = self.connection
        try:
            connection.execute(f"BEGIN {how}{'' if durable else '; SET LOCAL synchronous_commit = off'}")
            tx = PostgresTransaction(connection, self.watch)
            yield tx
            tx.still_ours()
            connection.execute("COMMIT")
        except psycopg.Error as error:
            self._roll_back()
            raise meaning(error) from error
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        with suppress(psycopg.Error):
            if self.connection.info.transaction_status != TransactionStatus.IDLE:
                self.connection.execute("ROLLBACK")

    def filler(
        self, work: BackfillWork, *, reverse: bool = False, added: frozenset[str] = frozenset()
    ) -> PostgresFiller:
        """Look the table up."""
        try:
            table = find_table(self.connection, work, self._settings.schema_, reverse=reverse, added=added)
        except psycopg.Error as error:
            raise meaning(error, Place("backfill")) from None
        return PostgresFiller(table, work, self.run_alone, reverse=reverse)

    def rows(self, table: str) -> int | None:
        """The estimate of the last VACUUM or ANALYZE."""
        try:
            row = self.connection.execute(_ROWS, (quoted_table(table),)).fetchone()
        except psycopg.Error as error:
            raise meaning(error) from None
        return int(row[0]) if row and row[0] >= 0 else None

    def run_alone(self, statement: str) -> None:
        """A statement that cannot be part of a transaction, such as VACUUM."""
        try:
            self.connection.execute(statement.encode())
        except psycopg.Error as error:
            raise meaning(error) from None

    def lag(self) -> timedelta | None:
        """Of the furthest standby; zero without any; None where a role without pg_monitor is not told."""
        try:
            row = self.connection.execute(_LAG).fetchone()
        except psycopg.Error as error:
            raise meaning(error) from None
        count, lag, hidden = row or (0, None, 0)
        if count == 0:
            return timedelta()
        return lag if hidden == 0 and isinstance(lag, timedelta) else None

    def throttled(self, query: str) -> bool:
        """Ask the author's query."""
        with self.transaction(read_only=True) as tx:
            value = tx.number(query, "backfill.throttle.query")
        return value > 0

    def reconnect(self) -> None:
        """Another connection; the old one is of no use, in whatever state it is."""
        with suppress(psycopg.Error):
            self.connection.close()
        self.watch.close()
        try:
            self.connection = self._connect()
        except psycopg.Error as error:
            raise meaning(error) from None

    def close(self) -> None:
        """End both connections."""
        self.watch.close()
        with suppress(psycopg.Error):
            self.connection.close()
