"""How many endpoints of a destination would be given a request at the port that it means: the one place that counts.

Istio gives requests to what the EndpointSlices of the Service have at a port, and to WorkloadEntries (istiod's
`kube/controller`). A part of a Service, and one whose selector is still to be switched, has no slices of its own: there the pods
are counted, by the rules of the slices. Read-only. Used by the kinds that move traffic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from cutover.field_path import Json
from cutover.names import matching
from cutover.objects.endpoints import SERVICE_LABEL, Side, selects
from cutover.objects.services import Port, ports_of
from cutover.objects.workloads import pod_ready
from cutover.ports import ENDPOINT_SLICES, PODS, WORKLOAD_ENTRIES, Cluster

_BY_SELECTOR: Final = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
"""On slices that follow the Service's selector; others may have been created by hand."""
_HEALTH_CHECKED: Final = "proxy.istio.io/health-checks-enabled"
"""Annotation of a WorkloadEntry that gets no requests unless its condition says that it is healthy."""
_TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
"""As Go reads it."""


@dataclass(frozen=True, slots=True)
class Count:
    """Ready endpoints of a side, at the port where they are fewest.

    Attributes:
        pods: those of EndpointSlices, or pods that slices would have.
        entries: WorkloadEntries, which no EndpointSlice has.
        without: ready ones that lack the port, and so get nothing at it.
        port: the port; None where none is asked for.
    """

    pods: int
    entries: int = 0
    without: int = 0
    port: Port | None = None

    @property
    def total(self) -> int:
        """All that would be given a request."""
        return self.pods + self.entries

    @property
    def where(self) -> str:
        """At which port, where that is why some do not count: `` at port 80 (2 more have no port http)``."""
        if self.port is None or not self.without:
            return ""
        lacks = f"have no port {self.port.target}" if self.port.named else "are not set for that port"
        return f" at port {self.port.number} ({self.without} more {lacks})"

    def __str__(self) -> str:
        """As messages count them."""
        return f"{self.total} ready endpoint{'' if self.total == 1 else 's'}{self.where}"


async def count(cluster: Cluster, namespace: str, *sides: Side, fresh: bool = False) -> list[Count]:
    """The ready endpoints of each side, by one list for each kind of object that tells of any. `fresh`: not older than the call."""
    parts, whole = [side for side in sides if side.subset], [side for side in sides if not side.subset]
    pods, slices, entries = await asyncio.gather(
        _pods_of(cluster, namespace, parts, fresh=fresh),
        _slices_of(cluster, namespace, whole, fresh=fresh),
        cluster.list(WORKLOAD_ENTRIES, namespace, fresh=fresh),
    )
    return [_count(side, pods, slices, entries) for side in sides]


async def _pods_of(cluster: Cluster, namespace: str, sides: Sequence[Side], *, fresh: bool) -> Sequence[Json]:
    if not sides:
        return ()
    common = set.intersection(*(set((side.selector or {}).items()) for side in sides))
    return await cluster.list(PODS, namespace, matching(dict(common)), fresh=fresh)


async def _slices_of(cluster: Cluster, namespace: str, sides: Sequence[Side], *, fresh: bool) -> Sequence[Json]:
    if not sides:
        return ()
    picked = matching({}, (SERVICE_LABEL, "In", sorted({side.service for side in sides})))
    return await cluster.list(ENDPOINT_SLICES, namespace, picked, fresh=fresh)


def _count(side: Side, pods: Sequence[Json], slices: Sequence[Json], entries: Sequence[Json]) -> Count:
    own = [pod for pod in pods if selects(side.selector, pod["metadata"].get("labels") or {})] if side.subset else []

    def at(port: Port | None) -> Count:
        found = at_port(own, port) if side.subset else _in_slices(slices, side.service, port)
        return Count(found.pods, sum(_takes(entry, side, port) for entry in entries), found.without, port)

    return _fewest(at, side.ports)


def _fewest(at: Callable[[Port | None], Count], ports: Iterable[Port]) -> Count:
    return min(map(at, tuple(ports) or (None,)), key=lambda found: found.total)


# --- EndpointSlices ---------------------------------------------------------------------------------------------------


def _in_slices(slices: Sequence[Json], service: str, port: Port | None) -> Count:
    own = [part for part in slices if part["metadata"]["labels"][SERVICE_LABEL] == service]
    there = _ready_endpoints(part for part in own if port is None or _has(part, port))
    return Count(len(there), without=len(_ready_endpoints(own) - there))


def _has(part: Json, port: Port) -> bool:
    """By its name in the Service; a slice that names hosts is no use to Istio."""
    named = (one for one in part.get("ports") or () if (one.get("name") or "") == port.name)
    return part.get("addressType") != "FQDN" and any(one.get("port") for one in named)


def _ready_endpoints(slices: Iterable[Json]) -> set[str]:
    """By pod, because a Service with two address families has a slice for each."""
    return {
        (endpoint.get("targetRef") or {}).get("uid") or endpoint["addresses"][0]
        for part in slices
        for endpoint in part.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    }


async def addressed(cluster: Cluster, namespace: str, service: str) -> set[str]:
    """The uids of the ready pods in the EndpointSlices that follow a Service's selector."""
    return _ready_endpoints(
        await cluster.list(ENDPOINT_SLICES, namespace, matching({SERVICE_LABEL: service, **_BY_SELECTOR}))
    )


# --- pods -------------------------------------------------------------------------------------------------------------


async def pods_of(
    cluster: Cluster, namespace: str, labels: Mapping[str, str], *, fresh: bool = False
) -> Sequence[Json]:
    """Pods that a Service would select by these labels."""
    return await cluster.list(PODS, namespace, matching(labels), fresh=fresh)


def at_port(pods: Iterable[Json], port: Port | None) -> Count:
    """How many of these pods EndpointSlices would have at a port of their Service."""
    ready = [pod for pod in pods if pod_ready(pod)]
    there = sum(port is None or port.served_by(pod) for pod in ready)
    return Count(there, without=len(ready) - there, port=port)


def by_port(service: Json, pods: Sequence[Json]) -> dict[str, Count]:
    """How many of the pods are ready, and, for each named target port of the Service, how many of these have it.

    The total is under the empty name. A pod without a port gets no traffic at that port, but does at the others.
    """
    named = {str(port.target): port for port in ports_of(service) if port.named}
    return {"": at_port(pods, None)} | {name: at_port(pods, named[name]) for name in sorted(named)}


def ready_by_port(service: Json, pods: Sequence[Json]) -> dict[str, int]:
    """The same as numbers."""
    return {port: found.total for port, found in by_port(service, pods).items()}


# --- WorkloadEntries --------------------------------------------------------------------------------------------------


def _takes(entry: Json, side: Side, port: Port | None) -> bool:
    """Whether Istio adds a WorkloadEntry to a Service, at this port."""
    spec, metadata = entry["spec"], entry["metadata"]
    labels = (spec.get("labels") or {}) | (metadata.get("labels") or {})
    named = port is None or not port.named or (spec.get("ports") or {}).get(port.target)
    reached = not side.headless and _is_address(spec.get("address") or "") and _healthy(entry)
    return bool(named and reached and selects(side.selector, labels))


def _is_address(text: str) -> bool:
    """Hosts and sockets are for ServiceEntries; without an address the gateway of the entry's network is meant."""
    try:
        return not text or bool(ip_address(text))
    except ValueError:
        return False


def _healthy(entry: Json) -> bool:
    if (entry["metadata"].get("annotations") or {}).get(_HEALTH_CHECKED) not in _TRUE:
        return True
    conditions = (entry.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Healthy" and one["status"] == "True" for one in conditions)
