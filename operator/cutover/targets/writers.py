"""Who wrote a field, by the managedFields of its object, for messages that name the writer. Pure.

Streamed bodies lack managedFields; who wants a name reads the object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from cutover.field_path import ABOVE, Json, Path, Segment
from cutover.ports import FIELD_MANAGER

SOMEBODY: Final = "another writer"


def writer_of(body: Json, path: Path) -> str:
    """Who has set a field, other than us; of one that is gone, who wrote the object last."""
    entries = [entry for entry in _others(body) if _owns(entry.get("fieldsV1"), path)]
    return _last(entries) if entries else last_writer(body)


def last_writer(body: Json) -> str:
    """Who has written an object last, other than us and not its status."""
    return _last([entry for entry in _others(body) if not entry.get("subresource")])


def _others(body: Json) -> list[Json]:
    return [entry for entry in body["metadata"].get("managedFields") or () if entry.get("manager") != FIELD_MANAGER]


def _last(entries: list[Json]) -> str:
    last = max(entries, key=lambda entry: entry.get("time", ""), default=None)
    return f"field manager {last['manager']}" if last else SOMEBODY


def _owns(fields: Json, path: Path) -> bool:
    """Whether the set of fields of one manager has this one, a part of it, or all of it as one value."""
    for segment in path:
        if not isinstance(fields, Mapping):
            return False
        if not fields:  # all that is below belongs to it
            return True
        key = next((key for key in fields if _names(key, segment)), None)
        if key is None:
            return False
        fields = fields[key]
    return True


def _names(key: str, segment: Segment) -> bool:
    """Whether a key of fieldsV1 names this part of a path: ``f:image``, ``k:{"name":"app"}``, ``i:0``."""
    if isinstance(segment, str):
        return key == f"f:{segment}"
    if isinstance(segment, int):
        return key == f"i:{segment}"
    if not key.startswith("k:"):
        return False
    members = json.loads(key[2:])
    return all(members.get(name) == value for name, value in segment.items() if name != ABOVE and name in members)
