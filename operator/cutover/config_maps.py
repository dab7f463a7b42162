"""What a ConfigMap is to others: which workloads read it and how, what hinders a new value. Pure.

Used by the `flags` kind; what is written and when is that kind's business.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from cutover.fields import Json

LARGEST: Final = 1_048_576
"""Bytes of all values of a ConfigMap together, for the API server."""
_CONTAINERS: Final = ("initContainers", "containers")


def reads(workload: Json, name: str, keys: Mapping[str, str]) -> str:
    """How the pods of a workload read any of these keys: ``env DUAL_WRITE of container app``; empty when they do not."""
    pod = workload["spec"]["template"]["spec"]
    for container in (item for part in _CONTAINERS for item in pod.get(part) or ()):
        for entry in container.get("env") or ():
            source = (entry.get("valueFrom") or {}).get("configMapKeyRef") or {}
            if source.get("name") == name and source.get("key") in keys:
                return f"env {entry['name']} of container {container['name']}"
        for source in container.get("envFrom") or ():
            if (source.get("configMapRef") or {}).get("name") == name:
                return f"envFrom of container {container['name']}"
    for volume in pod.get("volumes") or ():
        parts = (volume, *((volume.get("projected") or {}).get("sources") or ()))
        for source in (part["configMap"] for part in parts if part.get("configMap")):
            items = source.get("items")
            if source.get("name") == name and (not items or any(item["key"] in keys for item in items)):
                return f"files of volume {volume['name']}"
    return ""


def hindrances(body: Json, values: Mapping[str, str]) -> dict[str, str]:
    """Why the API server would not take these values: sentences with the way out, by key; by "" what is wrong with all."""
    name, data, binary = body["metadata"]["name"], body.get("data") or {}, body.get("binaryData") or {}
    if body.get("immutable"):
        way_out = "delete it and make it anew without immutable, or let a deploy step point its readers to another one"
        return {"": f"ConfigMap {name} is immutable, so none of its keys can be set; {way_out}"}
    found = {}
    for key in sorted(values.keys() & binary.keys()):
        way_out = f"take it out of binaryData first: kubectl edit configmap {name}"
        found[key] = f"key {key} stands in binaryData of ConfigMap {name}, and flags sets keys of data; {way_out}"
    size = sum(len(value.encode()) for value in {**data, **values}.values())
    size += sum(len(base64.b64decode(value)) for value in binary.values())
    if size > LARGEST:
        way_out = "take something out of it, or keep what is large elsewhere"
        found[""] = f"ConfigMap {name} would hold {size} bytes, and the API server takes {LARGEST}; {way_out}"
    return found
