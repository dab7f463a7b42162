"""What is inside a DO block: statements that other linters do not look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import postgast

from cutover.database.engines.postgresql.hazards.effects import Effect
from cutover.runner_messages.hazards import Hazard

_CHANGING: Final = ("insert_stmt", "update_stmt", "delete_stmt", "merge_stmt", "copy_stmt", "truncate_stmt")


def of_do(tree: Any) -> Iterator[Effect]:
    """Rows that are changed in a block are changed in one transaction, whatever its loop looks like."""
    source = {one.def_elem.defname: one.def_elem.arg for one in tree.args}
    language = source["language"].string.sval if "language" in source else "plpgsql"
    body = source["as"].string.sval if "as" in source else ""
    queries = list(_queries(body)) if language == "plpgsql" else None
    if queries is None:
        yield Effect(hazard=Hazard.NEEDS_REVIEW)
        return
    kinds = {_kind(query) for query in queries}
    if kinds & set(_CHANGING):
        yield Effect(hazard=Hazard.DML_IN_BLOCK, takes_long=True)
    elif queries:
        yield Effect(hazard=Hazard.NEEDS_REVIEW)


def _queries(body: str) -> Iterator[str]:
    """The text of every statement and expression of a block."""
    tag = "$cutover$"
    try:
        tree = postgast.parse_plpgsql(f"DO {tag}{body}{tag}")
    except (postgast.PgQueryError, ValueError):
        yield "?"
        return
    stack: list[Any] = json.loads(json.dumps(tree))
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            for name, part in node.items():
                if name in ("PLpgSQL_stmt_execsql", "PLpgSQL_stmt_dynexecute", "PLpgSQL_stmt_commit", "PLpgSQL_stmt_rollback", "PLpgSQL_stmt_call"):  # fmt: skip
                    yield (
                        part.get("sqlstmt", {}).get("PLpgSQL_expr", {}).get("query", "?")
                        if isinstance(part, dict)
                        else "?"
                    )
                stack.append(part)
        elif isinstance(node, list):
            stack.extend(node)


def _kind(query: str) -> str:
    try:
        (raw,) = postgast.parse(query).stmts
    except (postgast.PgQueryError, ValueError):
        return "?"
    return str(raw.stmt.WhichOneof("node"))
