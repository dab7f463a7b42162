"""What a list keeps of each object: what those who list objects of its kind read of them. Pure.

Used by both implementations of the port `Cluster` for each page of an answer, so that a namespace of 5,000 pods takes
kilobytes of memory for each of them while a page is read, and hundreds of bytes afterwards. Who needs more of an object
reads that object. What is dropped here is missing in tests too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from cutover.field_path import Json
from cutover.ports import CONFIG_MAPS, ENDPOINT_SLICES, JOBS, PLANS, PODS, SNAPSHOTS, WORKLOADS, Resource

NAMES_ONLY: Final = frozenset({SNAPSHOTS, CONFIG_MAPS})
"""Kinds of which nothing but the metadata is read; the API server need not send more."""
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


def listed(resource: Resource, body: Json) -> Json:
    """What is kept of one object of a list."""
    keep = _KEPT.get(resource, _whole)
    return {**keep(body), "metadata": _metadata(resource, body["metadata"])}


def _metadata(resource: Resource, metadata: Json) -> Json:
    if resource == PLANS:
        return _only(metadata, "name", "namespace", "uid")
    kept = {name: value for name, value in metadata.items() if name not in ("managedFields", "annotations")}
    annotations = metadata.get("annotations") or {}
    own = resource in (PODS, *WORKLOADS)  # of these only our own are read; others may hold whole documents
    kept_annotations = {
        name: value
        for name, value in annotations.items()
        if name != _LAST_APPLIED and (not own or name.startswith("cutover.dev/"))
    }
    return {**kept, "annotations": kept_annotations} if kept_annotations else kept


def _only(part: Json, *names: str) -> Json:
    return {name: part[name] for name in names if name in part}


def _parts(body: Json, name: str, of: Callable[[Json], Json]) -> Json:
    return {name: [of(part) for part in body[name]]} if body.get(name) else {}


def _whole(body: Json) -> Json:
    return body


def _names(_: Json) -> Json:
    return {}


def _plan(body: Json) -> Json:
    return {"status": _only(body.get("status") or {}, "phase", "run")}


def _job(body: Json) -> Json:
    spec = _only(body["spec"], "suspend", "completions", "parallelism")
    return {"spec": spec, **_only(body, "status")}


def _slice(body: Json) -> Json:
    def endpoint(of: Json) -> Json:
        return {
            "addresses": of["addresses"][:1],
            "conditions": _only(of.get("conditions") or {}, "ready"),
            "targetRef": _only(of.get("targetRef") or {}, "uid"),
        }

    def port(of: Json) -> Json:
        return _only(of, "name", "port")

    return _parts(body, "endpoints", endpoint) | _parts(body, "ports", port) | _only(body, "addressType")


def _pod(body: Json) -> Json:
    def container(of: Json) -> Json:
        return _only(of, "name", "image", "ports", "restartPolicy")

    def condition(of: Json) -> Json:
        return _only(of, "type", "status", "reason")

    def state(of: Json) -> Json:
        return _only(of, "name", "ready", "state", "lastState", "restartCount")

    spec, status = body.get("spec") or {}, body.get("status") or {}
    return {
        "spec": _only(spec, "nodeName", "readinessGates")
        | _parts(spec, "containers", container)
        | _parts(spec, "initContainers", container),
        "status": _only(status, "phase", "reason", "startTime")
        | _parts(status, "conditions", condition)
        | _parts(status, "containerStatuses", state)
        | _parts(status, "initContainerStatuses", state),
    }


def _workload(body: Json) -> Json:
    """How it is rolled out, which pods it makes, their ports, and which ConfigMaps they read."""

    def variable(of: Json) -> Json:
        return _only(of, "name", "valueFrom")

    def container(of: Json) -> Json:
        return _only(of, "name", "envFrom", "ports", "restartPolicy") | _parts(of, "env", variable)

    def volume(of: Json) -> Json:
        return _only(of, "name", "configMap", "projected")

    spec, template = body["spec"], body["spec"]["template"]
    pod = template.get("spec") or {}
    shortened = {
        "metadata": _only(template.get("metadata") or {}, "labels"),
        "spec": _parts(pod, "containers", container)
        | _parts(pod, "initContainers", container)
        | _parts(pod, "volumes", volume),
    }
    return {**body, "spec": {**spec, "template": shortened}}


_KEPT: Final[Mapping[Resource, Callable[[Json], Json]]] = {
    PODS: _pod,
    JOBS: _job,
    PLANS: _plan,
    ENDPOINT_SLICES: _slice,
    **dict.fromkeys(WORKLOADS, _workload),
    **dict.fromkeys(NAMES_ONLY, _names),
}
