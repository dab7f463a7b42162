"""Where weights stand in a VirtualService: its routes, and the destinations in them as Istio reads them. Pure.

Used by the `traffic` kind; what stands behind a destination is the business of `endpoints.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, StringConstraints

from cutover.endpoints import full_host
from cutover.errors import PlanError, Problem
from cutover.fields import ABSENT, Json, Path, Segment, find
from cutover.model import Label, Model, Name

RouteName = Annotated[str, StringConstraints(min_length=1, max_length=253)]


class VirtualService(Model):
    """A VirtualService of the plan's namespace."""

    name: Name = Field(description="Name of the VirtualService.")
    routes: tuple[RouteName, ...] = Field(
        default=(), max_length=16, description="Names of its http routes; left out when there is exactly one."
    )


class Destination(Model):
    """A destination that stands in the route already, as Istio reads it."""

    host: Name = Field(description="Host; a short name is a Service of the plan's namespace.")
    subset: Label | None = Field(default=None, description="Subset, as a DestinationRule defines it.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port; left out, any.")

    def __str__(self) -> str:
        """As messages name it: ``shop-v2``, ``shop subset v2``."""
        subset = f" subset {self.subset}" if self.subset else ""
        return f"{self.host}{subset}{f' port {self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two weights of one route."""

    old: Path
    new: Path

    def total(self, body: Json) -> int:
        """What both have together now."""
        return sum(number(found.value) if (found := find(body, path)) else 0 for path in (self.old, self.new))


def pairs(body: Json, service: VirtualService, old: Destination, new: Destination, place: str) -> list[Pair]:
    """Where the weights of both sides stand now.

    Args:
        body: the VirtualService as it is.
        service: which of its routes are meant.
        old: the side that gives traffic away.
        new: the side that gets it.
        place: of the step's fields, for problems.

    Raises:
        PlanError: with all that is not there.
    """
    namespace = body["metadata"]["namespace"]
    chosen, problems = _routes(body, service, f"{place}.virtualService.routes")
    found = []
    for segment, route in chosen:
        ends = []
        for field, side in (("from", old), ("to", new)):
            matching = [entry for entry in route.get("route") or () if _is(entry["destination"], side, namespace)]
            if len(matching) == 1:
                ends.append(_weight_path(segment, matching[0]["destination"]))
                continue
            count = f"{len(matching)} destinations" if matching else "no destination"
            says = f"route {route.get('name') or '(unnamed)'} of VirtualService {service.name} has {count} {side}"
            problems.append(Problem(f"{place}.{field}", f"{says}; add it with weight 0, or name the one that is there"))
        if len(ends) == 2:  # noqa: PLR2004 -- both sides
            found.append(Pair(*ends))
    if problems:
        raise PlanError(*problems)
    return found


def _routes(body: Json, service: VirtualService, where: str) -> tuple[list[tuple[Segment, Json]], list[Problem]]:
    """The routes that are meant, each with how it is told from the others; and what is wrong with that."""
    routes = body["spec"].get("http") or []
    if service.routes:
        return _named(routes, service, where)
    if len(routes) == 1:
        return [({"name": routes[0].get("name")}, routes[0])], []
    names = ", ".join(route.get("name") or "(unnamed)" for route in routes) or "none"
    return [], [
        Problem(where, f"VirtualService {service.name} has {len(routes)} http routes ({names}); say which to shift")
    ]


def _named(routes: list[Json], service: VirtualService, where: str) -> tuple[list[tuple[Segment, Json]], list[Problem]]:
    chosen: list[tuple[Segment, Json]] = []
    problems = []
    for name in service.routes:
        found = [route for route in routes if route.get("name") == name]
        if len(found) == 1:
            chosen.append(({"name": name}, found[0]))
            continue
        known = ", ".join(sorted({route["name"] for route in routes if route.get("name")})) or "no named route"
        count = f"{len(found)} http routes" if found else "no http route"
        problems.append(Problem(where, f"VirtualService {service.name} has {count} named {name}; it has {known}"))
    return chosen, problems


def _is(live: Json, side: Destination, namespace: str) -> bool:
    return (
        full_host(live["host"], namespace) == full_host(side.host, namespace)
        and (live.get("subset") or None) == side.subset
        and (side.port is None or (live.get("port") or {}).get("number") == side.port)
    )


def _weight_path(route: Segment, destination: Json) -> Path:
    """The weight beside exactly this destination, absent members included."""
    exactly = {"host": destination["host"], "subset": destination.get("subset"), "port": destination.get("port")}
    return ("spec", "http", route, "route", {"destination": exactly}, "weight")


def number(weight: Json) -> int:
    """A weight that is left out is 0 beside other destinations (Istio API, HTTPRouteDestination.weight)."""
    return 0 if weight is ABSENT else int(weight)
