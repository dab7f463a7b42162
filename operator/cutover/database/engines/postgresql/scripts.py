"""Scripts and expressions by PostgreSQL's own parser: splitting, and what cannot run in a transaction of ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import postgast
from google.protobuf.message import DecodeError

from cutover.database.engines.base import Statement
from cutover.database.engines.postgresql.since import needs
from cutover.database.outcome import Ended
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

_TRANSACTION: Final = "transaction_stmt"
_ALONE: Final = frozenset({
    "vacuum_stmt", "createdb_stmt", "dropdb_stmt", "alter_system_stmt", "create_table_space_stmt", "drop_table_space_stmt",
    "alter_database_stmt", "check_point_stmt", "discard_stmt", "create_subscription_stmt", "drop_subscription_stmt",
})  # fmt: skip
"""Statements that the server refuses in a transaction, or that reach beyond it. `vacuum_stmt` is ANALYZE too: see below."""


def parse(text: str, field: str) -> Any:
    """The tree of a script.

    Raises:
        Ended: it is no SQL. A NUL would end parsing without a word, so it is refused; an expression may be too deep for the
            decoder of the tree.
    """
    if (nul := text.find("\0")) >= 0:
        raise Ended(
            Result(RunnerReason.SCRIPT_SYNTAX, field, line=text[:nul].count("\n") + 1, names=("NUL character",))
        )
    try:
        return postgast.parse(text)
    except postgast.PgQueryError as error:
        line = text[: max(0, error.cursorpos - 1)].count("\n") + 1
        raise Ended(Result(RunnerReason.SCRIPT_SYNTAX, field, line=line)) from None
    except DecodeError:
        raise Ended(Result(RunnerReason.SCRIPT_SYNTAX, field, names=("nested too deeply",))) from None


def split(text: str, field: str) -> list[Statement]:
    """The statements of a script, by what the parser says where they stand. Raises Ended, also for none."""
    data = text.encode()
    found = list[Statement]()
    for raw in parse(text, field).stmts:
        start = raw.stmt_location
        end = start + raw.stmt_len if raw.stmt_len else len(data)
        piece = data[start:end].decode()
        lead = len(piece) - len(piece.lstrip())
        line = data[:start].count(b"\n") + piece[:lead].count("\n") + 1
        found.append(Statement(piece.strip(), len(found) + 1, line))
    if not found:
        raise Ended(Result(RunnerReason.SCRIPT_EMPTY, field))
    return found


def tree_of(statement: Statement) -> tuple[str, Any]:
    """The kind of a statement, as the parser calls it, and its tree."""
    (raw,) = postgast.parse(statement.text).stmts
    kind = raw.stmt.WhichOneof("node")
    return kind, getattr(raw.stmt, kind)


def refusals(statements: Sequence[Statement], field: str, version: int) -> Iterator[Result]:
    """Statements that begin or end a transaction, those that cannot be part of one, and those that the server does not know yet."""
    for statement in statements:
        kind, tree = tree_of(statement)
        if (oldest := needs(tree)) > version:
            names = (f"PostgreSQL {oldest} or later knows it and this is {version}",)
            yield Result(RunnerReason.SCRIPT_SYNTAX, field, statement.number, statement.line, names=names)
        if kind == _TRANSACTION:
            reason = RunnerReason.TRANSACTION_STATEMENT
        elif (kind in _ALONE and not (kind == "vacuum_stmt" and not tree.is_vacuumcmd)) or _is_concurrent(kind, tree):
            reason = RunnerReason.NON_TRANSACTIONAL
        else:
            continue
        yield Result(reason, field, statement.number, statement.line)


def _is_concurrent(kind: str, tree: Any) -> bool:
    if kind in ("index_stmt", "drop_stmt"):
        return bool(tree.concurrent)
    if kind == "reindex_stmt":
        return any(one.def_elem.defname == "concurrently" for one in tree.params)
    if kind == "alter_table_stmt":  # DETACH PARTITION … CONCURRENTLY
        return any(getattr(getattr(one.alter_table_cmd, "def").partition_cmd, "concurrent", False) for one in tree.cmds)
    return False


def expression(text: str, field: str) -> None:
    """See that a text is one expression and nothing more. Raises Ended."""
    tree = parse(f"SELECT (\n{text}\n)", field)
    (raw, *more) = tree.stmts
    select = raw.stmt.select_stmt
    alone = postgast.parse("SELECT (1)").stmts[0].stmt.select_stmt
    only_targets = {one.name for one, _ in select.ListFields()} <= {one.name for one, _ in alone.ListFields()}
    if more or not only_targets or len(select.target_list) != 1 or select.target_list[0].res_target.name:
        raise Ended(Result(RunnerReason.SCRIPT_SYNTAX, field, names=("write one expression",)))


_CHANGING: Final = frozenset({"InsertStmt", "UpdateStmt", "DeleteStmt", "MergeStmt"})


def query(text: str, field: str) -> str:
    """The text of one query: SELECT, VALUES, TABLE or WITH over those. Raises Ended."""
    first, *more = split(text, field)
    kind, tree = tree_of(first)
    changes = any(type(node).__name__ in _CHANGING for _, node in postgast.walk(tree))
    if more or kind != "select_stmt" or changes or tree.HasField("into_clause"):
        raise Ended(Result(RunnerReason.SCRIPT_SYNTAX, field, names=("write one query that only reads",)))
    return first.text
