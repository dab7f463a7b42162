"""What the objects that split traffic have in common: routes, and in each of them destinations with weights. Pure.

`virtual_services.py` and `http_routes.py` say how one object each spells that, `routings.py` lists them; the `traffic` kind
uses what is here. What stands behind a destination is the business of `endpoints.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from cutover.errors import PlanError, Problem
from cutover.field_path import ABSENT, Json, Path, find
from cutover.objects.endpoints import full_host
from cutover.ports import Resource
from cutover.routing.branches import Match
from cutover.schema.model import Label, Model, Name

Port = Annotated[int, Field(ge=1, le=65535)]


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
class Aim:
    """One destination of a route, as it stands there.

    Attributes:
        host: as it is written; empty for what is no Service and never ours to shift.
        weight: the weight it has.
        at: where that weight stands.
        entry: what is said of it beside the weight.
    """

    host: str
    subset: str | None
    port: int | None
    weight: int
    at: Path
    entry: Json


@dataclass(frozen=True, slots=True)
class Route:
    """One route of an object.

    Attributes:
        at: where it stands. It is told from the others by its name, or where it has none by all that it matches.
        body: what it says.
        called: how messages name it.
        names: what a plan may call it by.
        aims: its destinations.
        http: whether it is one of http; only those know headers and mirrors.
    """

    at: Path
    body: Json
    called: str
    names: frozenset[str | int]
    aims: tuple[Aim, ...]
    http: bool = True

    def __str__(self) -> str:
        """As messages name it."""
        return self.called


@dataclass(frozen=True, slots=True)
class Pair:
    """The two destinations of one route between which weight is shifted."""

    route: Route
    old: Aim
    new: Aim

    @property
    def total(self) -> int:
        """What both have together."""
        return self.old.weight + self.new.weight


@dataclass(frozen=True, slots=True)
class Branch:
    """A route to be put right above that of a pair, for some of the requests that that one takes.

    Attributes:
        name: what tells it from others: the step's name, and what it is for.
        aim: where all these requests go.
        match: what they have.
    """

    name: str
    aim: Aim
    match: tuple[Match, ...]


@dataclass(frozen=True, slots=True)
class Left:
    """What an abandoned plan must have left, by the look of it.

    Attributes:
        message: what stands there.
        fields: where, each with what is there without it.
        mirrors: it is a mirror to the new side, which a step that mirrors itself would take for the user's.
    """

    message: str
    fields: tuple[tuple[Path, Json], ...]
    mirrors: bool = False


class Routing(Model):
    """An object of the plan's namespace that splits traffic, and which of its routes are meant.

    Attributes:
        resource: what it is.
        field: the key of a step that names it.
        word: what its routes are called, and with an s the field that names them.
        drops: why it may not keep all that is put beside the weights, and the way out; empty where it always does.
    """

    resource: ClassVar[Resource]
    field: ClassVar[str]
    word: ClassVar[str]
    drops: ClassVar[str] = ""

    name: Name

    @classmethod
    def routes_of(cls, body: Json) -> Iterator[Route]:
        """All its routes, in the order in which they stand there."""
        raise NotImplementedError

    @classmethod
    def gives(cls, route: Route) -> Iterator[tuple[Aim, int]]:
        """The destinations of a route, each with the weight that it is really given."""
        return ((aim, aim.weight) for aim in route.aims)

    def twice(self) -> str:
        """What is named more than once; empty when nothing is."""
        return ""

    def only_http(self) -> bool:
        """Whether it names nothing but http routes, as far as can be told without looking."""
        return True

    def named(self, routes: list[Route], where: str) -> tuple[list[Route], list[Problem]] | None:
        """The routes that are named, and what is wrong with that; None when none is."""
        raise NotImplementedError

    def which(self, routes: Iterable[Route]) -> str:
        """How to say which of these routes is meant."""
        del routes
        return "say which to shift"

    def elsewhere(self, route: Route, namespace: str) -> str:
        """Where the destinations of a route stand instead of in itself; empty when it has them."""
        del route, namespace
        return ""

    def surprises(
        self, body: Json, chosen: Iterable[Pair], subsets: Container[tuple[str, str]], match: tuple[Match, ...]
    ) -> Iterator[str]:
        """Where these routes do something else than people may think.

        Args:
            body: the object.
            chosen: the pairs that are meant.
            subsets: host and name of each that the namespace defines.
            match: the headers of requests that will have routes of their own.
        """
        raise NotImplementedError

    def refusals(self, body: Json) -> list[str]:
        """What is said against an object by those who carry it out, to be known again; Istio says nothing by default."""
        del body
        return []

    def refused(self, body: Json, before: Container[str]) -> str:
        """What is said against an object as it is now, and was not `before`; empty when nothing is."""
        del body, before
        return ""

    def fields(self, body: Json, match: tuple[Match, ...], *, mirrors: bool, sticks: bool) -> list[str]:
        """What is written of an object, as jq paths: the weights, and what is put beside them for a while."""
        raise NotImplementedError

    def branch(self, body: Json, pair: Pair, wanted: Branch, place: str) -> tuple[Path, Json]:
        """A route right above the one of a pair that takes the requests with the headers out of what that one takes.

        In all else it is a copy, so retries, timeouts and rewrites hold for these requests too.

        Args:
            body: the object.
            pair: the pair.
            wanted: the headers, and where the requests go.
            place: of the step's field that asks for it, for problems.

        Raises:
            PlanError: no request could be both, or the route stands there already.
        """
        raise NotImplementedError

    def cookie(self, route: Route, aim: Aim, sets: str, place: str) -> tuple[Path, Json]:
        """The field that lets answers of a destination set a cookie.

        Raises:
            PlanError: they set one there already, or the route takes it away from them again.
        """
        raise NotImplementedError

    def mirror(self, pair: Pair, percent: int) -> list[tuple[Path, Json]]:
        """The fields of a route that mirror its requests to the new side; other mirrors that a list names stay beside it."""
        raise NotImplementedError

    def left_behind(self, body: Json, chosen: Iterable[Pair]) -> Iterator[Left]:
        """What an abandoned plan must have left, before the first step."""
        raise NotImplementedError

    def too_many(self, body: Json, fields: Iterable[tuple[Path, Json]]) -> str:
        """Why the object has no room for what is to be put beside the weights; empty when it has."""
        del body, fields
        return ""


def pairs(body: Json, routing: Routing, old: Destination, new: Destination, place: str) -> list[Pair]:
    """Where the weights of both sides stand now.

    Args:
        body: the object as it is.
        routing: which of its routes are meant.
        old: the side that gives traffic away.
        new: the side that gets it.
        place: of the step's fields, for problems.

    Raises:
        PlanError: with all that is not there.
    """
    namespace, where = body["metadata"]["namespace"], f"{place}.{routing.field}"
    whole = f"{routing.resource.kind} {routing.name}"
    routes = list(routing.routes_of(body))
    chosen, problems = _chosen(routes, routing, where, lambda route: _has(route, old, new, namespace))
    if problems and not any(
        _has(route, old, new, namespace) for route in routes
    ):  # those that hand on say where to look
        chosen += [route for route in routes if route not in chosen and routing.elsewhere(route, namespace)]
    found = []
    for route in chosen:
        if says := routing.elsewhere(route, namespace):
            problems.append(Problem(where, f"{routing.word} {route} of {whole} {says}"))
            continue
        if find(body, route.at) is None:
            says = f"{whole} has another {routing.word} that cannot be told from {routing.word} {route}"
            why = "it has the same name, or none and matches just the same"
            problems.append(Problem(where, f"{says}: {why}; give each a name of its own, or drop one"))
            continue
        ends = []
        for field, side in (("from", old), ("to", new)):
            matching = [aim for aim in route.aims if _is(aim, side, namespace)]
            if len(matching) == 1:
                ends.append(matching[0])
                continue
            count = f"{len(matching)} destinations" if matching else "no destination"
            says = f"{routing.word} {route} of {whole} has {count} {side}"
            problems.append(Problem(f"{place}.{field}", f"{says}; add it with weight 0, or name the one that is there"))
        if len(ends) == 2:  # noqa: PLR2004 -- both sides
            found.append(Pair(route, *ends))
    if problems:
        raise PlanError(*problems)
    return found


def _chosen(
    routes: list[Route], routing: Routing, where: str, fits: Callable[[Route], bool]
) -> tuple[list[Route], list[Problem]]:
    """The routes that are meant; and what is wrong with that."""
    if (named := routing.named(routes, where)) is not None:
        return named
    fitting = routes if len(routes) == 1 else list(filter(fits, routes))
    if len(fitting) == 1:
        return fitting, []
    names = ", ".join(map(str, routes)) or "none"
    whole = f"{routing.resource.kind} {routing.name} has {len(routes)} {routing.word}s"
    says = f"{whole} ({names}), {len(fitting)} with both; {routing.which(fitting or routes)}"
    return [], [Problem(f"{where}.{routing.word}s", says)]


def _has(route: Route, old: Destination, new: Destination, namespace: str) -> bool:
    return all(any(_is(aim, side, namespace) for aim in route.aims) for side in (old, new))


def _is(aim: Aim, side: Destination, namespace: str) -> bool:
    return (
        full_host(aim.host, namespace) == full_host(side.host, namespace)
        and aim.subset == side.subset
        and (side.port is None or aim.port == side.port)
    )


def not_there(body: Json, path: Path) -> bool:
    """Whether nothing stands at a path, and something could be put there."""
    return (found := find(body, path)) is not None and found.value is ABSENT


def sets_one(host: str) -> str:
    """What is said where the answers of a destination set a cookie already."""
    return f"answers of {host} are given a header Set-Cookie there already; let the application set that cookie itself"


def swallows(word: str, route: Route) -> str:
    """What is said where a route sets or removes the header of all its answers, which is done after what a destination adds."""
    says = f"{word} {route} sets or removes header Set-Cookie of all its answers, so no visitor would get the cookie"
    return f"{says}; take that out, or do without stickiness"


def asks_for_it(word: str, route: Route, match: Match) -> str:
    """What is said where a route takes no requests but those that a header route is to have out of it."""
    says = f"{word} {route} asks for header {' and '.join(match.headers)} itself, as match does, so all requests that it takes by that"
    return f"{says} go to the new version before the first weight; name another header if the weights are to decide"


def number(weight: Json) -> int:
    """A weight that is left out is 0 beside other destinations of a VirtualService; an HTTPRoute always says it."""
    return 0 if weight is ABSENT else int(weight)
