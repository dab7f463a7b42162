"""All objects that split traffic, and the weight that each gives to which destination.

Read-only. Used by `deploy` before it reduces replicas, by preflight, and where weights are watched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from cutover.field_path import Json
from cutover.objects.endpoints import Side, resolve, selects
from cutover.ports import Cluster, Ref, Resource
from cutover.routing.http_routes import HttpRoute
from cutover.routing.routes import WeightedDestination
from cutover.routing.routing import Routing
from cutover.routing.virtual_services import VirtualService

ROUTINGS: Final[Mapping[Resource, type[Routing]]] = {one.resource: one for one in (VirtualService, HttpRoute)}


def destinations(resource: Resource, body: Json) -> Iterator[tuple[WeightedDestination, int]]:
    """Every destination of an object that splits traffic, with its effective weight."""
    routing = ROUTINGS[resource]
    for route in routing.routes_of(body):
        yield from routing.effective_weights(route)


async def carried(cluster: Cluster, namespace: str, labels: Mapping[str, str], *, fresh: bool = True) -> dict[Ref, int]:
    """Weight that each object gives to pods with these labels; objects that give none are left out."""
    found: dict[Ref, int] = {}
    reached: dict[tuple[str, str | None], bool] = {}

    async def reaches(host: str, subset: str | None) -> bool:
        if (host, subset) not in reached:
            side = await resolve(cluster, namespace, host, subset)
            reached[host, subset] = isinstance(side, Side) and selects(side.selector, labels)
        return reached[host, subset]

    for resource in ROUTINGS:
        for body in await cluster.list(resource, namespace, fresh=fresh):
            ref = Ref(resource, namespace, body["metadata"]["name"])
            for destination, weight in destinations(resource, body):
                if weight and await reaches(destination.host, destination.subset):
                    found[ref] = found.get(ref, 0) + weight
    return found
