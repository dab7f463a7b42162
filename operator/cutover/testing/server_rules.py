"""The rules that the in-memory API server keeps: label selectors, defaults, and writes that no correct caller makes. Pure."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from cutover.errors import Broken
from cutover.field_path import ABSENT, Json, Operation, Path, find
from cutover.objects.listed import listed
from cutover.ports import (
    EVENTS,
    FENCE_LABEL,
    HTTP_ROUTES,
    PLAN_LABEL,
    PLANS,
    SERVICES,
    SNAPSHOTS,
    STATEFUL_SETS,
    Ref,
    Resource,
)
from cutover.routing.resources import ROUTINGS
from cutover.targets.patching import apply, merge, tidy

_GATED: Final[Mapping[Resource, tuple[Path, ...]]] = {
    STATEFUL_SETS: (("spec", "updateStrategy", "rollingUpdate", "maxUnavailable"),)
}
"""Fields that kube-apiserver 1.36 drops without a word, as their feature gate is off; one that is there already it keeps."""


def picked(objects: Mapping[Ref, Json], resource: Resource, namespace: str, labels: str) -> Sequence[Ref]:
    """The objects of a kind that a selector picks, in a namespace or in all."""
    return [
        ref
        for ref in sorted(ref for ref in objects if ref.resource == resource)
        if namespace in ("", ref.namespace) and _selected(objects[ref]["metadata"].get("labels") or {}, labels)
    ]


def as_listed(objects: Mapping[Ref, Json], refs: Sequence[Ref]) -> Sequence[Json]:
    """What a list has of some objects. Of plans all: the command line lists them too."""
    return [objects[ref] if ref.resource == PLANS else listed(ref.resource, objects[ref]) for ref in refs]


def told(objects: Mapping[Ref, Json], ref: Ref, uid: str, reason: str) -> Sequence[Json]:
    """The events about an object that have this reason."""
    events = (objects[one] for one in picked(objects, EVENTS, ref.namespace, ""))
    return [event for event in events if (event["regarding"]["uid"], event["reason"]) == (uid, reason)]


def patched(resource: Resource, before: Json, operations: Sequence[Operation]) -> Json:
    """An object after a JSON patch."""
    body = copy.deepcopy(before)
    for operation in operations:
        apply(body, operation)
    tidy(body)
    apply_defaults(resource, body)
    _drop_disabled(resource, before, body)
    return body


def merged(resource: Resource, before: Json, patch: Json) -> Json:
    """An object after a strategic merge patch."""
    body = merge(before, patch)
    _drop_disabled(resource, before, body)
    return body


def _drop_disabled(resource: Resource, before: Json, body: Json) -> None:
    for path in _GATED.get(resource, ()):
        old, new = find(before, path), find(body, path)
        if new and new.value is not ABSENT and (old is None or old.value is ABSENT):
            del new.parent[path[-1]]


def _selected(labels: Json, selector: str) -> bool:
    """Whether a label selector picks these labels."""
    if " in (" in selector:
        key, _, values = selector.partition(" in (")
        return labels.get(key) in values.rstrip(")").split(",")
    return all(_matches(labels, part) for part in selector.split(",") if part)


def _matches(labels: Json, part: str) -> bool:
    for sign in ("!=", "=", "<"):
        key, found, value = part.partition(sign)
        if found:
            label = labels.get(key)
            if sign == "<":
                return label is not None and label.isdecimal() and int(label) < int(value)
            return (label == value) is (sign == "=")
    return part in labels


def check_possible(ref: Ref, before: Json, after: Json, *, strict: bool) -> None:
    """Raise Broken for a write that no correct caller makes."""
    if ref.resource in (PLANS, SNAPSHOTS):
        return
    labels, was = after["metadata"].get("labels") or {}, before["metadata"].get("labels") or {}
    if content(before) != content(after) and PLAN_LABEL not in labels:
        raise Broken(f"{ref} is changed without a claim")
    if was.get(PLAN_LABEL) == labels.get(PLAN_LABEL) and _number(labels) < _number(was):
        raise Broken(f"the fence of {ref} is lowered")
    if strict and ref.resource in ROUTINGS and _sums(ref, before) != _sums(ref, after):
        raise Broken(f"the weights of {ref} add up to {_sums(ref, after)} instead of {_sums(ref, before)}")


def apply_defaults(resource: Resource, body: Json) -> None:
    """Fill in the defaults of an HTTPRoute and of a Service, as the API server does. Raises Broken for a Service without a port."""
    if resource == SERVICES:
        _check_service(body)
    for rule in body["spec"].get("rules") or () if resource == HTTP_ROUTES else ():
        _complete(rule)


def _complete(rule: Json) -> None:
    """The defaults of a rule of an HTTPRoute."""
    for match in rule.setdefault("matches", [{}]):
        match["path"] = {"type": "PathPrefix", "value": "/"} | match.get("path", {})
        for header in match.get("headers", ()):
            header.setdefault("type", "Exact")
    mirrors = [one["requestMirror"]["backendRef"] for one in rule.get("filters", ()) if "requestMirror" in one]
    for reference in (*rule.get("backendRefs", ()), *mirrors):
        reference.setdefault("group", "")
        reference.setdefault("kind", "Service")
    for reference in rule.get("backendRefs", ()):
        reference.setdefault("weight", 1)


def _check_service(body: Json) -> None:
    spec = body["spec"]
    if not spec.get("ports") and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        raise Broken(f"Service {body['metadata']['name']} has no port")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])


def prune(document: Json, schema: Json) -> Json:
    """What is left of a document by a schema: fields that it does not know are dropped, as the API server does."""
    if isinstance(document, dict) and "properties" in schema:
        known = schema["properties"]
        return {name: prune(value, known[name]) for name, value in document.items() if name in known}
    if isinstance(document, list) and "items" in schema:
        return [prune(item, schema["items"]) for item in document]
    return document


def content(body: Json) -> tuple[Json, Json]:
    """An object without its metadata and status."""
    return body.get("spec"), body.get("data")


def _number(labels: Json) -> int:
    text = labels.get(FENCE_LABEL, "")
    return int(text) if text.isdecimal() else 0


def _sums(ref: Ref, body: Json) -> list[int]:
    """The sum of the weights of each route with several destinations; a single one gets all traffic regardless of its weight."""
    routes = ROUTINGS[ref.resource].routes_of(body)
    return [sum(aim.weight for aim in route.destinations) for route in routes if len(route.destinations) > 1]


def permits(denied: Collection[tuple[str, Ref]], verb: str, ref: Ref) -> bool:
    """Whether nothing denies it; of a whole kind, which has no name, whether nothing denies it for any object."""
    if ref.name:
        return (verb, ref) not in denied
    return not any(no == verb and (one.resource, one.namespace) == (ref.resource, ref.namespace) for no, one in denied)
