"""What a destination is: the Service behind its host, the ports that it means, and the workloads whose pods are behind it.

Read-only. Used by the kinds that move traffic and by `routing/resources.py`; `serving.py` counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.objects.hosts import not_a_service, service_of
from cutover.objects.services import Port, meant
from cutover.objects.subsets import subset_labels
from cutover.objects.workloads import Rollout, may_lack, pod_labels
from cutover.ports import (
    SERVICES,
    WORKLOADS,
    Cluster,
    Ref,
    Resource,
)

SERVICE_LABEL: Final = "kubernetes.io/service-name"
"""On each EndpointSlice: its Service."""


@dataclass(frozen=True, slots=True)
class Side:
    """One destination of a route, resolved.

    Attributes:
        service: name of the Service behind the host.
        selector: labels of its pods, those of the subset included; None where its endpoints are set by hand.
        subset: whether it is only a part of the Service, so that counting its slices would count too many.
        ports: at which it is given requests; snapshots of older releases have none, and then any ready endpoint counts.
        headless: it has no address of its own, and so Istio adds no WorkloadEntries to it.
        asked: the ports that the routes name, None where one names none.
    """

    service: str
    selector: Mapping[str, str] | None
    subset: bool
    ports: tuple[Port, ...] = ()
    headless: bool = False
    asked: tuple[int | None, ...] = ()

    @classmethod
    def of(cls, facts: Json) -> Side:
        """As a snapshot has it."""
        ports = tuple(Port(**port) for port in facts.get("ports") or ())
        return cls(**facts | {"ports": ports, "asked": tuple(facts.get("asked") or ())})


async def resolve(
    cluster: Cluster, namespace: str, host: str, subset: str | None, numbers: Collection[int | None] = ()
) -> Side | str:
    """What a destination resolves to, or a message that says what is missing.

    Args:
        cluster: the API server.
        namespace: of the route.
        host: of the destination.
        subset: of the destination.
        numbers: the ports that routes name for it, None where one names none; without any no port is asked for.
    """
    if message := not_a_service(host, namespace):
        return message
    name = service_of(host, namespace)
    try:
        service = await cluster.get(Ref(SERVICES, namespace, name))
    except NotFound:
        return f"host {host}: there is no Service {name}; create it"
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        other = f"it stands for {spec.get('externalName')} (type ExternalName)"
        return f"host {host}: Service {name} has no endpoints of its own, {other}; name a Service that has some"
    selector = dict(spec.get("selector") or {}) or None
    if subset is not None and selector is None:
        message = f"has no selector, so nobody can tell which of its endpoints are subset {subset}"
        return f"host {host}: Service {name} {message}; add one"
    ports = meant(service, numbers)
    if isinstance(ports, str):
        return f"host {host}: {ports}"
    asked, headless = tuple(sorted(numbers, key=lambda number: number or 0)), spec.get("clusterIP") == "None"
    side = Side(name, selector, subset=False, ports=ports, headless=headless, asked=asked)
    if subset is None or selector is None:
        return side
    labels = await subset_labels(cluster, namespace, host, subset)
    return labels if isinstance(labels, str) else replace(side, selector={**selector, **labels}, subset=True)


async def wanted(cluster: Cluster, namespace: str, side: Side) -> tuple[int, int]:
    """Pods that the workloads behind a destination should have, and how many of them may lack while a template is rolled out."""
    found = await workloads_behind(cluster, namespace, side)
    pods = sum(Rollout.of(body, resource).wanted for resource, body in found)
    return pods, sum(may_lack(body, resource) for resource, body in found)


async def behind(cluster: Cluster, namespace: str, *sides: Side) -> list[Ref]:
    """The workloads whose pods are behind these destinations."""
    found = await workloads_behind(cluster, namespace, *sides)
    return [Ref(resource, namespace, body["metadata"]["name"]) for resource, body in found]


async def workloads_behind(
    cluster: Cluster, namespace: str, *sides: Side, fresh: bool = True
) -> list[tuple[Resource, Json]]:
    """The workloads whose pods are behind at least one of these destinations, each with its kind."""
    return [
        (resource, body)
        for resource, body in await all_workloads(cluster, namespace, fresh=fresh)
        if any(selects(side.selector, pod_labels(body["spec"])) for side in sides)
    ]


async def all_workloads(cluster: Cluster, namespace: str, *, fresh: bool = True) -> list[tuple[Resource, Json]]:
    """The workloads of a namespace, each with its kind."""
    found = await asyncio.gather(*(cluster.list(resource, namespace, fresh=fresh) for resource in WORKLOADS))
    return [(resource, body) for resource, bodies in zip(WORKLOADS, found, strict=True) for body in bodies]


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether a selector selects pods with these labels, as a Service selects them: one without any selects none."""
    return selector is not None and all(labels.get(key) == value for key, value in selector.items())
