"""Patches as the API server applies them: JSON patches, and strategic merge patches of workloads. Pure.

Used by the in-memory server of `testing.py` alone; the real one does this by itself.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from cutover.errors import Rejected
from cutover.fields import Json, Operation

_DIRECTIVE: Final = "$patch"


def merge(document: Json, patch: Json) -> Json:
    """The document after a strategic merge patch; neither is changed.

    Maps are merged, null takes a key away, lists of things with a name are merged by name, other lists are replaced; of
    the directives there is ``$patch: delete``. The real server knows the merge key of each list from its types.
    """
    if isinstance(patch, dict):
        merged = dict(document) if isinstance(document, dict) else {}
        for key, value in patch.items():
            if value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"):
                merged.pop(key, None)
            else:
                merged[key] = merge(merged.get(key), value)
        return copy.deepcopy(merged)
    if isinstance(patch, list) and patch and all(isinstance(item, dict) and "name" in item for item in patch):
        items = {item["name"]: item for item in document or ()}
        for item in patch:
            if item.get(_DIRECTIVE) == "delete":
                items.pop(item["name"], None)
            else:
                items[item["name"]] = merge(items.get(item["name"]), item)
        return list(items.values())
    return copy.deepcopy(patch)


def apply(body: Json, operation: Operation) -> None:
    """One operation of a JSON patch (RFC 6902: test, add, remove)."""
    *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    node = body
    try:
        for part in way:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key: Any = int(last) if isinstance(node, list) else last
        match operation["op"]:
            case "test":
                if node[key] != operation["value"]:
                    raise Rejected(f"testing {operation['path']} failed")
            case "add":
                node[key] = copy.deepcopy(operation["value"])
            case "remove":
                del node[key]
    except (KeyError, IndexError, TypeError) as missing:
        raise Rejected(f"there is no {operation['path']}") from missing
