"""The API server in memory as HTTP: requests of the real adapter in, responses out."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cutover import ports
from cutover.adapters.transport import Request, Response
from cutover.errors import Conflict, Denied, NotFound, NotInstalled, OutsideError, Rejected
from cutover.field_path import Json
from cutover.ports import Ref, Resource
from cutover.testing import MemoryCluster
from cutover.testing.server_rules import picked

_RESOURCES = {(one.group, one.plural): one for one in vars(ports).values() if isinstance(one, Resource)}
_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_CODES: Mapping[type[OutsideError], int] = {NotFound: 404, Conflict: 409, Denied: 403, Rejected: 422}
DISCOVERY = ("/readyz", "/apis", *{f"/apis/{one.api_version}" for one in _RESOURCES.values()})
"""What the client asks to find out what an error means."""


def failure(code: int, message: str, *, retry_after: int = 0) -> Response:
    """A Status of the API server."""
    body = {"apiVersion": "v1", "kind": "Status", "code": code, "message": message}
    return Response(code, {"Retry-After": str(retry_after)} if retry_after else {}, json.dumps(body).encode())


def answered(cluster: MemoryCluster, lists: Mapping[Ref, Json], request: Request) -> Response:
    """One request as the API server answers it; `lists` is what it has in the cache that some lists come from."""
    if request.path in DISCOVERY:
        return _success(_discovered(cluster, request.path))
    try:
        return _success(_answered(cluster, lists, request))
    except NotInstalled:
        return Response(404, {}, b"404 page not found")
    except OutsideError as error:
        return failure(_CODES[type(error)], str(error))


def _success(document: Json) -> Response:
    return Response(200, {}, json.dumps({"apiVersion": "v1", **document}).encode())


def _discovered(cluster: MemoryCluster, path: str) -> Json:
    known = [one for one in _RESOURCES.values() if one not in cluster.unknown]
    if path == "/apis":
        groups = [{"versions": [{"groupVersion": one.api_version}]} for one in known]
        return {"kind": "APIGroupList", "groups": groups}
    here = [{"name": one.plural} for one in known if path == f"/apis/{one.api_version}"]
    return {"kind": "APIResourceList", "resources": here}


def _answered(cluster: MemoryCluster, lists: Mapping[Ref, Json], request: Request) -> Json:
    method, params = request.method, request.params
    body: Json = json.loads(request.body) if request.body is not None else None
    if request.path == _REVIEWS:
        return _reviewed(cluster, body["spec"]["resourceAttributes"])
    resource, namespace, name = _addressed(request.path)
    ref, account = Ref(resource, namespace, name), request.headers.get("Impersonate-User", "").rpartition(":")[2]
    if method == "GET":
        return cluster._get(ref) if name else _listed(cluster, lists, ref, params)
    if method == "PATCH" and "dryRun" in params:
        return (cluster._try_out if isinstance(body, list) else cluster._dry_run)(ref, body, account)
    if method == "PATCH":
        return cluster._patch(ref, body, account)
    if method == "POST":
        return cluster._create(resource, namespace, body, account, dry_run="dryRun" in params)
    if method == "PUT":
        if body["metadata"].get("uid") not in (None, cluster._get(ref)["metadata"]["uid"]):
            raise Conflict(f"{ref} has another uid")
        return cluster._save_status(ref, body["metadata"]["resourceVersion"], body["status"])
    assert method == "DELETE"
    for one in picked(cluster.objects, resource, namespace, params["labelSelector"]):
        cluster.delete(one)
    return {}


def _listed(cluster: MemoryCluster, lists: Mapping[Ref, Json], of: Ref, params: Mapping[str, str]) -> Json:
    objects = lists if params.get("resourceVersion") == "0" else cluster.objects
    found = picked(objects, of.resource, of.namespace, params.get("labelSelector", ""))
    return {"items": [objects[one] for one in found]}


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
