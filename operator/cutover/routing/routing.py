"""The contract of an object that splits traffic, and the messages such objects share. Pure.

`virtual_services.py` and `http_routes.py` implement it, `resources.py` lists them; the `traffic` kind uses nothing else of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import ClassVar

from cutover.errors import Problem
from cutover.field_path import ABSENT, Json, Path, find
from cutover.ports import Resource
from cutover.routing.branches import Match
from cutover.routing.order import Place, Surroundings
from cutover.routing.routes import HeaderRoute, Leftover, Pair, Route, WeightedDestination
from cutover.schema.model import Model, Name


class Routing(Model):
    """An object of the plan's namespace that splits traffic, and the routes of it that a step shifts.

    Attributes:
        resource: its kind.
        field: the key of a step that names it.
        word: what its routes are called; with an s, the field that names them.
        gateways: the kind of the gateways that it may name.
        pruned_because: why the server may not keep all temporary fields, and the fix; empty where it always does.
    """

    resource: ClassVar[Resource]
    field: ClassVar[str]
    word: ClassVar[str]
    gateways: ClassVar[Resource]
    pruned_because: ClassVar[str] = ""

    name: Name

    @classmethod
    def routes_of(cls, body: Json) -> Iterator[Route]:
        """All its routes, in their order."""
        raise NotImplementedError

    @classmethod
    def effective_weights(cls, route: Route) -> Iterator[tuple[WeightedDestination, int]]:
        """The destinations of a route, each with its effective weight."""
        return ((destination, destination.weight) for destination in route.destinations)

    def duplicate(self) -> str:
        """Which name is listed twice; empty when none is."""
        return ""

    def only_http(self) -> bool:
        """Whether it names http routes only, as far as the plan alone tells."""
        return True

    def named(self, routes: list[Route], where: str) -> tuple[list[Route], list[Problem]] | None:
        """The named routes, and what is wrong with the names; None when the step names none."""
        raise NotImplementedError

    def which(self, routes: Iterable[Route]) -> str:
        """How a plan can say which of these routes to shift."""
        del routes
        return "say which to shift"

    def elsewhere(self, route: Route, namespace: str) -> str:
        """Which other object has the destinations of a route; empty when the route has them itself."""
        del route, namespace
        return ""

    def warnings(self, body: Json, chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
        """Where these routes do not do what users may expect.

        Args:
            body: the object.
            chosen: the pairs to shift.
            match: the headers of requests that will have routes of their own.
        """
        raise NotImplementedError

    def places(self, body: Json, around: Surroundings) -> Iterator[Place]:
        """Each list of matches that a proxy tries one after the other and that has some of the object."""
        raise NotImplementedError

    def unreached(self, body: Json, around: Surroundings) -> Iterator[tuple[str, bool]]:
        """Why requests do not come to the object in a way that it names, each with whether it is certain that none comes at all."""
        del body, around
        yield from ()

    def refusals(self, body: Json) -> list[str]:
        """What gateways report against an object, to be recognized later; Istio reports nothing by default."""
        del body
        return []

    def refused(self, body: Json, before: Container[str]) -> str:
        """What gateways report against an object now that they did not report `before`; empty when nothing."""
        del body, before
        return ""

    def behind(self, body: Json) -> bool:
        """Whether a gateway has yet to report on the object as it is now; Istio reports nothing by default."""
        del body
        return False

    def fields(self, body: Json, match: tuple[Match, ...], *, mirrors: bool, sticks: bool) -> list[str]:
        """The fields that a step writes, as jq paths: weights and temporary fields."""
        raise NotImplementedError

    def header_route(self, body: Json, pair: Pair, wanted: HeaderRoute, place: str) -> tuple[Path, Json]:
        """A route directly above the route of a pair that takes the requests with the headers from it.

        It is a copy otherwise, so retries, timeouts and rewrites apply to these requests too.

        Args:
            body: the object.
            pair: the pair.
            wanted: the headers, and where the requests go.
            place: the field of the step that requests it, for problems.

        Raises:
            PlanError: no request can match both, or the route exists already.
        """
        raise NotImplementedError

    def cookie(self, route: Route, destination: WeightedDestination, sets: str, place: str) -> tuple[Path, Json]:
        """The field by which responses of a destination set a cookie.

        Raises:
            PlanError: they already set one there, or the route removes it.
        """
        raise NotImplementedError

    def mirror(self, pair: Pair, percent: int) -> list[tuple[Path, Json]]:
        """The fields of a route that mirror its requests to the new side; other mirrors in a list stay."""
        raise NotImplementedError

    def leftovers(self, body: Json, chosen: Iterable[Pair]) -> Iterator[Leftover]:
        """What an abandoned plan seems to have left, found before the first step."""
        raise NotImplementedError

    def over_limit(self, body: Json, fields: Iterable[tuple[Path, Json]]) -> str:
        """Why the temporary fields would exceed a limit of the object; empty when they fit."""
        del body, fields
        return ""


def not_there(body: Json, path: Path) -> bool:
    """Whether a path has no value and could be set."""
    return (found := find(body, path)) is not None and found.value is ABSENT


def cookie_set_already(host: str) -> str:
    """The message where the responses of a destination already set a cookie."""
    return f"responses of {host} already get a header Set-Cookie there; let the application set that cookie itself"


def cookies_removed(word: str, route: Route) -> str:
    """The message where a route sets or removes the header of all its responses, which happens after what a destination adds."""
    message = (
        f"{word} {route} sets or removes header Set-Cookie of all its responses, so no visitor would get the cookie"
    )
    return f"{message}; remove that, or remove stickiness"


def header_matched_already(word: str, route: Route, match: Match) -> str:
    """The message where a route itself matches only requests that a header route should take from it."""
    message = f"{word} {route} matches header {' and '.join(match.headers)} itself, as match does, so all requests that it takes for that header"
    return f"{message} go to the new version before the first weight; use another header to let the weights decide"
