"""Where weights stand in a VirtualService: its routes, and the destinations in them as Istio reads them. Pure.

Used by the `traffic` kind; what stands behind a destination is the business of `endpoints.py`, and what is put beside the
weights for a while (header routes, mirrors) that of `branches.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import Field, StringConstraints

from cutover.endpoints import PROTOCOLS, full_host, service_of
from cutover.errors import PlanError, Problem
from cutover.fields import ABSENT, Json, Path, Segment, find
from cutover.model import Label, Model, Name

_ANY_PATH: Final = {"prefix": "/"}
_WHOLE: Final = 100
RouteName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
SniHost = Annotated[
    str, StringConstraints(pattern=r"^(\*|(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)$", max_length=253)
]
Port = Annotated[int, Field(ge=1, le=65535)]


class VirtualService(Model):
    """A VirtualService of the plan's namespace, and which of its routes; none named: the only one with both destinations."""

    name: Name = Field(description="Name of the VirtualService.")
    routes: tuple[RouteName, ...] = Field(default=(), max_length=16, description="Names of its http routes.")
    tcp: tuple[Port, ...] = Field(
        default=(), max_length=16, description="Its tcp routes, which have no names, by a port that they match."
    )
    tls: tuple[SniHost, ...] = Field(
        default=(), max_length=16, description="Its tls routes, which have no names, by an SNI host that they match."
    )

    def names_any(self) -> bool:
        """Whether it says which of the routes are meant."""
        return bool(self.routes or self.tcp or self.tls)

    def protocols(self, body: Json) -> list[str]:
        """Of which protocols its routes are; where none is named, those of which the VirtualService `body` has any."""
        named = {"http": self.routes, "tcp": self.tcp, "tls": self.tls}
        return [one for one in PROTOCOLS if (named[one] if self.names_any() else body["spec"].get(one))]

    def twice(self) -> str:
        """What is named more than once; empty when nothing is."""
        for field, what, named in (
            ("routes", "route", self.routes),
            ("tcp", "port", self.tcp),
            ("tls", "host", self.tls),
        ):
            for one in named:
                if named.count(one) > 1:
                    return f"{what} {one} stands in virtualService.{field} more than once; keep one"
        return ""


class Destination(Model):
    """A destination that stands in the route already, as Istio reads it."""

    host: Name = Field(description="Host; a short name is a Service of the plan's namespace.")
    subset: Label | None = Field(default=None, description="Subset, as a DestinationRule defines it.")
    port: Port | None = Field(default=None, description="Port; left out, any.")

    def __str__(self) -> str:
        """As messages name it: ``shop-v2``, ``shop subset v2``."""
        subset = f" subset {self.subset}" if self.subset else ""
        return f"{self.host}{subset}{f' port {self.port}' if self.port else ''}"


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a VirtualService.

    Attributes:
        at: where it stands. It is told from the others by its name, or where it has none by all that it matches.
        body: what it says.
    """

    at: Path
    body: Json

    @property
    def http(self) -> bool:
        """Whether it is one of http; only those know headers and mirrors."""
        return self.at[1] == "http"

    def __str__(self) -> str:
        """As messages name it: ``primary``, ``(unnamed)``, ``tcp port 5432``, ``tls db.example``."""
        if self.http:
            return self.body.get("name") or "(unnamed)"
        known = sorted({str(one) for entry in self.body.get("match") or () for one in _told_by(self.at[1], entry)})
        return f"{self.at[1]}{' port' if known and self.at[1] == 'tcp' else ''} {' '.join(known) or '(any)'}"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two weights of one route, and what the new side's entry says beside its weight."""

    route: Route
    old: Path
    new: Path
    entry: Json

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
    chosen, problems = _routes(
        list(routes_of(body)), service, f"{place}.virtualService", lambda route: _has(route, old, new, namespace)
    )
    found = []
    for route in chosen:
        ends = []
        for field, side in (("from", old), ("to", new)):
            matching = [entry for entry in route.body.get("route") or () if _is(entry["destination"], side, namespace)]
            if len(matching) == 1:
                ends.append(matching[0])
                continue
            count = f"{len(matching)} destinations" if matching else "no destination"
            says = f"route {route} of VirtualService {service.name} has {count} {side}"
            problems.append(Problem(f"{place}.{field}", f"{says}; add it with weight 0, or name the one that is there"))
        if len(ends) == 2:  # noqa: PLR2004 -- both sides
            paths = [_weight_path(route, entry["destination"]) for entry in ends]
            found.append(Pair(route, paths[0], paths[1], {key: ends[1][key] for key in ends[1] if key != "weight"}))
    if problems:
        raise PlanError(*problems)
    return found


def routes_of(body: Json) -> Iterator[Route]:
    """All routes of a VirtualService, in the order in which Istio tries those of one protocol."""
    for protocol in PROTOCOLS:
        for route in body["spec"].get(protocol) or ():
            key = {"name": route["name"]} if route.get("name") else {"name": None, "match": route.get("match")}
            yield Route(("spec", protocol, key), route)


def surprises(body: Json, chosen: Iterable[Pair], subsets: Container[tuple[str, str]]) -> Iterator[str]:
    """Where Istio takes the routes of these pairs for something else than people may think.

    Args:
        body: the VirtualService.
        chosen: the pairs that are meant.
        subsets: host and name of each that the namespace defines.
    """
    everything = list(routes_of(body))
    namespace = body["metadata"]["namespace"]
    for route in (pair.route for pair in chosen):
        above = everything[: everything.index(route)]
        if taker := next((one for one in above if one.at[1] == route.at[1] and _takes_all(one.body)), None):
            yield f"route {taker} stands above route {route} and takes every request, so {route} gets none; put it below"
        entries = route.body["route"]
        total = sum(number(entry.get("weight", ABSENT)) for entry in entries)
        if total != _WHOLE:
            yield (
                f"the weights of route {route} add up to {total}, and Istio takes each as its share of that sum, "
                f"not as percent; let them add up to {_WHOLE}"
            )
        for aim in (entry["destination"] for entry in entries if entry.get("weight")):
            host, subset = full_host(aim["host"], namespace), aim.get("subset")
            if subset and service_of(aim["host"], namespace) and (host, subset) not in subsets:
                says = f"no DestinationRule of namespace {namespace} defines subset {subset} of host {aim['host']}"
                yield f"{says}, to which route {route} gives weight: those requests fail; define it"


def _takes_all(route: Json) -> bool:
    """Whether a route matches whatever comes."""
    return not route.get("match") or any(
        not entry.keys() - {"name", "uri"} and entry.get("uri", _ANY_PATH) == _ANY_PATH for entry in route["match"]
    )


def _routes(
    routes: list[Route], service: VirtualService, where: str, fits: Callable[[Route], bool]
) -> tuple[list[Route], list[Problem]]:
    """The routes that are meant; and what is wrong with that."""
    if service.names_any():
        return _named(routes, service, where)
    fitting = routes if len(routes) == 1 else list(filter(fits, routes))
    if len(fitting) == 1:
        return fitting, []
    names = ", ".join(map(str, routes)) or "none"
    says = f"VirtualService {service.name} has {len(routes)} routes ({names}), {len(fitting)} with both; say which to shift"
    return [], [Problem(f"{where}.routes", says)]


def _has(route: Route, old: Destination, new: Destination, namespace: str) -> bool:
    aims = [entry["destination"] for entry in route.body.get("route") or ()]
    return all(any(_is(aim, side, namespace) for aim in aims) for side in (old, new))


def _named(routes: list[Route], service: VirtualService, where: str) -> tuple[list[Route], list[Problem]]:
    chosen: dict[int, Route] = {}
    problems = []
    for field, protocol, named in (
        ("routes", "http", service.routes),
        ("tcp", "tcp", service.tcp),
        ("tls", "tls", service.tls),
    ):
        there = [(at, route) for at, route in enumerate(routes) if route.at[1] == protocol]
        for one in named:
            found = [(at, route) for at, route in there if one in _names(route)]
            if len(found) == 1:
                chosen[found[0][0]] = found[0][1]  # once, though a port and another may both lead to it
                continue
            known = ", ".join(sorted({str(name) for _, route in there for name in _names(route)})) or "none"
            what = {"http": "named", "tcp": "for port", "tls": "for host"}[protocol]
            count = f"{len(found)} {protocol} routes" if found else f"no {protocol} route"
            says = f"VirtualService {service.name} has {count} {what} {one}; it has {known}"
            problems.append(Problem(f"{where}.{field}", says))
    return list(chosen.values()), problems


def _names(route: Route) -> set[Json]:
    """What a plan may call it by."""
    if route.http:
        return {route.body["name"]} if route.body.get("name") else set()
    return {one for entry in route.body.get("match") or () for one in _told_by(route.at[1], entry)}


def _told_by(protocol: Segment, entry: Json) -> list[Json]:
    """What one entry of a match is known by: its port (tcp), or its SNI hosts (tls)."""
    if protocol == "tls":
        return list(entry.get("sniHosts") or ())
    return [entry["port"]] if "port" in entry else []


def _is(live: Json, side: Destination, namespace: str) -> bool:
    return (
        full_host(live["host"], namespace) == full_host(side.host, namespace)
        and (live.get("subset") or None) == side.subset
        and (side.port is None or (live.get("port") or {}).get("number") == side.port)
    )


def _weight_path(route: Route, destination: Json) -> Path:
    """The weight beside exactly this destination, absent members included."""
    exactly = {"host": destination["host"], "subset": destination.get("subset"), "port": destination.get("port")}
    return (*route.at, "route", {"destination": exactly}, "weight")


def number(weight: Json) -> int:
    """A weight that is left out is 0 beside other destinations (Istio API, HTTPRouteDestination.weight)."""
    return 0 if weight is ABSENT else int(weight)
