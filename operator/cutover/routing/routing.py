"""The contract of an object that splits traffic, and what such objects say alike. Pure.

`virtual_services.py` and `http_routes.py` fulfil it, `resources.py` lists them; the `traffic` kind uses nothing else of them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import ClassVar

from cutover.errors import Problem
from cutover.field_path import ABSENT, Json, Path, find
from cutover.ports import Resource
from cutover.routing.branches import Match
from cutover.routing.routes import HeaderRoute, Leftover, Pair, Route, WeightedDestination
from cutover.schema.model import Model, Name


class Routing(Model):
    """An object of the plan's namespace that splits traffic, and which of its routes are meant.

    Attributes:
        resource: what it is.
        field: the key of a step that names it.
        word: what its routes are called, and with an s the field that names them.
        pruned_because: why it may not keep all that is put beside the weights, and the way out; empty where it always does.
    """

    resource: ClassVar[Resource]
    field: ClassVar[str]
    word: ClassVar[str]
    pruned_because: ClassVar[str] = ""

    name: Name

    @classmethod
    def routes_of(cls, body: Json) -> Iterator[Route]:
        """All its routes, in the order in which they stand there."""
        raise NotImplementedError

    @classmethod
    def effective_weights(cls, route: Route) -> Iterator[tuple[WeightedDestination, int]]:
        """The destinations of a route, each with the weight that it is really given."""
        return ((destination, destination.weight) for destination in route.destinations)

    def duplicate(self) -> str:
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

    def warnings(
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

    def header_route(self, body: Json, pair: Pair, wanted: HeaderRoute, place: str) -> tuple[Path, Json]:
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

    def cookie(self, route: Route, destination: WeightedDestination, sets: str, place: str) -> tuple[Path, Json]:
        """The field that lets answers of a destination set a cookie.

        Raises:
            PlanError: they set one there already, or the route takes it away from them again.
        """
        raise NotImplementedError

    def mirror(self, pair: Pair, percent: int) -> list[tuple[Path, Json]]:
        """The fields of a route that mirror its requests to the new side; other mirrors that a list names stay beside it."""
        raise NotImplementedError

    def leftovers(self, body: Json, chosen: Iterable[Pair]) -> Iterator[Leftover]:
        """What an abandoned plan must have left, before the first step."""
        raise NotImplementedError

    def over_limit(self, body: Json, fields: Iterable[tuple[Path, Json]]) -> str:
        """Why the object has no room for what is to be put beside the weights; empty when it has."""
        del body, fields
        return ""


def not_there(body: Json, path: Path) -> bool:
    """Whether nothing stands at a path, and something could be put there."""
    return (found := find(body, path)) is not None and found.value is ABSENT


def sets_cookie_already(host: str) -> str:
    """What is said where the answers of a destination set a cookie already."""
    return f"responses of {host} already get a header Set-Cookie there; let the application set that cookie itself"


def takes_cookies_away(word: str, route: Route) -> str:
    """What is said where a route sets or removes the header of all its answers, which is done after what a destination adds."""
    message = (
        f"{word} {route} sets or removes header Set-Cookie of all its responses, so no visitor would get the cookie"
    )
    return f"{message}; remove that, or remove stickiness"


def matches_itself(word: str, route: Route, match: Match) -> str:
    """What is said where a route takes no requests but those that a header route is to have out of it."""
    message = f"{word} {route} matches header {' and '.join(match.headers)} itself, as match does, so all requests that it takes for that header"
    return f"{message} go to the new version before the first weight; use another header to let the weights decide"
