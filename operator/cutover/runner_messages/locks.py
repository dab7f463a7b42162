"""Locks on a table, as PostgreSQL names them, whom each of them stops, and the work that is done under it. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Lock(StrEnum):
    """A lock on a table, the weakest first."""

    NONE = ""
    ACCESS_SHARE = "ACCESS SHARE"
    ROW_SHARE = "ROW SHARE"
    ROW_EXCLUSIVE = "ROW EXCLUSIVE"
    SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
    SHARE = "SHARE"
    SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
    EXCLUSIVE = "EXCLUSIVE"
    ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"

    @property
    def strength(self) -> int:
        """To find the strongest of several."""
        return list(Lock).index(self)

    @property
    def stops_others(self) -> bool:
        """Whether whoever reads or writes rows has to wait."""
        return self.strength >= Lock.SHARE.strength

    @property
    def victims(self) -> str:
        """Who waits for its end."""
        if self is Lock.ACCESS_EXCLUSIVE:
            return "readers and writers"
        if self.stops_others:
            return "writers"
        return _OTHERS.get(self, "nobody who reads or writes rows")


_OTHERS: Final = {
    Lock.SHARE_UPDATE_EXCLUSIVE: "other changes of the schema, and VACUUM",
    Lock.ROW_EXCLUSIVE: "those who change the same rows",
}


class Effort(StrEnum):
    """What is done while the lock is kept, as long as there are rows."""

    NONE = ""
    SCAN = "scan"
    CHANGE = "change of rows"
    BUILD = "index build"
    REWRITE = "rewrite"

    @property
    def text(self) -> str:
        """In a sentence."""
        return _EFFORTS[self]


_EFFORTS: Final = {
    Effort.NONE: "for a moment",
    Effort.SCAN: "reads every row",
    Effort.CHANGE: "changes rows",
    Effort.BUILD: "builds an index",
    Effort.REWRITE: "writes the table and its indexes again",
}


def lock_sentence(lock: Lock, effort: Effort) -> str:
    """``ACCESS EXCLUSIVE, stops readers and writers, for a moment``; empty where nothing is locked."""
    return f"{lock}, stops {lock.victims}, {effort.text}" if lock is not Lock.NONE else ""
