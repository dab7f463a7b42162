"""What one statement does to tables, and what a script has done so far. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from cutover.runner_messages.hazards import Hazard


class Lock(IntEnum):
    """Locks on a table, as far as they differ for those who use it."""

    NONE = 0
    """Whatever stops no reader and no writer."""
    SHARE_ROW_EXCLUSIVE = 1
    """Stops writers (SHARE too)."""
    ACCESS_EXCLUSIVE = 2
    """Stops readers and writers."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a statement does.

    Attributes:
        table: to which; empty: to none, or to one that is not named.
        lock: that it keeps until the transaction ends.
        hazard: why its author must allow it.
        takes_long: as long as there are rows: bad while an earlier statement's lock is kept.
    """

    table: str = ""
    lock: Lock = Lock.NONE
    hazard: Hazard | None = None
    takes_long: bool = False


@dataclass
class Script:
    """What a script has done before the statement that is looked at.

    Attributes:
        made: tables that it created.
        types: that it created.
        defaulted: columns that it added with a default, which has filled every row.
        blocked: a lock on somebody else's table is kept.
    """

    made: set[str] = field(default_factory=set)
    types: set[str] = field(default_factory=set)
    defaulted: set[str] = field(default_factory=set)
    blocked: bool = False

    def add(self, effects: Sequence[Effect]) -> None:
        """A statement is over."""
        self.blocked = self.blocked or any(one.lock > Lock.NONE and one.table not in self.made for one in effects)


def table_of(relation: Any) -> str:
    """The name of a table, with its schema where it is given."""
    return f"{relation.schemaname}.{relation.relname}" if relation.schemaname else str(relation.relname)


def last_name(names: Any) -> str:
    """The last part of a qualified name."""
    return str(names[-1].string.sval) if names else ""
