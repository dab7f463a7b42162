"""One sentence for people per result: the field, the value and the way out. Pure.

The runner logs it, and the operator puts it into the status: the message travels as known words and numbers, never as text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import lock_sentence
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Finding, Result

_TEXTS: Final = {
    RunnerReason.DONE: "done",
    RunnerReason.ALREADY_DONE: "the database's journal says that it was done already",
    RunnerReason.NOTHING_TO_UNDO: "the database's journal says that it was never done, so nothing is undone",
    RunnerReason.VALIDATION_FAILED: "{where}{answers}; fix the data or the query",
    RunnerReason.NOT_DONE: "the database's journal does not say that this step is done; run it again",
    RunnerReason.INVALID_PAYLOAD: "{where}is not valid{names}; the runner's image must be of the operator's version",
    RunnerReason.INVALID_URL: "the database's URL is not one of postgresql://user:password@host:port/database{names}",
    RunnerReason.AUTHENTICATION: "the server does not accept the user or the password{state}; correct the Secret",
    RunnerReason.TLS_REQUIRED: "the server wants an encrypted connection; set tls.mode: require or verify-full",
    RunnerReason.TLS_FAILED: "no encrypted connection can be made; check tls.mode, tls.caFrom, tls.certFrom, tls.keyFrom and the server's certificate",
    RunnerReason.DATABASE_NOT_FOUND: "the server has no such database; correct the URL",
    RunnerReason.UNSUPPORTED_VERSION: "the server is PostgreSQL {number}; use one of 13 to 18",
    RunnerReason.PRIVILEGE: "{where}the role lacks a right{names}{state}; {grant}",
    RunnerReason.POOLER: "a pooler that shares sessions is between us and the server; give the URL of the server itself",
    RunnerReason.NEWER_JOURNAL: "the schema cutover in the database was made by a newer version ({number}); use its runner",
    RunnerReason.CHECKPOINT_VERSION: "the checkpoint was left by another version of the runner; use that one to finish it",
    RunnerReason.SCRIPT_EMPTY: "{where}has no statement; write one",
    RunnerReason.SCRIPT_SYNTAX: "{where}is not valid SQL{place}{names}; correct it",
    RunnerReason.SCRIPT_CHANGED: "{where}is not the script that was read when the run began; restore it, or change the spec",
    RunnerReason.DOWN_MISSING: "no down script is there; add down, or irreversible: true on the step",
    RunnerReason.TRANSACTION_STATEMENT: "{where}begins or ends a transaction{place}; remove that statement",
    RunnerReason.NON_TRANSACTIONAL: "{where}has a statement that cannot run in a transaction{place}; use a step of its own kind",
    RunnerReason.HAZARD: "{where}has hazards that are not allowed: {findings}; use the form that is safe, or add them to allow",
    RunnerReason.STATEMENT_FAILED: "{where}was refused by the server{place}{state}{names}; nothing of it was kept",
    RunnerReason.TABLE_NOT_FOUND: "{where}no table is named{names}",
    RunnerReason.COLUMN_NOT_FOUND: "{where}no column is named{names}",
    RunnerReason.GENERATED_COLUMN: "{where}the server makes the values of this column itself; fill another one, or change its definition",
    RunnerReason.NO_USABLE_KEY: "{where}the table has no primary key and no unique index over columns that are NOT NULL{names}; add one",
    RunnerReason.NULLABLE_KEY: "{where}is not unique, or may be NULL{names}; page by the primary key",
    RunnerReason.MATCHES_NOTHING: "{where}matches no row of the table, and verify fails for {number}; correct it, or set allowEmpty: true",
    RunnerReason.NO_ROW: "{where}must answer one row with one value{place}",
    RunnerReason.VERIFY_FAILED: "verify is not true for {number} rows; the batch was not kept",
    RunnerReason.ESCAPED: "the script ended the transaction{place}, so part of it was kept; remove what commits",
    RunnerReason.LOCKS: "the locks were not to be had in {lock_waits} tries; blocked by {blockers}",
    RunnerReason.CONNECTION_REFUSED: "the server cannot be reached",
    RunnerReason.CONNECTION_LOST: "the connection to the server was lost{state}; what was committed is kept",
    RunnerReason.READ_ONLY: "the server takes no writes (a standby, or read-only by its settings); give the URL of the primary",
    RunnerReason.INTERRUPTED: "stopped by a signal after {rows} rows; the next run resumes there",
    RunnerReason.FENCED: "a later attempt has taken over; nothing was written",
    RunnerReason.UNEXPECTED: "the runner failed{names}; its log has the trace",
}

RIGHT_FORMS: Final[Mapping[str, str]] = {
    Hazard.REWRITES_TABLE: "add a new column, fill it by a backfill, and switch to it",
    Hazard.SCANS_TABLE: "add the constraint NOT VALID, and VALIDATE it in a step of its own",
    Hazard.BUILDS_INDEX: "build the index CONCURRENTLY, outside of a transaction, and add the constraint USING INDEX",
    Hazard.LOCKS_TABLE: "leave the lock to the statements that need it",
    Hazard.DROPS_DATA: "drop in a later plan, after a safety period and with a copy",
    Hazard.RENAMES: "add the new name beside the old one, and drop the old one when nobody uses it",
    Hazard.TRUNCATES: "restore by key, and keep what was written since",
    Hazard.UNBOUNDED_DML: "change rows by a backfill, which goes in batches",
    Hazard.DML_AFTER_BLOCKING_DDL: "make two steps of it: the change of the schema, and what takes as long as there are rows",
    Hazard.DML_IN_BLOCK: "change rows by a backfill: a block is one transaction, no matter how it loops",
    Hazard.DEFAULT_HIDES_BACKFILL: "add the column without the default: it fills each row, so that no row IS NULL",
    Hazard.COLUMNS_BY_POSITION: "name the columns on both sides",
    Hazard.CASCADES: "name everything that is to be dropped or emptied",
    Hazard.NEEDS_REVIEW: "nothing is known of what this locks; read its documentation, and allow it",
}
"""What to do instead of a hazard."""


def sentence(result: Result) -> str:
    """What people read."""
    others = [
        _alone(
            Result(
                RunnerReason(one.reason),
                one.field,
                one.statement,
                one.line,
                names=(one.name,) * bool(one.name),
                needs=one.needs,
                number=one.number,
                findings=result.findings,
            )
        )
        for one in result.also
        if one.reason
    ]
    return "; ".join([_alone(result), *others])


def summary(result: Result) -> str:
    """What people read of a run that ended well: what it has done, or why there was nothing to do."""
    parts = [] if result.reason is RunnerReason.DONE else [_TEXTS[result.reason]]
    if result.rows:
        parts.append(f"{result.rows} rows in {result.batches} batches")
    before = {one.name: "" if one.before is None else f" (before: {one.before})" for one in result.answers}
    parts += [f"{one.name}: {one.failures} failures{before[one.name]}" for one in result.answers]
    return "; ".join(parts)


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
    return ", ".join([*map(finding_text, result.findings), *_more(result)])


def finding_text(one: Finding) -> str:
    """``RewritesTable (statement 1, line 1, table users: ACCESS EXCLUSIVE, stops readers and writers, …)``."""
    table = f", table {one.table}" if one.table else ""
    locks = f": {text}" if (text := lock_sentence(one.lock, one.effort)) else ""
    return f"{one.hazard} (statement {one.statement}, line {one.line}{table}{locks})"


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
