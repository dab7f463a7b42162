"""The strategic merge patch of a `deploy` step: its images, replicas and `patch` joined. Pure; used by that kind only."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Final

from cutover.field_path import Json, Path, names_of
from cutover.objects.pod_names import wrong_names

_SHOWN: Final = 60
"""Characters of a value in a message."""
_DIRECTIVE: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PARTS: Final = ("containers", "initContainers")
_NOT_HERE: Final = {
    "replicas": "does not belong in patch; write it beside it, as deploy.replicas",
    "selector": "the selector of a workload cannot change; remove it",
    **dict.fromkeys(
        ("apiVersion", "kind", "metadata", "spec", "status"),
        "the patch is of the workload's spec; remove apiVersion, kind, metadata and spec, and begin with template:",
    ),
}
_BELOW: Final = {
    **dict.fromkeys(("labels", "annotations"), "template.metadata"),
    **dict.fromkeys(("containers", "initContainers", "volumes", "imagePullSecrets"), "template.spec"),
    **dict.fromkeys(("serviceAccountName", "securityContext", "priorityClassName", "restartPolicy"), "template.spec"),
    **dict.fromkeys(("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints"), "template.spec"),
    **dict.fromkeys(("terminationGracePeriodSeconds", "hostNetwork", "runtimeClassName"), "template.spec"),
}
"""Fields of pods that are easily written one level too high, and where they belong."""


def mistakes(patch: Json, kind: str) -> Iterator[tuple[str, str]]:
    """What is wrong with a patch, each with the field and a message; most is left to the server's dry run.

    Of the fields that a workload has none is known by name: such a list would refuse what a newer Kubernetes adds.

    Args:
        patch: the patch, of any content.
        kind: of the workload.
    """
    rest = dict(patch)
    for key in patch:
        if key in _NOT_HERE:
            yield key, _NOT_HERE[key]
        elif key in _BELOW:
            yield key, f"is not a field of a {kind}'s spec; write it below {_BELOW[key]}"
        else:
            continue
        del rest[key]
    node, at = rest, ""
    for key in ("template", "spec"):
        node, at = node.get(key, {}), f"{at}.{key}" if at else key
        if not isinstance(node, dict):
            yield at, "is not a mapping; put its fields below it, indented"
            break
    else:
        yield from _wrong_containers(node, at)
        yield from wrong_names(node, at)
    yield from _wrong_metadata(rest)
    for empty in _empty(rest):
        yield empty, "is empty, which changes nothing; write fields below it, or null to remove it"


def _wrong_metadata(patch: Json) -> Iterator[tuple[str, str]]:
    """A null is valid: it removes the field, and the server checks whether a pod can be without."""
    template = patch.get("template")
    node = template.get("metadata") if isinstance(template, dict) else None
    parts = {"template.metadata": node}
    if isinstance(node, dict):
        parts = {f"template.metadata.{key}": node.get(key) for key in ("labels", "annotations")}
    for at, value in parts.items():
        if value is not None and not isinstance(value, dict):
            yield at, f"{shown(value)} is not a mapping; put its fields below it, indented"


def _wrong_containers(pod: Json, at: str) -> Iterator[tuple[str, str]]:
    """The server merges containers by their names, and this module finds them by name too."""
    for part in _PARTS:
        items = pod.get(part, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            yield f"{at}.{part}", "is not a list of containers; start each with a dash and its name"
            continue
        for position, item in enumerate(items):
            yield from _wrong_container(item, f"{at}.{part}[{position}]")


def _wrong_container(item: Json, where: str) -> Iterator[tuple[str, str]]:
    name = item.get("name")
    if item.get(_DIRECTIVE) == "replace":  # a directive to replace the whole list, not a container
        return
    if name is None or name == "":
        yield where, f"has no name in {shown(item)}; containers are merged by name, so add the name of the container"
    elif not isinstance(name, str):
        yield f"{where}.name", f"{shown(name)} is not a string; put it in quotes or correct it"


def shown(value: Json) -> str:
    """A value in a message, cut where it is long."""
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _empty(patch: Json, at: str = "") -> Iterator[str]:
    """Empty mappings, which change nothing; inside lists they may be values, such as ``emptyDir: {}``."""
    for key, value in patch.items():
        where = f"{at}.{key}" if at else key
        if value == {}:
            yield where
        elif isinstance(value, dict):
            yield from _empty(value, where)


def images_in(patch: Json) -> set[str]:
    """Names of the containers whose image a patch sets, for a patch without `mistakes`."""
    pod = patch.get("template", {}).get("spec", {})
    return {item["name"] for part in _PARTS for item in pod.get(part, ()) if "image" in item and "name" in item}


def pod_of(patch: Json) -> Json:
    """The part of a patch that concerns the pod spec. Where it drops what it does not name, the account is among that."""
    template = patch.get("template", {})
    pod = template.get("spec", {})
    drops = "replace" in (template.get(_DIRECTIVE), pod.get(_DIRECTIVE)) or _RETAIN in pod
    return {"serviceAccountName": None, **pod} if drops else pod


def places(patch: Json, at: str = "") -> Iterator[str]:
    """The fields that a patch sets, as text: mappings are followed, lists are not."""
    for key, value in patch.items():
        where = f"{at}.{key}" if at else key
        if isinstance(value, dict) and value:
            yield from places(value, where)
        else:
            yield where


def expressions(patch: Json, at: str) -> Iterator[str]:
    """The fields that a patch sets, as jq paths."""
    for path in paths(patch):
        text = at
        for part in path:
            if isinstance(part, dict):
                text = f"{text}[] | select(.name == {json.dumps(part['name'])})"
            else:
                text = at_key(f"{text} | ." if text.endswith(")") else text, str(part))
        yield text


def paths(patch: Json, at: Path = ()) -> Iterator[Path]:
    """The fields that a patch sets: named items of lists are followed too."""
    if isinstance(patch, dict) and patch and _DIRECTIVE not in patch:
        for key, value in patch.items():
            if not (key == "name" and at and isinstance(at[-1], dict)):
                yield from paths(value, (*at, key))
    elif isinstance(patch, list) and names_of(patch):
        for item in patch:
            yield from paths(item, (*at, {"name": item["name"]}))
    else:
        yield at


def at_key(at: str, key: str) -> str:
    """The jq path of a key below another path."""
    return f"{at.removesuffix('.')}.{key}" if _PLAIN.fullmatch(key) else f"{at}[{json.dumps(key)}]"


def parts_of(live: Json) -> dict[str, str]:
    """The containers of a live spec, each with the list that has it."""
    return {item["name"]: part for part in _PARTS for item in live["template"]["spec"].get(part) or ()}


def joined(patch: Json, images: Mapping[str, str], replicas: int | None, live: Json) -> Json:
    """Images, replicas and patch as one patch of the spec.

    Args:
        patch: the patch of the step.
        images: by container; each must exist, or it would be merged in as a new container.
        replicas: None leaves them unchanged.
        live: the spec as it is.
    """
    joint: Json = copy.deepcopy(patch)
    parts = parts_of(live)
    if replicas is not None:
        joint["replicas"] = replicas
    for name, image in images.items():
        items = joint.setdefault("template", {}).setdefault("spec", {}).setdefault(parts[name], [])
        mine = next((item for item in items if item.get("name") == name), None)
        if mine is None:
            items.append(mine := {"name": name})
        mine["image"] = image
    return _in_order(joint, live)


def _in_order(patch: Json, live: Json) -> Json:
    """The patch with its named items in the order of the live list, because the server orders them as in the patch."""
    if isinstance(patch, dict) and isinstance(live, dict):
        return {key: _in_order(value, live.get(key)) for key, value in patch.items()}
    if names_of(patch) and (order := names_of(live)):
        items = {item["name"]: item for item in live}
        ordered = sorted(patch, key=lambda item: order.index(item["name"]) if item["name"] in items else len(order))
        return [_in_order(item, items.get(item["name"])) for item in ordered]
    return patch
