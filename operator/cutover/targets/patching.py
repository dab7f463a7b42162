"""Patches as the API server applies them: JSON patches, and strategic merge patches of workloads. Pure.

Used by the in-memory server of `testing/`, and by kinds to compute what a workload will be without asking the server.
"""

from __future__ import annotations

import copy
from typing import Any, Final

from cutover.errors import Rejected
from cutover.field_path import Json, Operation

_DIRECTIVE: Final = "$patch"
_MERGE_KEYS: Final = {
    **dict.fromkeys(("containers", "initContainers", "ephemeralContainers", "volumes", "env"), "name"),
    **dict.fromkeys(("imagePullSecrets", "resourceClaims", "schedulingGates"), "name"),
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
}
"""By which member the server merges the lists of a pod (``patchMergeKey`` in k8s.io/api v0.36.3, core/v1); it replaces all others."""
_NEVER_EMPTY: Final = (("data",), ("spec", "template", "metadata", "annotations"))
"""Maps that the server removes when they are empty, of those that are patched key by key."""


def merge(document: Json, patch: Json, field: str = "") -> Json:
    """The document after a strategic merge patch; neither is changed.

    Maps are merged, null removes a key, a list is merged by the key that the server's types give it, or else replaced. Items come in the
    order of the patch. Of the directives ``$patch: delete`` and ``$patch: replace`` are known.

    Args:
        document: as it is; None where there is none.
        patch: what to merge in.
        field: the field that both are the value of, by which the server's types tell the key.
    """
    if isinstance(patch, dict):
        return copy.deepcopy(_merge_map(document, patch))
    if isinstance(patch, list) and all(isinstance(item, dict) for item in patch):
        if any(item.get(_DIRECTIVE) == "replace" for item in patch):
            return [copy.deepcopy(item) for item in patch if _DIRECTIVE not in item]
        if (key := _MERGE_KEYS.get(field)) and all(key in item for item in patch):
            return _merge_items(document or [], patch, key)
    return copy.deepcopy(patch)


def _merge_map(document: Json, patch: dict[str, Json]) -> Json:
    merged = dict(document) if isinstance(document, dict) and patch.get(_DIRECTIVE) != "replace" else {}
    for key, value in patch.items():
        if value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"):
            merged.pop(key, None)
        elif key != _DIRECTIVE:
            merged[key] = merge(merged.get(key), value, key)
    return merged


def _merge_items(live: list[Json], patch: list[Json], key: str) -> Json:
    """Items of the patch come in its order; each other item stays before the first item that it stood before.

    The server takes the first item with the value of the key, also where others have the same one, as two ports of one number do.
    """
    merged = _merged(live, patch, key)
    order, wanted = [one.get(key) for one in live], [item[key] for item in patch if _DIRECTIVE not in item]
    mine = sorted((one for one in merged if one.get(key) in wanted), key=lambda one: wanted.index(one.get(key)))
    rest, found = [one for one in merged if one.get(key) not in wanted], []
    for item in mine:
        while item[key] in order and rest and order.index(rest[0].get(key)) < order.index(item[key]):
            found.append(rest.pop(0))
        found.append(item)
    return copy.deepcopy([*found, *rest])


def _merged(live: list[Json], patch: list[Json], key: str) -> list[Json]:
    """The items with those of the patch, before they are put in order."""
    merged = list(live)
    for item in patch:
        places = [place for place, one in enumerate(merged) if one.get(key) == item[key]]
        if item.get(_DIRECTIVE) == "delete":
            merged = [one for place, one in enumerate(merged) if place not in places]
        elif places:
            merged[places[0]] = merge(merged[places[0]], item)
        else:
            merged.append(copy.deepcopy(item))
    return merged


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
