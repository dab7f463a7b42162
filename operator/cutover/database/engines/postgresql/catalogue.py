"""What a backfill must know of its table, from the server's catalogue; wrong names are told with what may be meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cutover.database.engines.postgresql.connecting import Connection
from cutover.database.engines.postgresql.names import quoted, split_table
from cutover.database.outcome import Ended
from cutover.runner_messages.payload import BackfillWork
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result, identifier

_TABLE: Final = """
SELECT c.oid, n.nspname, c.reltuples::bigint FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')
"""
_TABLES: Final = """
SELECT c.relname FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relkind IN ('r', 'p')
"""
_COLUMNS: Final = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, -1), t.typname, a.attnotnull, coalesce(l.collisdeterministic, true),
       a.attgenerated <> '' OR a.attidentity = 'a'
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_collation AS l ON l.oid = a.attcollation
WHERE a.attrelid = $1::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS: Final = """
SELECT i.indisprimary, (SELECT array_agg(a.attname ORDER BY k.n) FROM unnest(i.indkey) WITH ORDINALITY AS k (num, n)
        JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.num WHERE k.n <= i.indnkeyatts)
FROM pg_catalog.pg_index AS i
WHERE i.indrelid = $1::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid
"""
_SAME_IS_EQUAL: Final = frozenset({
    "bool", "int2", "int4", "int8", "oid", "text", "varchar", "uuid", "date", "timestamp", "timestamptz", "time", "bytea", "name",
})  # fmt: skip
"""Types in which two values that are equal are the same value. 1.0 and 1.00, or the letters of a citext, are not."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its name, its type for casts, whether it may be NULL, whether equal values are the same, and whether the server makes them."""

    name: str
    type: str
    not_null: bool
    same_is_equal: bool
    generated: bool


@dataclass(frozen=True, slots=True)
class Table:
    """A table and the key to page by. `estimate`: rows; below 0 where it was never analysed."""

    schema: str
    name: str
    estimate: int
    columns: Mapping[str, Column]
    key: tuple[Column, ...]

    @property
    def quoted(self) -> str:
        """As SQL writes it."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"


def find_table(
    connection: Connection, work: BackfillWork, schema: str, *, reverse: bool, added: frozenset[str] = frozenset()
) -> Table:
    """The table of a backfill; columns in `added` will be there. Raises Ended: it, a column or a usable key is not there."""
    named, name = split_table(work.table)
    where = named or schema
    found = connection.execute(_TABLE, (where, name)).fetchone()
    if found is None:
        tables = [row[0] for row in connection.execute(_TABLES, (where,)).fetchall()]
        raise Ended(Result(RunnerReason.TABLE_NOT_FOUND, "backfill.table", names=_near(name, tables)))
    oid, _, estimate = found
    columns = {name: Column(name, "", not_null=False, same_is_equal=True, generated=False) for name in added}
    columns |= {row[0]: _column(row) for row in connection.execute(_COLUMNS, (oid,)).fetchall()}
    _usable(work, columns, work.reverse if reverse and work.reverse else work.set_)
    keys = connection.execute(_KEYS, (oid,)).fetchall()
    return Table(where, name, estimate, columns, _key(work, columns, keys))


def _usable(work: BackfillWork, columns: Mapping[str, Column], filled: Mapping[str, str]) -> None:
    """Raises Ended: a column is not there, or not ours to fill."""
    for one in (*work.key, *filled):
        if one not in columns:
            field = "backfill.key" if one in work.key else "backfill.set"
            raise Ended(Result(RunnerReason.COLUMN_NOT_FOUND, field, names=_near(one, list(columns))))
    for one in filled:
        if columns[one].generated:
            raise Ended(Result(RunnerReason.GENERATED_COLUMN, f"backfill.set.{one}"))


def _column(row: Sequence[Any]) -> Column:
    name, type_, base, not_null, deterministic, generated = row
    return Column(name, type_, not_null, base in _SAME_IS_EQUAL and deterministic, generated)


def _key(work: BackfillWork, columns: Mapping[str, Column], keys: Sequence[tuple[Any, ...]]) -> tuple[Column, ...]:
    """The columns that the plan names, which must be unique and NOT NULL, else the best that there are."""
    usable = [tuple(names) for _, names in keys if all(columns[one].not_null for one in names)]
    if work.key:
        if set(work.key) not in map(set, usable):
            raise Ended(Result(RunnerReason.NULLABLE_KEY, "backfill.key", names=tuple(map(identifier, work.key))))
        return tuple(columns[one] for one in next(names for names in usable if set(names) == set(work.key)))
    if not usable:
        raise Ended(Result(RunnerReason.NO_USABLE_KEY, "backfill", names=(identifier(work.table),)))
    return tuple(columns[one] for one in usable[0])


def _near(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """The name, and the one that may be meant."""
    near = difflib.get_close_matches(name, names, n=1)
    return (identifier(name), *(f"did you mean {identifier(one)}" for one in near))
