"""Owners of fields, as the in-memory API server keeps them: of objects that have `managedFields` from the start."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from cutover.field_path import Json, Operation, names_of
from cutover.ports import FIELD_MANAGER, Ref
from cutover.targets.ownership import Field, fields_of, tree_of
from cutover.testing import MemoryCluster

_PARTS: Final = ("spec", "data")


def applied_by(manager: str, body: Json) -> Json:
    """The entry of one who has applied the whole object, for tests."""
    fields = tree_of(field for field, _ in _leaves_of(body))
    return {"manager": manager, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields}


def keep_owners(cluster: MemoryCluster) -> None:
    """From now on every patch moves the fields that it changes to us, as on the real server."""
    patched = cluster._patched

    def owned(ref: Ref, operations: Sequence[Operation]) -> Json:
        body = patched(ref, operations)
        body["metadata"] |= _owned_after(cluster.objects[ref], body)
        return body

    cluster._patched = owned  # type: ignore[method-assign]


def _owned_after(before: Json, after: Json) -> Json:
    """The `managedFields` after a write of ours, where there are any: what has another value is ours alone, what is gone nobody's."""
    if "managedFields" not in after["metadata"]:
        return {}
    had, has = dict(_leaves_of(before)), dict(_leaves_of(after))
    changed = {field for field, value in has.items() if field not in had or had[field] != value}
    gone = had.keys() - has.keys()
    ours: Json = {"manager": FIELD_MANAGER, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    entries = list(after["metadata"]["managedFields"])
    if changed and not any(entry["manager"] == FIELD_MANAGER for entry in entries):
        entries.append(ours)
    found = []
    for entry in entries:
        fields = set(fields_of(entry)) - changed - gone
        if entry["manager"] == FIELD_MANAGER:
            fields |= changed
        if fields:
            found.append({**entry, "fieldsV1": tree_of(fields)})
    return {"managedFields": found}


def _leaves_of(body: Json) -> Iterator[tuple[Field, Json]]:
    for part in _PARTS:
        if part in body:
            yield from _leaves(body[part], (f"f:{part}",))


def _leaves(value: Json, at: Field) -> Iterator[tuple[Field, Json]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _leaves(below, (*at, f"f:{key}"))
    elif names_of(value):
        for item in value:
            key = json.dumps({"name": item["name"]}, separators=(",", ":"))
            yield (*at, f"k:{key}"), None
            yield from _leaves(item, (*at, f"k:{key}"))
    else:
        yield at, value
