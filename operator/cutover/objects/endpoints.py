"""How many ready endpoints a destination has, counted as Istio counts them: pods of the Service and WorkloadEntries.

Read-only. Used by the `traffic` kind before it raises a weight and by its preconditions, by `routing/resources.py`, and by `switch`, which
has no mesh and counts pods only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.names import matching
from cutover.objects.workloads import Rollout, may_lack, pod_labels, pod_ready
from cutover.ports import (
    DESTINATION_RULES,
    ENDPOINT_SLICES,
    PODS,
    SERVICES,
    WORKLOAD_ENTRIES,
    WORKLOADS,
    Cluster,
    Ref,
    Resource,
)

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""On each EndpointSlice: its Service."""
_BY_SELECTOR: Final = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
"""On slices that follow the Service's selector; others may have been created by hand."""


@dataclass(frozen=True, slots=True)
class Side:
    """One destination of a route, resolved.

    Attributes:
        service: name of the Service behind the host.
        selector: labels of its pods, those of the subset included.
        subset: whether it is only a part of the Service, so that counting its slices would count too many.
    """

    service: str
    selector: Mapping[str, str]
    subset: bool


def full_host(host: str, namespace: str) -> str:
    """A host as Istio reads it: a name without a dot is a Service of the VirtualService's namespace."""
    return host if "." in host else f"{host}.{namespace}.svc.cluster.local"


def service_of(host: str, namespace: str) -> str:
    """The Service of this namespace that a host names; empty when it names anything else."""
    name, dot, rest = full_host(host, namespace).partition(".")
    return name if dot and rest == f"{namespace}.svc.cluster.local" else ""


def namespace_in(host: str) -> str:
    """The namespace that a host of a Service names; empty for a name alone."""
    return host.partition(".")[2].partition(".")[0]


def not_a_service(host: str, namespace: str) -> str:
    """Why a host is not a Service of a namespace, as a message; empty when it is one.

    Without a namespace, which a document may leave out, only what can be a Service of no namespace at all is refused.
    """
    if service_of(host, namespace or namespace_in(host)):
        return ""
    whose = f"namespace {namespace}" if namespace else "the plan's namespace"
    return f"host {host} is not a Service of {whose}; traffic can be shifted between its Services only"


async def resolve(cluster: Cluster, namespace: str, host: str, subset: str | None) -> Side | str:
    """What a destination resolves to, or a message that says what is missing."""
    if message := not_a_service(host, namespace):
        return message
    name = service_of(host, namespace)
    try:
        service = await cluster.get(Ref(SERVICES, namespace, name))
    except NotFound:
        return f"host {host}: there is no Service {name}; create it"
    selector = dict(service["spec"].get("selector") or {})
    if not selector:
        return f"host {host}: Service {name} has no selector, so its endpoints cannot be counted; add one"
    if subset is None:
        return Side(name, selector, subset=False)
    labels = (await subsets(cluster, namespace)).get((full_host(host, namespace), subset))
    if labels is not None:
        return Side(name, selector | labels, subset=True)
    return f"subset {subset} of host {host} is in no DestinationRule of namespace {namespace}; define it"


async def subsets(cluster: Cluster, namespace: str) -> dict[tuple[str, str], dict[str, str]]:
    """The subsets that the namespace defines, by host and name, with their labels; the first of two definitions counts."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for rule in await cluster.list(DESTINATION_RULES, namespace):
        for known in rule["spec"].get("subsets") or ():
            key = full_host(rule["spec"]["host"], namespace), known["name"]
            found.setdefault(key, dict(known.get("labels") or {}))
    return found


async def count_ready(cluster: Cluster, namespace: str, *sides: Side) -> tuple[int, ...]:
    """Ready endpoints of each side, by two reads for all of them: slices (pods where there is a subset) and WorkloadEntries."""
    pods, entries = await count_apart(cluster, namespace, *sides)
    return tuple(map(sum, zip(pods, entries, strict=True)))


async def count_apart(
    cluster: Cluster, namespace: str, *sides: Side, fresh: bool = False
) -> tuple[list[int], list[int]]:
    """The same as pods and WorkloadEntries, which no EndpointSlice has. `fresh`: not older than the call."""
    entries = cluster.list(WORKLOAD_ENTRIES, namespace, fresh=fresh)
    by_pods = any(side.subset for side in sides)  # slices do not tell subsets apart
    count = _count_pods if by_pods else _count_endpoints
    counts, known = await asyncio.gather(count(cluster, namespace, sides, fresh=fresh), entries)
    return counts, [_entries(known, side.selector) for side in sides]


async def _count_pods(cluster: Cluster, namespace: str, sides: Sequence[Side], *, fresh: bool) -> list[int]:
    common = set.intersection(*(set(side.selector.items()) for side in sides))
    pods = await cluster.list(PODS, namespace, matching(dict(common)), fresh=fresh)
    running = [pod["metadata"].get("labels") or {} for pod in pods if pod_ready(pod)]
    return [sum(selects(side.selector, labels) for labels in running) for side in sides]


async def _count_endpoints(cluster: Cluster, namespace: str, sides: Sequence[Side], *, fresh: bool) -> list[int]:
    picked = matching({}, (SERVICE_LABEL, "In", sorted({side.service for side in sides})))
    slices = await cluster.list(ENDPOINT_SLICES, namespace, picked, fresh=fresh)
    return [len(_ready_endpoints(slices, side.service)) for side in sides]


async def pods_of(
    cluster: Cluster, namespace: str, labels: Mapping[str, str], *, fresh: bool = False
) -> Sequence[Json]:
    """Pods that a Service would select by these labels."""
    return await cluster.list(PODS, namespace, matching(labels), fresh=fresh)


def ready_by_port(service: Json, pods: Sequence[Json]) -> dict[str, int]:
    """How many of the pods are ready, and, for each named target port of the Service, how many of these have it.

    The total is under the empty name. A pod without a port gets no traffic at that port, but does at the others.
    """
    ready = [_ports_of(pod) for pod in pods if pod_ready(pod)]
    targets = (port.get("targetPort") for port in service["spec"].get("ports") or ())
    names = sorted({name for name in targets if isinstance(name, str)})
    return {"": len(ready)} | {name: sum(name in ports for ports in ready) for name in names}


def _ports_of(pod: Json) -> set[str]:
    spec = pod.get("spec") or {}
    sidecars = (item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always")
    containers = (*(spec.get("containers") or ()), *sidecars)
    return {port["name"] for container in containers for port in container.get("ports") or () if "name" in port}


async def addressed(cluster: Cluster, namespace: str, service: str) -> set[str]:
    """The uids of the ready pods in the EndpointSlices that follow a Service's selector."""
    labels = matching({SERVICE_LABEL: service, **_BY_SELECTOR})
    return _ready_endpoints(await cluster.list(ENDPOINT_SLICES, namespace, labels), service)


async def wanted(cluster: Cluster, namespace: str, side: Side) -> tuple[int, int]:
    """Pods that the workloads behind a destination should have, and how many of them may lack while a template is rolled out."""
    found = await workloads_behind(cluster, namespace, side)
    pods = sum(Rollout.of(body, resource).wanted for resource, body in found)
    return pods, sum(may_lack(body, resource) for resource, body in found)


def ready_endpoints(count: int) -> str:
    """As messages count them."""
    return f"{count} ready endpoint{'' if count == 1 else 's'}"


async def behind(cluster: Cluster, namespace: str, *sides: Side) -> list[Ref]:
    """The workloads whose pods are behind these destinations."""
    found = await workloads_behind(cluster, namespace, *sides)
    return [Ref(resource, namespace, body["metadata"]["name"]) for resource, body in found]


async def workloads_behind(cluster: Cluster, namespace: str, *sides: Side) -> list[tuple[Resource, Json]]:
    """The workloads whose pods are behind at least one of these destinations, each with its kind."""
    found = await asyncio.gather(*(cluster.list(resource, namespace) for resource in WORKLOADS))
    return [
        (resource, body)
        for resource, bodies in zip(WORKLOADS, found, strict=True)
        for body in bodies
        if any(selects(side.selector, pod_labels(body["spec"])) for side in sides)
    ]


def _ready_endpoints(slices: Sequence[Json], service: str) -> set[str]:
    """By pod, because a Service with two address families has a slice for each."""
    return {
        (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
        for part in slices
        if part["metadata"]["labels"][SERVICE_LABEL] == service
        for endpoint in part.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    }


def _entries(entries: Sequence[Json], selector: Mapping[str, str]) -> int:
    return sum(selects(selector, entry["spec"].get("labels") or {}) for entry in entries)


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a selector selects pods with these labels, as a Service selects them."""
    return all(labels.get(key) == value for key, value in selector.items())
