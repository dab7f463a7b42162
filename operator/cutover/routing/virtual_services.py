"""The routes of an Istio VirtualService, and the temporary fields beside their weights. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from cutover.errors import PlanError, Problem
from cutover.field_path import ABOVE, ABSENT, Json, Path
from cutover.ports import ISTIO_GATEWAYS, VIRTUAL_SERVICES, Resource
from cutover.routing import virtual_service_order, virtual_service_warnings
from cutover.routing.branches import Match
from cutover.routing.order import Place, Surroundings
from cutover.routing.routes import WHOLE, HeaderRoute, Leftover, Pair, Port, Route, WeightedDestination, number
from cutover.routing.routing import Routing, cookie_set_already, cookies_removed, not_there
from cutover.routing.virtual_service_matches import called, criteria, names_of
from cutover.schema.model import Name

PROTOCOLS: Final = ("http", "tcp", "tls")
"""The fields that list its routes."""
_OWN: Final = "cutover-"
"""The prefix of the names of header routes."""
_HEADER_ROUTES: Final = f'.spec.http[] | select((.name // "") | startswith("{_OWN}"))'
_MIRROR_FIELDS: Final = (".spec.http[].mirror", ".spec.http[].mirrorPercentage", ".spec.http[].mirrors")
_SET_COOKIE: Final = "set-cookie"
RouteName = Annotated[str, StringConstraints(min_length=1, max_length=253)]
SniHost = Annotated[
    str, StringConstraints(pattern=r"^(\*|(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)$", max_length=253)
]


class VirtualService(Routing):
    """A VirtualService of the plan's namespace, and the routes to shift; none named: the only one with both destinations."""

    resource: ClassVar[Resource] = VIRTUAL_SERVICES
    field: ClassVar[str] = "virtualService"
    word: ClassVar[str] = "route"
    gateways: ClassVar[Resource] = ISTIO_GATEWAYS

    name: Name = Field(description="Name of the VirtualService.")
    routes: tuple[RouteName, ...] = Field(default=(), max_length=16, description="Names of its http routes.")
    tcp: tuple[Port, ...] = Field(
        default=(), max_length=16, description="Its tcp routes, which have no names, each by a port that it matches."
    )
    tls: tuple[SniHost, ...] = Field(
        default=(),
        max_length=16,
        description="Its tls routes, which have no names, each by an SNI host that it matches.",
    )

    @classmethod
    def routes_of(cls, body: Json) -> Iterator[Route]:
        """All its routes, in the order in which Istio tries those of one protocol."""
        for protocol in PROTOCOLS:
            for route in (body.get("spec") or {}).get(protocol) or ():
                key = {"name": route["name"]} if route.get("name") else {"name": None, "match": route.get("match")}
                at = ("spec", protocol, key)
                names = frozenset(names_of(protocol, route))
                destinations = tuple(_destination(at, entry) for entry in route.get("route") or ())
                yield Route(at, route, called(protocol, route, names), names, destinations, protocol == "http")

    @classmethod
    def effective_weights(cls, route: Route) -> Iterator[tuple[WeightedDestination, int]]:
        """A single destination gets everything, regardless of its weight (Istio API, HTTPRouteDestination.weight)."""
        for destination in route.destinations:
            yield destination, WHOLE if len(route.destinations) == 1 else destination.weight

    def duplicate(self) -> str:
        """Which name is listed twice; empty when none is."""
        for field, what, named in (
            ("routes", "route", self.routes),
            ("tcp", "port", self.tcp),
            ("tls", "host", self.tls),
        ):
            for one in named:
                if named.count(one) > 1:
                    return f"{what} {one} is listed twice in virtualService.{field}; keep one"
        return ""

    def only_http(self) -> bool:
        """Whether it names no route of tcp or tls."""
        return not (self.tcp or self.tls)

    def named(self, routes: list[Route], where: str) -> tuple[list[Route], list[Problem]] | None:
        """The named routes, and what is wrong with the names; None when the step names none."""
        if not (self.routes or self.tcp or self.tls):
            return None
        chosen: dict[int, Route] = {}
        problems = []
        for field, protocol, name in self._names_given():
            there = {at: route for at, route in enumerate(routes) if route.path[1] == protocol}
            found = [at for at, route in there.items() if name in route.names]
            if len(found) == 1:
                chosen[found[0]] = there[found[0]]  # once, though two ports or hosts may both lead to it
                continue
            message = self._not_one(protocol, name, len(found), [*there.values()])
            problems.append(Problem(f"{where}.{field}", message))
        return list(chosen.values()), problems

    def _names_given(self) -> Iterator[tuple[str, str, str | int]]:
        """Each field that names routes, their protocol, and one of the names."""
        yield from (("routes", "http", name) for name in self.routes)
        yield from (("tcp", "tcp", port) for port in self.tcp)
        yield from (("tls", "tls", host) for host in self.tls)

    def _not_one(self, protocol: str, one: str | int, count: int, there: list[Route]) -> str:
        known = ", ".join(sorted({str(name) for route in there for name in route.names})) or "none"
        what = {"http": "named", "tcp": "for port", "tls": "for host"}[protocol]
        found = f"{count} {protocol} routes" if count else f"no {protocol} route"
        return f"VirtualService {self.name} has {found} {what} {one}; it has {known}"

    def elsewhere(self, route: Route, namespace: str) -> str:
        """A route may delegate to another VirtualService, which has the destinations and no hosts."""
        handed = route.body.get("delegate")
        if not handed:
            return ""
        message = f"hands its requests to VirtualService {handed.get('name', '')}"
        if (where := handed.get("namespace") or namespace) != namespace:
            return f"{message} of namespace {where}; make a plan there that names it"
        return f"{message}; name that one instead"

    def warnings(self, body: Json, chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
        """Where Istio does not do with the routes of these pairs what users may expect."""
        return virtual_service_warnings.warnings(list(self.routes_of(body)), chosen, match)

    def places(self, body: Json, around: Surroundings) -> Iterator[Place]:
        """The http routes of all VirtualServices of a host, in Istio's order."""
        return virtual_service_order.places(body, self.routes_of, around)

    def unreached(self, body: Json, around: Surroundings) -> Iterator[tuple[str, bool]]:
        """One without hosts is reached by what delegates to it, one with hosts where a gateway serves them."""
        return virtual_service_order.unreached(body, around)

    def fields(self, body: Json, match: tuple[Match, ...], *, mirrors: bool, sticks: bool) -> list[str]:
        """The fields that are written, as jq paths; where no route is named, for every protocol that has routes."""
        named = {"http": self.routes, "tcp": self.tcp, "tls": self.tls}
        protocols = [one for one in PROTOCOLS if (named[one] if any(named.values()) else body["spec"].get(one))]
        found = [f".spec.{protocol}[].route[].weight" for protocol in protocols]
        found += _MIRROR_FIELDS if mirrors else ()
        found += [".spec.http[].route[].headers"] if sticks else []
        return [*found, _HEADER_ROUTES] if match or sticks else found

    def header_route(self, body: Json, pair: Pair, wanted: HeaderRoute, place: str) -> tuple[Path, Json]:
        """It is identified by its name. Routes above it still take their requests first."""
        found, problems = list[Json](), list[Problem]()
        whole: list[Json] = [{}]
        for own in pair.route.body.get("match") or whole:
            for one in wanted.match:
                problems += [Problem(place, message) for message in _clashes(own, one, pair.route)]
                found.append({**own, "headers": {**(own.get("headers") or {}), **criteria(one)}})
        *list_of_routes, itself = pair.route.path
        named = pair.route.body.get("name")
        name = f"{_OWN}{wanted.name}{f'-{named}' if named else ''}"
        path = (*list_of_routes, {"name": name, ABOVE: itself})
        if not problems and not not_there(body, path):
            message = f"VirtualService {self.name} already has a route {name}, which an abandoned plan may have left"
            problems.append(Problem(place, f"{message}; remove it, or rename the step"))
        if problems:
            raise PlanError(*dict.fromkeys(problems))
        return path, {**pair.route.body, "name": name, "match": found, "route": [dict(wanted.destination.entry)]}

    def cookie(self, route: Route, destination: WeightedDestination, sets: str, place: str) -> tuple[Path, Json]:
        """One more header of the responses; other headers there stay."""
        whole = (route.body.get("headers") or {}).get("response") or {}
        if _SET_COOKIE in {name.lower() for way in ("set", "remove") for name in whole.get(way) or ()}:
            raise PlanError(Problem(place, cookies_removed(self.word, route)))
        headers = destination.entry.get("headers") or {}
        answers = headers.get("response") or {}
        for way in ("add", "set"):
            if any(name.lower() == _SET_COOKIE for name in answers.get(way) or ()):
                raise PlanError(Problem(place, cookie_set_already(destination.host)))
        added = {**(answers.get("add") or {}), _SET_COOKIE: sets}
        return (*destination.weight_path[:-1], "headers"), {**headers, "response": {**answers, "add": added}}

    def mirror(self, pair: Pair, percent: int) -> list[tuple[Path, Json]]:
        """An existing mirror of the route is replaced until it is restored; those of a list stay beside ours."""
        destination, share = pair.new.entry["destination"], {"value": percent}
        if others := pair.route.body.get("mirrors"):
            return [((*pair.route.path, "mirrors"), [*others, {"destination": destination, "percentage": share}])]
        return [((*pair.route.path, "mirror"), destination), ((*pair.route.path, "mirrorPercentage"), share)]

    def leftovers(self, body: Json, chosen: Iterable[Pair]) -> Iterator[Leftover]:
        """Header routes, recognized by their names, and mirrors to the new side."""
        for route in self.routes_of(body):
            if route.http and str(route).startswith(_OWN):
                message = f"route {route} of VirtualService {self.name} looks like one that an abandoned plan has left"
                yield Leftover(message, ((route.path, ABSENT),))
        for pair in chosen:
            if fields := tuple(_without_mirror(pair)):
                message = (
                    f"route {pair.route} of VirtualService {self.name} mirrors requests to {pair.new.host} already"
                )
                yield Leftover(f"{message}; an abandoned plan may have left that", fields, mirrors=True)


def _clashes(own: Json, match: Match, route: Route) -> Iterator[str]:
    """Why no request can both match a route and have these headers."""
    asked, there, without = criteria(match), own.get("headers") or {}, own.get("withoutHeaders") or {}
    for key in sorted(asked.keys() & there.keys()):
        if asked[key] != there[key]:
            yield f"route {route} matches header {key} itself, with {there[key]}; use another header"
    for key in sorted(asked.keys() & without.keys()):
        yield (
            f"route {route} takes only requests without header {key} (withoutHeaders: {without[key]}), "
            "so none with it would reach the new version; use another header, or remove it from withoutHeaders"
        )


def _without_mirror(pair: Pair) -> Iterator[tuple[Path, Json]]:
    """The fields of a route that mirror to the new side, each with its value without the mirror."""
    destination, body = pair.new.entry["destination"], pair.route.body
    if body.get("mirror") == destination:
        yield from (((*pair.route.path, key), ABSENT) for key in ("mirror", "mirrorPercentage") if key in body)
    there = body.get("mirrors") or []
    others = [one for one in there if one.get("destination") != destination]
    if others != there:
        yield (*pair.route.path, "mirrors"), others or ABSENT


def _destination(at: Path, entry: Json) -> WeightedDestination:
    """Its weight belongs to exactly this destination, absent members included."""
    destination = entry.get("destination") or {}
    exactly = {"host": destination.get("host"), "subset": destination.get("subset"), "port": destination.get("port")}
    weight = (*at, "route", {"destination": exactly}, "weight")
    rest = {key: entry[key] for key in entry if key != "weight"}
    port = (destination.get("port") or {}).get("number")
    return WeightedDestination(
        destination.get("host", ""),
        destination.get("subset") or None,
        port,
        number(entry.get("weight", ABSENT)),
        weight,
        rest,
    )
