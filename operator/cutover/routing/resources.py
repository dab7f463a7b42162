"""All objects that split traffic, and the weight that each gives to which destination.

Read-only. Used by `deploy` before it reduces replicas, by preflight, and where weights are watched.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cutover.field_path import Json
from cutover.objects.at_once import at_once
from cutover.objects.endpoints import Side, resolve, selects
from cutover.ports import SERVICES, Cluster, Ref, Resource
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
    async for ref, given, _ in _given(cluster, namespace, labels, fresh=fresh):
        found[ref] = found.get(ref, 0) + given
    return found


async def shares(cluster: Cluster, namespace: str, labels: Mapping[str, str]) -> dict[Ref, float]:
    """The largest share of the requests of one of its routes that each object gives to pods with these labels."""
    found: dict[Ref, float] = {}
    async for ref, given, total in _given(cluster, namespace, labels, fresh=True):
        found[ref] = max(found.get(ref, 0.0), given / total)
    return found


@dataclass(slots=True)
class _Hosts:
    """Which hosts and subsets lead to pods with these labels; each is looked up once."""

    services: Cluster
    namespace: str
    labels: Mapping[str, str]
    known: dict[tuple[str, str | None], bool] = field(default_factory=dict)

    async def weight(self, destinations: Sequence[tuple[WeightedDestination, int]]) -> int:
        """The weight of those of the destinations that do."""
        return sum([weight for one, weight in destinations if weight and await self._reach(one.host, one.subset)])

    async def _reach(self, host: str, subset: str | None) -> bool:
        if (host, subset) not in self.known:
            side = await resolve(self.services, self.namespace, host, subset)
            self.known[host, subset] = isinstance(side, Side) and selects(side.selector, self.labels)
        return self.known[host, subset]


async def _given(
    cluster: Cluster, namespace: str, labels: Mapping[str, str], *, fresh: bool
) -> AsyncIterator[tuple[Ref, int, int]]:
    """For each route that leads to pods with these labels: its object, the weight that they get, and that of all destinations.

    Only objects that name a Service which selects such pods are read further: of a thousand that is one.
    """
    found = [(resource, body) for resource in ROUTINGS for body in await cluster.list(resource, namespace, fresh=fresh)]
    services = at_once(cluster, namespace, fresh=fresh)
    selecting = await _selecting(services, namespace, labels, fresh=fresh) if found else ()
    hosts = _Hosts(services, namespace, labels)
    for resource, body in [one for one in found if _names_one(one[1].get("spec"), selecting)]:
        ref = Ref(resource, namespace, body["metadata"]["name"])
        for weights in map(list, _weights_of_routes(resource, body)):
            if given := await hosts.weight(weights):
                yield ref, given, sum(weight for _, weight in weights)


def _weights_of_routes(resource: Resource, body: Json) -> Iterator[Iterator[tuple[WeightedDestination, int]]]:
    """The destinations of each route of an object, with their effective weights."""
    return map(ROUTINGS[resource].effective_weights, ROUTINGS[resource].routes_of(body))


async def _selecting(cluster: Cluster, namespace: str, labels: Mapping[str, str], *, fresh: bool) -> Container[str]:
    """The names of all Services that select pods with these labels."""
    return {
        body["metadata"]["name"]
        for body in await cluster.list(SERVICES, namespace, fresh=fresh)
        if (selector := body["spec"].get("selector")) and selects(selector, labels)
    }


def _names_one(part: Json, services: Container[str]) -> bool:
    """Whether a text in a document is one of these names, alone or before a dot. A rough test, which lets too many pass at most."""
    if isinstance(part, str):
        return part.partition(".")[0] in services
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return any(_names_one(one, services) for one in inner)
