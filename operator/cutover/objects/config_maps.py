"""How workloads read a ConfigMap: which keys, what is missing, and why a new value would not be accepted. Pure.

Used by the kinds `flags` and `deploy`, which decide what to write and when.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Json

LARGEST: Final = 1_048_576
"""Maximum size in bytes of all values of a ConfigMap in total."""
CREATE_FIRST: Final = "so its pods would not start; create it first, or mark the reference optional"
"""The end of a message about pods that need a ConfigMap or key that does not exist."""
_CONTAINERS: Final = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class Reference:
    """One reference of a pod to a ConfigMap.

    Attributes:
        name: of the ConfigMap.
        keys: the keys that it reads; empty for all keys.
        optional: the pod starts without them too.
        where: such as ``env DUAL_WRITE of container app``.
    """

    name: str
    keys: frozenset[str]
    optional: bool
    where: str

    def lacks(self, body: Json | None) -> str:
        """What it needs of this ConfigMap (None: it does not exist) and does not find; empty when nothing is missing."""
        if self.optional:
            return ""
        if body is None:
            return f"{self.where} reads ConfigMap {self.name}, which does not exist"
        missing = sorted(self.keys - (body.get("data") or {}).keys() - (body.get("binaryData") or {}).keys())
        return (
            f"{self.where} reads key {missing[0]} of ConfigMap {self.name}, which it does not have" if missing else ""
        )


def references(pod: Json) -> Iterator[Reference]:
    """All references of a pod of this spec to ConfigMaps."""
    for container in (item for part in _CONTAINERS for item in pod.get(part) or ()):
        yield from _of_container(container)
    for volume in pod.get("volumes") or ():
        yield from _of_volume(volume)


def _of_container(container: Json) -> Iterator[Reference]:
    of = f"of container {container['name']}"
    for entry in container.get("env") or ():
        if source := (entry.get("valueFrom") or {}).get("configMapKeyRef"):
            yield _reference(source, [source.get("key", "")], f"env {entry['name']} {of}")
    for entry in container.get("envFrom") or ():
        if source := entry.get("configMapRef"):
            yield _reference(source, [], f"envFrom {of}")


def _of_volume(volume: Json) -> Iterator[Reference]:
    for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
        if source := part.get("configMap"):
            keys = [item["key"] for item in source.get("items") or ()]
            yield _reference(source, keys, f"files of volume {volume['name']}")


def _reference(source: Json, keys: Iterable[str], where: str) -> Reference:
    return Reference(source.get("name", ""), frozenset(keys), bool(source.get("optional")), where)


def reads(workload: Json, name: str, keys: Mapping[str, str]) -> str:
    """How the pods of a workload read any of these keys: ``env DUAL_WRITE of container app``; empty when they do not."""
    for one in references(workload["spec"]["template"]["spec"]):
        if one.name == name and (not one.keys or one.keys & keys.keys()):
            return one.where
    return ""


def value_problems(body: Json, values: Mapping[str, str]) -> dict[str, str]:
    """Why the API server would refuse these values: messages with the fix, by key; under "" what concerns the whole ConfigMap."""
    name, data, binary = body["metadata"]["name"], body.get("data") or {}, body.get("binaryData") or {}
    if body.get("immutable"):
        way_out = "recreate it without immutable, or let a deploy step point its readers to another one"
        return {"": f"ConfigMap {name} is immutable, so none of its keys can be set; {way_out}"}
    found = {}
    for key in sorted(values.keys() & binary.keys()):
        way_out = f"remove it from binaryData first: kubectl edit configmap {name}"
        found[key] = f"key {key} is in binaryData of ConfigMap {name}, and flags sets keys of data; {way_out}"
    size = sum(len(value.encode()) for value in {**data, **values}.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > LARGEST:
        way_out = "remove keys, or keep large values elsewhere"
        found[""] = f"ConfigMap {name} would hold {size} bytes, and the maximum is {LARGEST}; {way_out}"
    return found
