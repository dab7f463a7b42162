"""Who owns the fields of an object, as the API server keeps it in `metadata.managedFields`, and how fields are given back. Pure.

A value that we write takes its field from all who owned it, and writing the old value back does not return it: the next
server-side apply of the former owner would be refused. But `managedFields` is itself written by a patch that changes no field.
Called by `targets.py`, for snapshots and at the end of an undo.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from cutover.field_path import Json, Path
from cutover.ports import FIELD_MANAGER

Field: TypeAlias = tuple[str, ...]
"""A field as `FieldsV1` spells it, such as ``("f:spec", "f:replicas")``."""

_ITSELF: Final = "."
"""In `FieldsV1`: the map or item itself is owned, and not only parts of it."""


def owners_of(body: Json, paths: Iterable[Path]) -> list[Json]:
    """For a snapshot: the entries of `managedFields`, of those parts of the object in which these fields are."""
    parts = {f"f:{path[0]}" for path in paths}
    kept = []
    for entry in body["metadata"].get("managedFields") or ():
        fields = {part: below for part, below in (entry.get("fieldsV1") or {}).items() if part in parts}
        if fields:
            kept.append({**entry, "fieldsV1": fields})
    return kept


def given_back(body: Json, before: Sequence[Json]) -> list[Json] | None:
    """The `managedFields` in which what we own now, and did not own before, belongs to its former owners again.

    None when nothing is to change. What nobody owned then, as a default of the server, nobody owns again. What others have taken
    since is left to them.

    Args:
        body: the object as it is.
        before: its owners as the snapshot has them.
    """
    now = body["metadata"].get("managedFields") or ()
    parts = {part for entry in before for part in entry["fieldsV1"]}
    taken = {field for field in _our_fields(now) - _our_fields(before) if field[0] in parts}
    return _moved(now, before, taken) if taken else None


def _moved(now: Sequence[Json], before: Sequence[Json], taken: set[Field]) -> list[Json]:
    """The entries with these fields taken from ours, and given to those who had them."""
    entries = {_manager(entry): entry for entry in now}
    for manager, entry in entries.items():
        if _is_ours(entry):
            entries[manager] = _owning(entry, set(fields_of(entry)) - taken)
    for former in before:
        back = set() if _is_ours(former) else taken & set(fields_of(former))
        if back:
            entry = entries.get(_manager(former), {**former, "fieldsV1": {}})
            entries[_manager(former)] = _owning(entry, {*fields_of(entry), *back})
    return [entry for entry in entries.values() if entry.get("fieldsV1") or not _is_ours(entry)]


def _owning(entry: Json, fields: Iterable[Field]) -> Json:
    return {**entry, "fieldsV1": tree_of(fields)}


def _is_ours(entry: Json) -> bool:
    return bool(entry.get("manager") == FIELD_MANAGER and not entry.get("subresource"))


def _manager(entry: Json) -> tuple[str, ...]:
    """What tells one manager from another for the API server: of one that applies, the version does not count."""
    applies = entry["operation"] == "Apply"
    return entry["manager"], entry["operation"], "" if applies else entry["apiVersion"], entry.get("subresource", "")


def _our_fields(entries: Iterable[Json]) -> set[Field]:
    return {field for entry in entries if _is_ours(entry) for field in fields_of(entry)}


def fields_of(entry: Json) -> Iterator[Field]:
    """The fields that an entry of `managedFields` owns."""
    yield from _fields(entry.get("fieldsV1") or {}, ())


def _fields(tree: Json, at: Field) -> Iterator[Field]:
    for key, below in tree.items():
        if key == _ITSELF:
            yield at
        elif below:
            yield from _fields(below, (*at, key))
        else:
            yield (*at, key)


def tree_of(fields: Iterable[Field]) -> Json:
    """Fields as `FieldsV1` has them."""
    root: Json = {}
    nodes = []
    for field in fields:
        node = root
        for key in field:
            node = node.setdefault(key, {})
        nodes.append(node)
    for node in nodes:
        if node:
            node[_ITSELF] = {}
    return root
