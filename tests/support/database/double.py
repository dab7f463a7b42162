"""A database in memory behind the protocol of the runner: a second engine, and one that can die at every call.

Its transactions are copies of everything, and only COMMIT puts one in place. Expressions are Python's, which the simple ones of
SQL are too; a script's statements are kept as text. It knows no locks: two transactions at once do not happen.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from cutover.database.engines.base import Filled, Impact, KeyValue, Made, Range, Statement
from cutover.database.journal import Claim, Entry, StepKey, StepRow
from cutover.database.outcome import ConnectionBroken, Ended
from cutover.errors import Unavailable
from cutover.runner_messages.payload import BackfillWork, Direction
from cutover.runner_messages.queries import Query
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Answer, Result
from cutover.testing.crash import CrashSwitch


@dataclass
class State:
    """All that the database has."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    steps: dict[StepKey, StepRow] = field(default_factory=dict)
    history: list[tuple[Claim, Entry]] = field(default_factory=list)


class Double:
    """The engine, and its only server."""

    def __init__(self, rows: int = 0, switch: CrashSwitch | None = None) -> None:
        self.state = State({number: {"id": number, "n": 0} for number in range(1, rows + 1)})
        self.switch = switch or CrashSwitch()

    def connect(self) -> DoubleSession:
        return DoubleSession(self)

    def split(self, text: str, field: str) -> Sequence[Statement]:
        texts = [one.strip() for one in text.split(";") if one.strip()]
        if not texts:
            raise Ended(Result(RunnerReason.SCRIPT_EMPTY, field))
        return [Statement(one, number, 1) for number, one in enumerate(texts, 1)]

    def impacts(self, statements: Sequence[Statement]) -> Sequence[Impact]:
        del statements
        return ()

    def makes(self, statements: Sequence[Statement]) -> Made:
        del statements
        return Made()

    def question(self, query: Query) -> str:
        return str(query.sql)

    def refusals(self, statements: Sequence[Statement], field: str, version: int) -> Sequence[Result]:
        del statements, field, version
        return ()

    def expression(self, text: str, field: str) -> None:
        compile(text, field, "eval")

    def query(self, text: str, field: str) -> str:
        del field
        return text


class DoubleSession:
    """A connection: what it asks may kill the process, or lose its answer."""

    version = 1

    def __init__(self, server: Double) -> None:
        self.server = server

    def call(self, effect: Any) -> Any:
        """Around everything that would go over the wire."""
        try:
            return self.server.switch.around(effect)
        except Unavailable:
            raise ConnectionBroken(Result(RunnerReason.CONNECTION_LOST)) from None

    def prepare(self) -> None:
        self.call(lambda: None)

    def problems(self, *, writes: bool) -> Sequence[Result]:
        del writes
        return ()

    @contextmanager
    def transaction(self, *, read_only: bool = False, durable: bool = True) -> Iterator[DoubleTransaction]:
        del durable
        mine = copy.deepcopy(self.server.state)
        yield DoubleTransaction(self, mine)
        if not read_only:
            self.call(lambda: setattr(self.server, "state", mine))

    def rows(self, table: str) -> int | None:
        del table
        return len(self.server.state.rows)

    def filler(self, work: BackfillWork, *, reverse: bool = False, added: frozenset[str] = frozenset()) -> DoubleFiller:
        del added
        return DoubleFiller(work, reverse=reverse)

    def lag(self) -> timedelta | None:
        return timedelta()

    def throttled(self, query: str) -> bool:
        del query
        return False

    def reconnect(self) -> None:
        """It comes back at once."""

    def close(self) -> None:
        """Nothing is open."""


class DoubleTransaction:
    """A copy of the state."""

    def __init__(self, session: DoubleSession, state: State) -> None:
        self._session, self.state = session, state

    def call(self, effect: Any) -> Any:
        return self._session.call(effect)

    def claim(self, claim: Claim) -> StepRow:
        row: StepRow = self.call(lambda: self.state.steps.get(claim.key, StepRow()))
        if row.fence > claim.fence:
            raise Ended(Result(RunnerReason.FENCED))
        self.state.steps[claim.key] = replace(row, fence=claim.fence)
        return row

    def save(self, claim: Claim, row: StepRow) -> None:
        self.call(lambda: self.state.steps.__setitem__(claim.key, replace(row, fence=claim.fence)))

    def look(self, key: StepKey) -> StepRow | None:
        return self.state.steps.get(key)

    def record(self, claim: Claim, entry: Entry) -> None:
        self.call(lambda: self.state.history.append((claim, entry)))

    def recorded(self, key: StepKey) -> Mapping[str, int]:
        answers = [entry.answers for claim, entry in self.state.history if claim.key == key]
        return answers[-1] if answers else {}

    def run(self, statement: Statement, field: str) -> None:
        del field
        self.call(lambda: self.state.applied.append(statement.text))

    def measure(self, table: str, columns: Sequence[str]) -> None:
        del table, columns

    def only_read(self) -> None:
        self.call(lambda: None)

    def judge(self, statement: Statement, field: str) -> int:
        del field
        return int(self.call(lambda: eval(statement.text, {"applied": self.state.applied})))  # noqa: S307 -- the test's own

    def ask(self, query: Query) -> Answer:
        failures = int(self.call(lambda: eval(str(query.sql), {"rows": self.state.rows})))  # noqa: S307 -- the test's own
        return Answer(query.name, passed=failures == 0, failures=failures)


class DoubleFiller:
    """Ranges of a dictionary."""

    columns = ("id",)

    def __init__(self, work: BackfillWork, *, reverse: bool) -> None:
        self._work, self._reverse = work, reverse

    @property
    def texts(self) -> Mapping[str, str]:
        return {"batch": str(self._work.set_), "verify": self._work.verify}

    def wanted(self, tx: Any) -> int:
        return sum(map(self._wanted, tx.state.rows.values()))

    def total(self, tx: Any) -> int:
        return len(tx.state.rows)

    def last_key(self, tx: Any) -> KeyValue | None:
        return (str(max(tx.state.rows)),) if tx.state.rows else None

    def matches(self, tx: Any) -> bool:
        return any(self._wanted(row) for row in tx.state.rows.values())

    def end_of(self, tx: Any, after: KeyValue | None, bound: KeyValue, count: int) -> KeyValue:
        keys = self._keys(tx, Range(after, bound))[:count]
        return (str(keys[-1]),) if len(keys) == count else bound

    def fill(self, tx: Any, span: Range) -> Filled:
        return self._change(tx, [key for key in self._keys(tx, span) if self._wanted(tx.state.rows[key])])

    def first_unverified(self, tx: Any, after: KeyValue | None, count: int) -> KeyValue | None:
        keys = [key for key in self._keys(tx, Range(after, ("999999",))) if not self._verified(tx.state.rows[key])]
        return (str(keys[:count][-1]),) if keys else None

    def sweep(self, tx: Any, span: Range) -> Filled:
        return self._change(tx, [key for key in self._keys(tx, span) if not self._verified(tx.state.rows[key])])

    def unverified(self, tx: Any) -> int:
        return sum(not self._verified(row) for row in tx.state.rows.values())

    def tidy(self) -> None:
        """There is nothing to tidy."""

    def measure(self) -> None:
        """Nor to measure."""

    def _keys(self, tx: Any, span: Range) -> list[int]:
        low = int(span.after[0]) if span.after else 0
        return [key for key in sorted(tx.state.rows) if low < key <= int(span.upto[0])]

    def _change(self, tx: Any, keys: list[int]) -> Filled:
        values = self._work.reverse if self._reverse and self._work.reverse else self._work.set_

        def effect() -> Filled:
            for key in keys:
                row = tx.state.rows[key]
                row.update({name: _value(text, row) for name, text in values.items()})
            return Filled(len(keys), sum(not self._verified(tx.state.rows[key]) for key in keys))

        filled: Filled = tx.call(effect)
        return filled

    def _wanted(self, row: Mapping[str, Any]) -> bool:
        if self._reverse:
            return self._verified(row)
        return self._work.where is None or bool(_value(self._work.where, row))

    def _verified(self, row: Mapping[str, Any]) -> bool:
        return bool(_value(self._work.verify, row))


def _value(text: str, row: Mapping[str, Any]) -> Any:
    return eval(text, {}, dict(row))  # noqa: S307 -- the test's own


def is_up(state: State, key: StepKey) -> bool:
    """Whether the journal says that a step is done."""
    row = state.steps.get(key)
    return row is not None and row.direction is Direction.UP and row.finished
