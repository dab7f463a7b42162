"""What a work needs of a database, as protocols. `postgresql/` is one implementation, the double of the tests another.

Errors: `LockNotGranted` and `ConnectionBroken` may be raised by every call of a transaction, and mean that all of it did not
happen, or is not known to have (`works/transactions.py` runs it again). Everything else ends the run, as `Ended`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from cutover.database.journal import Claim, Entry, StepKey, StepRow
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import Effort, Lock
from cutover.runner_messages.payload import BackfillWork
from cutover.runner_messages.queries import Query
from cutover.runner_messages.result import Answer, Finding, Result, identifier

KeyValue = tuple[str, ...]
"""A key, as the server's own text of each column: a round trip through another type system loses digits and orders."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a script.

    Attributes:
        text: as its author wrote it.
        number: in the script, from 1.
        line: in the script, from 1.
    """

    text: str
    number: int
    line: int


@dataclass(frozen=True, slots=True)
class Impact:
    """What a statement does to one table, or to none that it names.

    Attributes:
        statement: which.
        table: its name, as the statement has it; empty: none that is named.
        lock: the strongest that is kept on it until the transaction ends.
        effort: what is done in the meantime.
        hazards: what its author must allow.
    """

    statement: Statement
    table: str
    lock: Lock
    effort: Effort
    hazards: tuple[Hazard, ...]

    def findings(self) -> list[Finding]:
        """The hazards, as a result has them."""
        where = (self.statement.number, self.statement.line, identifier(self.table), self.lock, self.effort)
        return [Finding(hazard, *where) for hazard in self.hazards]


@dataclass(frozen=True, slots=True)
class Range:
    """Keys above `after` (None: from the first) up to and including `upto`."""

    after: KeyValue | None
    upto: KeyValue


@dataclass(frozen=True, slots=True)
class Filled:
    """What one batch came to: rows changed, and of those how many fail `verify`."""

    rows: int
    bad: int


@dataclass(frozen=True, slots=True)
class Made:
    """What scripts make: tables, columns of tables that are there, and new types of columns that are there."""

    tables: frozenset[str] = frozenset()
    columns: frozenset[tuple[str, str]] = frozenset()
    types: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: Made) -> Made:
        return Made(self.tables | other.tables, self.columns | other.columns, self.types | other.types)


class Filler(Protocol):
    """The statements of one backfill, made once for its table and key."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The key."""

    @property
    def texts(self) -> Mapping[str, str]:
        """The statements of a batch and of the end, by what they are for; to be read by people."""

    def total(self, tx: Transaction) -> int:
        """Rows of the table, as the server estimates them; 0 where it does not know."""

    def wanted(self, tx: Transaction) -> int:
        """Rows that would be changed, as the planner estimates them."""

    def last_key(self, tx: Transaction) -> KeyValue | None:
        """The highest key now; None: the table is empty."""

    def matches(self, tx: Transaction) -> bool:
        """Whether any row needs it."""

    def end_of(self, tx: Transaction, after: KeyValue | None, bound: KeyValue, count: int) -> KeyValue:
        """The end of a range with so many rows after a key, at most the bound."""

    def fill(self, tx: Transaction, span: Range) -> Filled:
        """Change the rows of a range that need it."""

    def first_unverified(self, tx: Transaction, after: KeyValue | None, count: int) -> KeyValue | None:
        """The end of a range with so many rows that fail `verify`; None: no row after the key does."""

    def sweep(self, tx: Transaction, span: Range) -> Filled:
        """Change the rows of a range that fail `verify`."""

    def unverified(self, tx: Transaction) -> int:
        """Rows of the whole table for which `verify` is not true."""

    def tidy(self) -> None:
        """Make the room of old row versions usable again; blocks nobody."""

    def measure(self) -> None:
        """Let the planner know the new values."""


class Transaction(Protocol):
    """One transaction. Leaving its `with` block commits; an exception rolls back."""

    def claim(self, claim: Claim) -> StepRow:
        """Lock the row of a step, made where there is none, and leave our fence on it.

        Raises:
            Ended: FENCED, a higher fence is there.
        """

    def save(self, claim: Claim, row: StepRow) -> None:
        """Write the row of a step that this transaction has claimed."""

    def look(self, key: StepKey) -> StepRow | None:
        """Read it; None: nothing was ever begun, or the tables are not there."""

    def record(self, claim: Claim, entry: Entry) -> None:
        """Add to the history."""

    def recorded(self, key: StepKey) -> Mapping[str, int]:
        """The failures by query that the last validation of a step left."""

    def run(self, statement: Statement, field: str) -> None:
        """Run a statement of the author.

        Raises:
            Ended: the server refused it, or it ended the transaction.
        """

    def measure(self, table: str, columns: Sequence[str]) -> None:
        """Let the planner know the values of columns."""

    def only_read(self) -> None:
        """From here on, writes are refused."""

    def judge(self, statement: Statement, field: str) -> int:
        """Failures that a query reports: of a script's validation. Raises Ended."""

    def ask(self, query: Query) -> Answer:
        """The answer to a query of a `validate` step; a query that fails is an answer with a problem."""


class Session(Protocol):
    """One connection, and the next one when it breaks."""

    @property
    def version(self) -> int:
        """The server's major version."""

    def prepare(self) -> None:
        """Make the tables of the journal where they are not there. Raises Ended with what must be granted."""

    def problems(self, *, writes: bool) -> Sequence[Result]:
        """What is wrong with the server, the role and the way to it, all of it; reads only."""

    def transaction(self, *, read_only: bool = False, durable: bool = True) -> AbstractContextManager[Transaction]:
        """Begin one. Not durable: its commit may be lost with the machine, as a whole."""

    def filler(self, work: BackfillWork, *, reverse: bool = False, added: frozenset[str] = frozenset()) -> Filler:
        """Look the table up, and make the statements. Columns in `added` are not there yet. Raises Ended with what is wrong."""

    def rows(self, table: str) -> int | None:
        """Rows of a table, as the server estimates them; None: it does not know, or there is no such table."""

    def lag(self) -> timedelta | None:
        """How far the furthest standby is behind; None: not known, or there is none."""

    def throttled(self, query: str) -> bool:
        """Whether the author's query answers a number above 0. Raises Ended where it does not."""

    def reconnect(self) -> None:
        """Drop the connection, and make another. Raises ConnectionBroken."""

    def close(self) -> None:
        """End it."""


class Texts(Protocol):
    """What one kind of server makes of scripts, expressions and queries; no server is needed for it."""

    def split(self, text: str, field: str) -> Sequence[Statement]:
        """The statements of a script. Raises Ended: no SQL, or none at all."""

    def impacts(self, statements: Sequence[Statement]) -> Sequence[Impact]:
        """What a script locks, and its hazards; without a connection."""

    def makes(self, statements: Sequence[Statement]) -> Made:
        """What a script makes that was not there before it."""

    def refusals(self, statements: Sequence[Statement], field: str, version: int) -> Sequence[Result]:
        """Statements that cannot be part of a transaction of ours, or that a server of this version does not know."""

    def expression(self, text: str, field: str) -> None:
        """See that a text is one expression and nothing more. Raises Ended."""

    def query(self, text: str, field: str) -> str:
        """The query, without the semicolon behind it. Raises Ended: it is not one query that only reads."""

    def question(self, query: Query) -> str:
        """The SQL that a query of a `validate` step is sent as."""


class Engine(Texts, Protocol):
    """One kind of server."""

    def connect(self) -> Session:
        """Raises Ended, or ConnectionBroken where another try may do."""
