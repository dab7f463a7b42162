"""Compares the fields of an object with what a plan knows of them, and turns changes into the operations of a patch.

Pure. Each field must have a value of the snapshot or one of ours; any other is `Foreign`. Called by all that writes or checks fields of targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cutover.field_path import Change, Json, Operation, find, in_order, write
from cutover.ports import Ref
from cutover.targets.foreign import field_gone, foreign_value


class Foreign(Exception):
    """Another writer changed what we were about to write. Nothing was written.

    Attributes:
        reason: ForeignChange, ClaimLost or TargetReplaced.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def operations_for(ref: Ref, body: Json, changes: Sequence[Change]) -> list[Operation]:
    """The operations that bring the fields to their values; one that several changes need, as a new map, is there once.

    Raises:
        Foreign: a field has a value that is neither the snapshot's nor ours.
    """
    writes = list[Operation]()
    for change in changes:
        writes += [operation for operation in _operations_of_one(ref, body, change) if operation not in writes]
    return in_order(writes)


def _operations_of_one(ref: Ref, body: Json, change: Change) -> list[Operation]:
    found = find(body, change.path)
    if found is None:
        raise Foreign("ForeignChange", field_gone(ref, change))
    if found.value == change.to:
        return []
    if change.knows(found.value):
        return write(found, change.to)
    keys = change.keys() if isinstance(found.value, Mapping) else {}
    if not keys:
        raise Foreign("ForeignChange", foreign_value(ref, change, found))
    return [operation for one in keys.values() for operation in _operations_of_one(ref, body, one)]


def undisputed(body: Json, changes: Iterable[Change], *, by_key: bool) -> list[Change]:
    """The changes of fields that no other writer has changed; with `by_key` also those of such keys in a map."""
    free = list[Change]()
    for change in changes:
        found = find(body, change.path)
        if found is None:
            continue
        if change.knows(found.value) or change.stands_in(found.value):
            free.append(change)
        elif by_key and isinstance(found.value, Mapping):
            free += undisputed(body, change.keys().values(), by_key=True)
    return free
