"""What one statement does to tables, and what a script has done so far. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import Effort, Lock

_EFFORTS: Final = {
    Hazard.REWRITES_TABLE: Effort.REWRITE,
    Hazard.SCANS_TABLE: Effort.SCAN,
    Hazard.BUILDS_INDEX: Effort.BUILD,
}


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a statement does.

    Attributes:
        table: to which; empty: to none, or to one that is not named.
        lock: that it keeps until the transaction ends.
        hazard: why its author must allow it.
        takes_long: as long as there are rows: bad while an earlier statement's lock is kept.
        work: what takes long, where the hazard does not say it.
    """

    table: str = ""
    lock: Lock = Lock.NONE
    hazard: Hazard | None = None
    takes_long: bool = False
    work: Effort = Effort.NONE

    @property
    def effort(self) -> Effort:
        """What is done while the lock is kept."""
        return self.work or (_EFFORTS.get(self.hazard, Effort.NONE) if self.hazard else Effort.NONE)


@dataclass
class Script:
    """What a script has done before the statement that is looked at.

    Attributes:
        made: tables that it created.
        added: columns that it added, each with its table.
        retyped: columns whose type it changed, each with its table.
        types: that it created.
        defaulted: columns that it added with a default, which has filled every row.
        blocked: a lock on somebody else's table is kept.
    """

    made: set[str] = field(default_factory=set)
    added: set[tuple[str, str]] = field(default_factory=set)
    retyped: set[tuple[str, str]] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    defaulted: set[str] = field(default_factory=set)
    blocked: bool = False

    def add(self, effects: Sequence[Effect]) -> None:
        """A statement is over."""
        self.blocked = self.blocked or any(one.lock.stops_others and one.table not in self.made for one in effects)


def table_of(relation: Any) -> str:
    """The name of a table, with its schema where it is given."""
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else str(relation.relname)


def last_name(names: Any) -> str:
    """The last part of a qualified name."""
    return str(names[-1].string.sval) if names else ""
