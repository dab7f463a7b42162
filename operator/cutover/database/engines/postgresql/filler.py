"""The statements of one backfill.

Rows are changed by ranges of the key, never by a list of keys: joined to a list, the plan of a large batch becomes a scan of the
whole table. Bounds travel as the server's own text with a cast. The author's expressions are part of our statement, each in
parentheses that the parser has found to be balanced (`scripts.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cutover.database.engines.base import Filled, KeyValue, Range, Transaction
from cutover.database.engines.postgresql.catalogue import Column, Table
from cutover.database.engines.postgresql.names import quoted
from cutover.database.engines.postgresql.transaction import PostgresTransaction
from cutover.errors import Broken
from cutover.runner_messages.payload import BackfillWork


class PostgresFiller:
    """See `engines/base.py`.

    Args:
        table: as the catalogue has it.
        work: the fields of the step.
        run_alone: runs a statement outside a transaction.
        reverse: sets what undo sets, and only where `verify` is true, which says that the row was filled.
    """

    def __init__(self, table: Table, work: BackfillWork, run_alone: Callable[[str], None], *, reverse: bool) -> None:
        self._table, self._run_alone = table, run_alone
        self._keys = ", ".join(quoted(one.name) for one in table.key)
        self._down = ", ".join(f"{quoted(one.name)} DESC" for one in table.key)
        self._texts = ", ".join(f"k.{quoted(one.name)}::text" for one in table.key)
        self._row = f"({self._keys})"
        self._failing = f"((\n{work.verify}\n) IS NOT TRUE)"
        where = f"(\n{work.where}\n)" if work.where else "true"
        self._wanted = f"NOT {self._failing}" if reverse else where
        values = work.reverse if reverse and work.reverse else work.set_
        self._filled = ", ".join(map(quoted, values))
        self._set = ", ".join(f"{quoted(name)} = (\n{value}\n)" for name, value in values.items())
        self._count_text = f"SELECT count(*) FROM {table.quoted} WHERE {self._failing}"
        self._changes = " OR ".join(_differs(table.columns[name], value) for name, value in values.items())

    @property
    def columns(self) -> tuple[str, ...]:
        """The key."""
        return tuple(one.name for one in self._table.key)

    @property
    def texts(self) -> Mapping[str, str]:
        """As they are sent; $1 and $2 are the ends of a range."""
        first = ("",) * len(self._table.key)
        return {
            "batch": self._update_text(self._span(Range(first, first))[0], self._wanted),
            "verify": self._count_text,
        }

    def wanted(self, tx: Transaction) -> int:
        """By EXPLAIN, which runs nothing."""
        query = f"SELECT FROM {self._table.quoted} WHERE {self._wanted} AND ({self._changes})"
        ((plan,),) = _rows(tx, f"EXPLAIN (FORMAT JSON) {query}")
        return int(plan[0]["Plan"]["Plan Rows"])

    def total(self, tx: Transaction) -> int:
        """The server's estimate."""
        del tx
        return max(0, self._table.estimate)

    def last_key(self, tx: Transaction) -> KeyValue | None:
        """By the index."""
        return self._key_of(tx, f"SELECT {self._keys} FROM {self._table.quoted} ORDER BY {self._down} LIMIT 1")

    def matches(self, tx: Transaction) -> bool:
        """Stops at the first."""
        ((found,),) = _rows(tx, f"SELECT EXISTS (SELECT FROM {self._table.quoted} WHERE {self._wanted})")
        return bool(found)

    def end_of(self, tx: Transaction, after: KeyValue | None, bound: KeyValue, count: int) -> KeyValue:
        """The key so many rows further, by the index alone; the bound where there are fewer."""
        span, values = self._span(Range(after, bound))
        query = (
            f"SELECT {self._keys} FROM {self._table.quoted} WHERE {span} "
            f"ORDER BY {self._keys} OFFSET {count - 1} LIMIT 1"
        )
        return self._key_of(tx, query, values) or bound

    def fill(self, tx: Transaction, span: Range) -> Filled:
        """Rows that are right already are left alone: no dead version of them, and a second run changes nothing."""
        return self._update(tx, span, self._wanted)

    def first_unverified(self, tx: Transaction, after: KeyValue | None, count: int) -> KeyValue | None:
        """The last of so many."""
        span, values = self._above(after)
        query = (
            f"SELECT {self._keys} FROM (SELECT {self._keys} FROM {self._table.quoted} WHERE {span} AND {self._failing} "
            f"ORDER BY {self._keys} LIMIT {count}) AS f ORDER BY {self._down} LIMIT 1"
        )
        return self._key_of(tx, query, values)

    def sweep(self, tx: Transaction, span: Range) -> Filled:
        """Only what fails, whatever the author's `where` says of it now."""
        return self._update(tx, span, self._failing)

    def unverified(self, tx: Transaction) -> int:
        """One scan."""
        ((count,),) = _rows(tx, self._count_text)
        return int(count)

    def tidy(self) -> None:
        """Waits for no lock, and gives no pages back, since that would take a lock that stops readers."""
        self._run_alone(f"VACUUM (SKIP_LOCKED, TRUNCATE false) {self._table.quoted}")

    def measure(self) -> None:
        """Statistics of the columns that were filled; of the others nothing has changed."""
        self._run_alone(f"ANALYZE (SKIP_LOCKED) {self._table.quoted} ({self._filled})")

    # --- parts of statements ------------------------------------------------------------------------------------------

    def _update(self, tx: Transaction, span: Range, wanted: str) -> Filled:
        bounds, values = self._span(span)
        ((rows, bad),) = _rows(tx, self._update_text(bounds, wanted), values)
        return Filled(int(rows), int(bad))

    def _update_text(self, bounds: str, wanted: str) -> str:
        return (
            f"WITH changed AS (UPDATE {self._table.quoted} SET {self._set} WHERE {bounds} AND {wanted} AND ({self._changes}) "
            f"RETURNING {self._failing} AS failing) SELECT count(*), count(*) FILTER (WHERE failing) FROM changed"
        )

    def _span(self, span: Range) -> tuple[str, tuple[Any, ...]]:
        """Above one key, up to another: the condition and its parameters."""
        above, values = self._above(span.after)
        upto = self._casts(len(values))
        return f"{above} AND {self._row} <= ({upto})", (*values, *span.upto)

    def _above(self, after: KeyValue | None) -> tuple[str, tuple[Any, ...]]:
        return ("true", ()) if after is None else (f"{self._row} > ({self._casts(0)})", after)

    def _casts(self, before: int) -> str:
        return ", ".join(f"${number}::{one.type}" for number, one in enumerate(self._table.key, before + 1))

    def _key_of(self, tx: Transaction, query: str, values: tuple[Any, ...] = ()) -> KeyValue | None:
        rows = _rows(tx, f"SELECT {self._texts} FROM ({query}) AS k", values)
        return tuple(rows[0]) if rows else None


def _differs(column: Column, value: str) -> str:
    """Whether a column would change. Values that are equal and not the same are compared as text."""
    name = quoted(column.name)
    if column.same_is_equal:
        return f"{name} IS DISTINCT FROM (\n{value}\n)"
    return f'({name})::text COLLATE "C" IS DISTINCT FROM ((\n{value}\n))::text COLLATE "C"'


def _rows(tx: Transaction, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(tx, PostgresTransaction):
        raise Broken("the statements of an engine run in its own transactions")
    return tx.rows(statement, values)
