"""One sentence for people per result: the field, the value and the way out. Pure.

The runner logs it, and the operator puts it into the status: the message travels as known words and numbers, never as text.
"""

from __future__ import annotations

from typing import Final

from cutover.runner_messages.reasons import Reason
from cutover.runner_messages.result import Result

_TEXTS: Final = {
    Reason.DONE: "done",
    Reason.ALREADY_DONE: "the database's journal says that it was done already",
    Reason.NOTHING_TO_UNDO: "the database's journal says that it was never done, so nothing is undone",
    Reason.VALIDATION_FAILED: "{where}{answers}; fix the data or the query",
    Reason.NOT_DONE: "the database's journal does not say that this step is done; run it again",
    Reason.INVALID_PAYLOAD: "{where}is not valid{names}; the runner's image must be of the operator's version",
    Reason.INVALID_URL: "the database's URL is not one of postgresql://user:password@host:port/database{names}",
    Reason.AUTHENTICATION: "the server does not accept the user or the password{state}; correct the Secret",
    Reason.TLS_REQUIRED: "the server wants an encrypted connection; set tls.mode: require or verify-full",
    Reason.TLS_FAILED: "no encrypted connection can be made; check tls.mode, tls.caFrom and the server's certificate",
    Reason.DATABASE_NOT_FOUND: "the server has no such database; correct the URL",
    Reason.UNSUPPORTED_VERSION: "the server is PostgreSQL {number}; use one of 13 to 18",
    Reason.PRIVILEGE: "{where}the role lacks a right{names}{state}; {grant}",
    Reason.POOLER: "a pooler that shares sessions is between us and the server; give the URL of the server itself",
    Reason.NEWER_JOURNAL: "the schema cutover in the database was made by a newer version ({number}); use its runner",
    Reason.CHECKPOINT_VERSION: "the checkpoint was left by another version of the runner; use that one to finish it",
    Reason.SCRIPT_EMPTY: "{where}has no statement; write one",
    Reason.SCRIPT_SYNTAX: "{where}is not valid SQL{place}{names}; correct it",
    Reason.SCRIPT_CHANGED: "{where}is not the script that was read when the run began; restore it, or change the spec",
    Reason.DOWN_MISSING: "no down script is there; add down, or irreversible: true on the step",
    Reason.TRANSACTION_STATEMENT: "{where}begins or ends a transaction{place}; remove that statement",
    Reason.NON_TRANSACTIONAL: "{where}has a statement that cannot run in a transaction{place}; use a step of its own kind",
    Reason.HAZARD: "{where}has hazards that are not allowed: {findings}; use the form that is safe, or add them to allow",
    Reason.STATEMENT_FAILED: "{where}was refused by the server{place}{state}{names}; nothing of it was kept",
    Reason.TABLE_NOT_FOUND: "{where}no table is named{names}",
    Reason.COLUMN_NOT_FOUND: "{where}no column is named{names}",
    Reason.NO_USABLE_KEY: "{where}the table has no primary key and no unique index over columns that are NOT NULL{names}; add one",
    Reason.NULLABLE_KEY: "{where}is not unique, or may be NULL{names}; page by the primary key",
    Reason.MATCHES_NOTHING: "{where}matches no row of the table, and verify fails for {number}; correct it, or set allowEmpty: true",
    Reason.NO_ROW: "{where}must answer one row with one value{place}",
    Reason.VERIFY_FAILED: "verify is not true for {number} rows; the batch was not kept",
    Reason.ESCAPED: "the script ended the transaction{place}, so part of it was kept; remove what commits",
    Reason.LOCKS: "the locks were not to be had in {lock_waits} tries; blocked by {blockers}",
    Reason.CONNECTION_REFUSED: "the server cannot be reached",
    Reason.CONNECTION_LOST: "the connection to the server was lost{state}; what was committed is kept",
    Reason.READ_ONLY: "the server takes no writes (a standby, or read-only by its settings); give the URL of the primary",
    Reason.INTERRUPTED: "stopped by a signal after {rows} rows; the next run resumes there",
    Reason.FENCED: "a later attempt has taken over; nothing was written",
    Reason.UNEXPECTED: "the runner failed{names}; its log has the trace",
}


def sentence(result: Result) -> str:
    """What people read."""
    others = [
        _alone(
            Result(
                Reason(one.reason),
                one.field,
                one.statement,
                one.line,
                names=(one.name,) * bool(one.name),
                needs=one.needs,
                number=one.number,
            )
        )
        for one in result.also
        if one.reason
    ]
    return "; ".join([_alone(result), *others])


def _alone(result: Result) -> str:
    return _TEXTS[result.reason].format(
        where=f"{result.field}: " if result.field else "",
        place=_place(result),
        state=f" (SQLSTATE {result.sqlstate})" if result.sqlstate else "",
        names=f" ({', '.join(result.names)})" if result.names else "",
        grant=f"GRANT {result.needs}" if result.needs else "grant it",
        number=result.number,
        rows=result.rows,
        lock_waits=result.lock_waits,
        findings=_findings(result),
        blockers=_blockers(result),
        answers=_answers(result),
    )


def _place(result: Result) -> str:
    parts = [f"statement {result.statement}"] if result.statement else []
    parts += [f"line {result.line}"] if result.line else []
    return f" in {', '.join(parts)}" if parts else ""


def _more(result: Result) -> list[str]:
    return [f"and {result.more} more"] if result.more else []


def _findings(result: Result) -> str:
    shown = [
        f"{one.hazard} (statement {one.statement}, line {one.line}{f', table {one.table}' if one.table else ''})"
        for one in result.findings
    ]
    return ", ".join([*shown, *_more(result)])


def _blockers(result: Result) -> str:
    shown = [
        f"pid {one.pid} ({one.application or 'no application_name'}, {one.state or 'unknown'} for {one.age_seconds:.0f}s)"
        for one in result.blockers
    ]
    return ", ".join([*shown, *_more(result)]) or "sessions that had ended when they were looked for"


def _answers(result: Result) -> str:
    failed = [one for one in result.answers if not one.passed]
    shown = [f"{one.name}: {one.problem or f'{one.failures} failures'}" for one in failed]
    return ", ".join([*shown, *_more(result)])
