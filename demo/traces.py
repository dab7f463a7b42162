"""Reads all objects of the shop as people wrote them, to find what a migration left behind. Used only by the demo."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from harness.api import Api

CONTROLLED = frozenset(
    {
        "endpoints",
        "endpointslices",
        "events",
        "leases",
        "migrationplans",
        "pods",
        "replicasets",
        "workloadentries",
    }
)
"""Kinds that controllers create and change on their own; and the plans themselves."""
_CHANGES_BY_ITSELF = "deployment.kubernetes.io/revision"


def paths(api: Api, namespace: str) -> Iterator[tuple[str, str]]:
    """Every namespaced kind that the API server has, except those that controllers change: name and path."""
    roots = ["/api/v1"]
    roots += [f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"]]
    for root in roots:
        for resource in api.get(root)["resources"]:
            name = resource["name"]
            if resource["namespaced"] and "list" in resource["verbs"] and "/" not in name and name not in CONTROLLED:
                yield name, f"{root}/namespaces/{namespace}/{name}"


def objects(api: Api, namespace: str) -> dict[str, Any]:
    """All objects by kind and name: content, labels and annotations."""
    return {
        f"{kind}/{body['metadata']['name']}": essence(body)
        for kind, path in paths(api, namespace)
        for body in api.list(path)
    }


def essence(body: dict[str, Any]) -> dict[str, Any]:
    """An object without what the API server and controllers maintain in it."""
    metadata = body["metadata"]
    annotations = metadata.get("annotations") or {}
    kept = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    return kept | {
        "labels": metadata.get("labels") or {},
        "annotations": {key: value for key, value in annotations.items() if key != _CHANGES_BY_ITSELF},
    }


def left(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The differences, one sentence each."""
    found = [f"{name} is gone after migration 2" for name in sorted(before.keys() - after.keys())]
    found += [f"{name} is new after migration 2" for name in sorted(after.keys() - before.keys())]
    return found + [
        f"{name} is not as before migration 2: {after[name]} instead of {before[name]}"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
