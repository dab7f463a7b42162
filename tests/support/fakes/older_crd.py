"""CRDs as an earlier version might have had them: the generated one without some of the fields of its status."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

from cutover.plan.crd import definition


def older(*missing: str) -> dict[str, Any]:
    """The manifest without these fields, such as ``status.steps[].made``."""
    manifest = copy.deepcopy(_newest())
    root = manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path in sorted(missing, key=len, reverse=True):  # what is inside of a field goes before the field
        *above, name = path.split(".")
        node = root
        for part in above:
            node = node["properties"][part.removesuffix("[]")]
            node = node["items"] if part.endswith("[]") else node
        del node["properties"][name]
    return manifest


@cache
def status_schema(*missing: str) -> dict[str, Any]:
    """The schema of the status in that manifest."""
    schema: dict[str, Any] = older(*missing)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
    return schema


def optional_fields() -> list[str]:
    """Every field of the status that an earlier version may have lacked: a required one is as old as what it is in."""
    return list(_optional(status_schema(), "status"))


def _optional(node: dict[str, Any], path: str) -> Iterator[str]:
    for name, part in node.get("properties", {}).items():
        if name not in node.get("required", ()):
            yield f"{path}.{name}"
        yield from _optional(part, f"{path}.{name}")
        yield from _optional(part.get("items", {}), f"{path}.{name}[]")


@cache
def _newest() -> dict[str, Any]:
    manifest: dict[str, Any] = definition()
    return manifest
