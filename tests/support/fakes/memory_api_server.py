"""Requests of the real adapter, answered by the API server in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cutover import ports
from cutover.errors import Conflict
from cutover.field_path import Json
from cutover.ports import Ref, Resource
from cutover.testing import MemoryCluster

_RESOURCES = {(one.group, one.plural): one for one in vars(ports).values() if isinstance(one, Resource)}
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


def answered(cluster: MemoryCluster, lists: Mapping[Ref, Json], method: str, path: str, content: Any) -> Json:
    """One request as the API server answers it; `lists` is what it has in the cache that some lists come from."""
    headers, params, body = content
    if path == _REVIEWS:
        return _reviewed(cluster, body["spec"]["resourceAttributes"])
    resource, namespace, name = _addressed(path)
    ref, account = Ref(resource, namespace, name), headers.get("Impersonate-User", "").rpartition(":")[2]
    if method == "GET":
        return cluster._get(ref) if name else _listed(cluster, lists, ref, params)
    if method == "PATCH":
        return (cluster._dry_run if "dryRun" in params else cluster._patch)(ref, body, account)
    if method == "POST":
        return cluster._create(resource, namespace, body, account, dry_run="dryRun" in params)
    if method == "PUT":
        if body["metadata"].get("uid") not in (None, cluster._get(ref)["metadata"]["uid"]):
            raise Conflict(f"{ref} has another uid")
        return cluster._save_status(ref, body["metadata"]["resourceVersion"], body["status"])
    assert method == "DELETE"
    for one in cluster._pick(resource, namespace, params["labelSelector"]):
        cluster.delete(one)
    return {}


def _listed(cluster: MemoryCluster, lists: Mapping[Ref, Json], of: Ref, params: Mapping[str, str]) -> Json:
    objects = lists if params.get("resourceVersion") == "0" else cluster.objects
    picked = cluster._pick(of.resource, of.namespace, params.get("labelSelector", ""), objects)
    return {"items": [objects[one] for one in picked]}


def _reviewed(cluster: MemoryCluster, attributes: Mapping[str, str]) -> Json:
    resource = _RESOURCES[attributes["group"], attributes["resource"]]
    ref = Ref(resource, attributes["namespace"], attributes["name"])
    return {"status": {"allowed": (attributes["verb"], ref) not in cluster.denied}}


def _addressed(path: str) -> tuple[Resource, str, str]:
    parts = path.removesuffix("/status").split("/")[1:]
    group, rest = ("", parts[2:]) if parts[0] == "api" else (parts[1], parts[3:])
    namespace = ""
    if len(rest) > 2:  # /namespaces/shop/pods, and not /namespaces/shop
        namespace, rest = rest[1], rest[2:]
    plural, *name = rest
    return _RESOURCES[group, plural], namespace, name[0] if name else ""
