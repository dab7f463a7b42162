"""The questions of validations: the presets as SQL, and what an answer means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import psycopg

from cutover.database.engines.postgresql.names import quoted, quoted_table
from cutover.runner_messages.queries import CompareColumns, Duplicates, Expect, Nulls, Orphans, Query
from cutover.runner_messages.result import Answer

_LARGEST: Final = 2**53
_AT_A_TIME: Final = 1000
_OF_SQL: Final = {
    Expect.EQUALS: "SELECT (q.v)::text FROM (\n{}\n) AS q (v)",
    Expect.ZERO_ROWS: "SELECT count(*) FROM (\n{}\n) AS q",
}
"""What is made of the author's query, which the parser has found to be one query."""


def text_of(query: Query) -> str:
    """The query as it is sent."""
    if query.sql is not None:
        return _OF_SQL.get(query.expect, "{}").replace("{}", query.sql)
    (asked,) = (one for one in (query.orphans, query.duplicates, query.nulls, query.compare_columns) if one is not None)
    return _PRESETS[type(asked)](asked)


def _orphans(asked: Orphans) -> str:
    pairs = list(zip(map(quoted, asked.columns), map(quoted, asked.key), strict=True))
    refers = " AND ".join(f"child.{column} IS NOT NULL" for column, _ in pairs)
    meets = " AND ".join(f"parent.{key} = child.{column}" for column, key in pairs)
    return (
        f"SELECT count(*) FROM {quoted_table(asked.table)} AS child WHERE {refers} AND NOT EXISTS "
        f"(SELECT FROM {quoted_table(asked.references)} AS parent WHERE {meets})"
    )


def _duplicates(asked: Duplicates) -> str:
    columns = ", ".join(map(quoted, asked.columns))
    filled = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in asked.columns)
    return (
        f"SELECT coalesce(sum(n - 1), 0)::bigint FROM (SELECT count(*) AS n FROM {quoted_table(asked.table)} "
        f"WHERE {filled} GROUP BY {columns} HAVING count(*) > 1) AS found"
    )


def _nulls(asked: Nulls) -> str:
    missing = " OR ".join(f"{quoted(column)} IS NULL" for column in asked.columns)
    return f"SELECT count(*) FROM {quoted_table(asked.table)} WHERE {missing}"


def _compare(asked: CompareColumns) -> str:
    return (
        f"SELECT count(*) FROM {quoted_table(asked.table)} WHERE (\n{asked.old}\n) IS DISTINCT FROM (\n{asked.new}\n)"
    )


_PRESETS: Final[dict[type, Callable[[Any], str]]] = {
    Orphans: _orphans,
    Duplicates: _duplicates,
    Nulls: _nulls,
    CompareColumns: _compare,
}


# --- answers ----------------------------------------------------------------------------------------------------------


def answer_of(query: Query, cursor: psycopg.Cursor[Any]) -> Answer:
    """What an answer means for a query."""
    rows = cursor.fetchmany(2)
    if len(rows) != 1 or len(rows[0]) != 1:
        return Answer(query.name, problem="it must answer one row with one value")
    (value,) = rows[0]
    if query.expect is Expect.EQUALS:
        return Answer(query.name, passed=value == query.value, failures=int(value != query.value))
    if query.expect is Expect.TRUE:
        return Answer(query.name, passed=value is True, failures=int(value is not True))
    if not isinstance(value, int | float | Decimal) or isinstance(value, bool):
        return Answer(query.name, problem="it must answer a number")
    failures = _failures(value)
    return Answer(query.name, passed=failures == 0, failures=failures)


def failures_of(cursor: psycopg.Cursor[Any]) -> int:
    """Failures that the rows of a script's validation report; 0: all is well."""
    if cursor.description is None:
        return 0
    failures = 0
    while rows := cursor.fetchmany(_AT_A_TIME):
        failures += sum(map(_failures_of_row, rows))
    return min(failures, _LARGEST)


def _failures_of_row(row: Sequence[Any]) -> int:
    judged = [value for value in row if isinstance(value, bool | int | float | Decimal)]
    if not judged:
        return 1
    return sum(int(not value) if isinstance(value, bool) else _failures(value) for value in judged)


def _failures(value: float | Decimal) -> int:
    """A number that should be 0. Not a number, or a part of one, is one failure."""
    number = float(value)
    if number == 0:
        return 0
    return max(1, int(abs(number))) if abs(number) < _LARGEST else 1  # NaN is not less than anything
