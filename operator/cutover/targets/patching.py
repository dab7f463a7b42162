"""Patches as the API server applies them: JSON patches, and strategic merge patches of workloads. Pure.

Used by the in-memory server of `testing/`, and by kinds to compute what a workload will be without asking the server.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from cutover.errors import Rejected
from cutover.field_path import Json, Operation

_DIRECTIVE: Final = "$patch"
_NEVER_EMPTY: Final = (("data",), ("spec", "template", "metadata", "annotations"))
"""Maps that the server removes when they are empty, of those that are patched key by key."""


def merge(document: Json, patch: Json) -> Json:
    """The document after a strategic merge patch; neither is changed.

    Maps are merged, null removes a key, lists of named items are merged by name in the order of the patch, other lists are
    replaced. Of the directives ``$patch: delete`` is known. The real server takes the merge key of each list from its types.
    """
    if isinstance(patch, dict):
        return copy.deepcopy(_merge_map(document, patch))
    if isinstance(patch, list) and patch and all(_named(item) for item in patch):
        return _merge_named({item["name"]: item for item in document or ()}, patch)
    return copy.deepcopy(patch)


def _merge_map(document: Json, patch: dict[str, Json]) -> Json:
    merged = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"):
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _named(item: Json) -> bool:
    """Whether an item can be found by its name, which must be a string."""
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _merge_named(live: dict[str, Json], patch: Json) -> Json:
    """Items of the patch come in its order; each other item stays before the first item that it stood before."""
    order, named = list(live), {item["name"] for item in patch}
    rest = [name for name in order if name not in named]
    merged = []
    for item in patch:
        name = item["name"]
        while name in live and rest and order.index(rest[0]) < order.index(name):
            merged.append(live[rest.pop(0)])
        if item.get(_DIRECTIVE) != "delete":
            merged.append(merge(live.get(name), item))
    return [*merged, *(copy.deepcopy(live[name]) for name in rest)]


def apply(body: Json, operation: Operation) -> None:
    """One operation of a JSON patch (RFC 6902: test, add, replace, remove)."""
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    node = body
    try:
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key: Any = int(last) if isinstance(node, list) else last
        match operation["op"]:
            case "test":
                if node[key] != operation["value"]:
                    raise Rejected(f"the test of {operation['path']} failed")
            case "add" if isinstance(node, list):
                if not 0 <= key <= len(node):
                    raise Rejected(f"the position {operation['path']} is out of range")
                node.insert(key, copy.deepcopy(operation["value"]))
            case "replace" if isinstance(node, list):
                node[key] = copy.deepcopy(operation["value"])
            case "add":
                node[key] = copy.deepcopy(operation["value"])
            case "remove":
                del node[key]
    except (KeyError, IndexError, TypeError) as missing:
        raise Rejected(f"the path {operation['path']} does not exist") from missing


def tidy(body: Json) -> None:
    """Remove empty maps, as the server does."""
    for *parents, last in _NEVER_EMPTY:
        node = body
        for part in parents:
            node = node.get(part) or {}
        if node.get(last) == {}:
            del node[last]
