"""What an error of psycopg means for the run: once more, with another connection, or the end.

The server's text is never taken: it quotes values of rows. Its SQLSTATE, the name of the condition, and the names of the table,
the column and the constraint are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import psycopg

from cutover.database.outcome import ConnectionBroken, Ended, LockNotGranted
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Blocker, Result, identifier

_AGAIN: Final = {"55P03", "40P01", "40001"}
"""lock_not_available, deadlock_detected, serialization_failure."""
_GONE: Final = ("08", "57P01", "57P02", "57P03", "25P03", "53300")
"""Connection exceptions, a server that goes down or comes up, a session that was ended, no free connection."""
_READ_ONLY: Final = "25006"
_PRIVILEGE: Final = "42501"


class Place(NamedTuple):
    """What an error is about: the field of the payload, the number of the statement, and its line in the script."""

    field: str = ""
    statement: int = 0
    line: int = 0


_NOWHERE: Final = Place()


def meaning(
    error: psycopg.Error, place: Place = _NOWHERE, *, blockers: Sequence[Blocker] = (), reading: bool = False
) -> Ended | LockNotGranted | ConnectionBroken:
    """The exception to raise instead.

    Args:
        error: of the driver.
        place: whose fault it may be.
        blockers: who had the lock.
        reading: we made the transaction read-only, so a write is a fault of the author and not of the server.
    """
    state = error.sqlstate or ""
    if state in _AGAIN:
        return LockNotGranted(Result(RunnerReason.LOCKS, *place, state, blockers=tuple(blockers)))
    if state.startswith(_GONE) or (isinstance(error, psycopg.OperationalError) and not state):
        return ConnectionBroken(Result(RunnerReason.CONNECTION_LOST, sqlstate=state))
    if state == _READ_ONLY and not reading:
        return ConnectionBroken(Result(RunnerReason.READ_ONLY))
    diag = error.diag
    names = [type(error).__name__, diag.table_name, diag.column_name, diag.constraint_name]
    reason = RunnerReason.PRIVILEGE if state == _PRIVILEGE else RunnerReason.STATEMENT_FAILED
    return Ended(Result(reason, *place, state, tuple(identifier(name) for name in names if name)))


_OF_CONNECTING: Final = (
    (r"no pg_hba\.conf entry.*(no encryption|SSL off)", RunnerReason.TLS_REQUIRED),
    (r"FATAL: .*authentication failed", RunnerReason.AUTHENTICATION),  # also by a certificate, which is another role's
    (r"certificate|private key|does not support SSL|SSL error|root\.crt", RunnerReason.TLS_FAILED),
    (r"no password supplied|no pg_hba\.conf entry", RunnerReason.AUTHENTICATION),
    (r'FATAL:  role "[^"]*" (does not exist|is not permitted to log in)', RunnerReason.AUTHENTICATION),
    (r'FATAL:  database "[^"]*" does not exist', RunnerReason.DATABASE_NOT_FOUND),
    (r"FATAL:  permission denied for database", RunnerReason.PRIVILEGE),
)
"""What a server says before anybody is let in has no SQLSTATE in libpq, so its English words must do; one that speaks another
language is taken for a server that cannot be reached."""


def refused(error: psycopg.Error) -> Ended | ConnectionBroken:
    """Why there is no connection: for good, or another try may do."""
    for words, reason in _OF_CONNECTING:
        if re.search(words, str(error)):
            return Ended(Result(reason, needs="CONNECT ON DATABASE" if reason is RunnerReason.PRIVILEGE else ""))
    return ConnectionBroken(Result(RunnerReason.CONNECTION_REFUSED))
