"""What decides which route gets a request, of each object that has a say in it. Pure.

Used by both implementations of the port `Cluster` for each object that is streamed of all namespaces: an outline has no weight and no
destination, so it stays the same while weights move. What is dropped here is missing in tests too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cutover.field_path import Json
from cutover.ports import DESTINATION_RULES, GATEWAYS, HTTP_ROUTES, ISTIO_GATEWAYS, SERVICES, VIRTUAL_SERVICES, Resource


def outline(resource: Resource, body: Json) -> Json:
    """The outline of one object."""
    metadata = _only(body["metadata"], "name", "namespace", "creationTimestamp")
    whole = {**body, "spec": body.get("spec") or {}}  # Istio's definitions do not ask for one
    return {"metadata": metadata, **_KEPT[resource](whole)}


def _only(part: Json, *names: str) -> Json:
    return {name: part[name] for name in names if name in part}


def _virtual_service(body: Json) -> Json:
    spec = body["spec"]
    http = [_only(route, "name", "match", "delegate") for route in spec.get("http") or ()]
    return {"spec": {**_only(spec, "hosts", "gateways", "exportTo"), "http": http}}


def _http_route(body: Json) -> Json:
    spec = body["spec"]
    rules = [_only(rule, "name", "matches") for rule in spec.get("rules") or ()]
    parents = [
        {
            **_only(parent, "parentRef", "controllerName"),
            "conditions": [
                _only(one, "type", "status") for one in parent.get("conditions") or () if one["type"] == "Accepted"
            ],
        }
        for parent in (body.get("status") or {}).get("parents") or ()
    ]
    return {"spec": {**_only(spec, "hostnames", "parentRefs"), "rules": rules}, "status": {"parents": parents}}


def _istio_gateway(body: Json) -> Json:
    return {"spec": {"servers": [_only(server, "hosts") for server in body["spec"].get("servers") or ()]}}


def _gateway(body: Json) -> Json:
    listeners = [_only(one, "name", "port", "hostname") for one in body["spec"].get("listeners") or ()]
    return {"spec": {"listeners": listeners}}


def _destination_rule(body: Json) -> Json:
    spec = body["spec"]
    subsets = [{**_only(one, "name", "labels"), **_policy(one)} for one in spec.get("subsets") or ()]
    return {"spec": {**_only(spec, "host", "exportTo", "workloadSelector"), **_policy(spec), "subsets": subsets}}


def _service(body: Json) -> Json:
    ports = [_only(one, "port", "name", "protocol") for one in body["spec"].get("ports") or ()]
    return {"spec": {**_only(body["spec"], "type"), "ports": ports}}


def _policy(part: Json) -> Json:
    if not (policy := part.get("trafficPolicy")):
        return {}
    ports = [_only(one, "port", "loadBalancer") for one in policy.get("portLevelSettings") or ()]
    return {"trafficPolicy": {**_only(policy, "loadBalancer"), "portLevelSettings": ports}}


_KEPT: Final[Mapping[Resource, Callable[[Json], Json]]] = {
    VIRTUAL_SERVICES: _virtual_service,
    HTTP_ROUTES: _http_route,
    ISTIO_GATEWAYS: _istio_gateway,
    GATEWAYS: _gateway,
    DESTINATION_RULES: _destination_rule,
    SERVICES: _service,
}
