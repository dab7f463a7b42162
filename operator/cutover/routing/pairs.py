"""Finds the two destinations of each route between which a step shifts weight. Pure; used by the `traffic` kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cutover.errors import PlanError, Problem
from cutover.field_path import Json, find
from cutover.objects.hosts import same
from cutover.routing.routes import Destination, Pair, Route, WeightedDestination
from cutover.routing.routing import Routing


def pairs(body: Json, routing: Routing, old: Destination, new: Destination, place: str) -> list[Pair]:
    """Where the weights of both sides are in the object.

    Args:
        body: the object as it is.
        routing: the object's kind and the routes of it to shift.
        old: the side that loses traffic.
        new: the side that gets traffic.
        place: path of the step's fields, for problems.

    Raises:
        PlanError: with everything that is missing.
    """
    namespace, where = body["metadata"]["namespace"], f"{place}.{routing.field}"
    whole = f"{routing.resource.kind} {routing.name}"
    routes = list(routing.routes_of(body))
    chosen, problems = _chosen(routes, routing, where, lambda route: _has(route, old, new, namespace))
    # Where no route has both destinations, routes that delegate say where they are.
    if problems and not any(_has(route, old, new, namespace) for route in routes):
        chosen += [route for route in routes if route not in chosen and routing.elsewhere(route, namespace)]
    found = []
    for route in chosen:
        if message := routing.elsewhere(route, namespace):
            problems.append(Problem(where, f"{routing.word} {route} of {whole} {message}"))
            continue
        if find(body, route.path) is None:
            message = f"{whole} has another {routing.word} that cannot be distinguished from {routing.word} {route}"
            why = "it has the same name, or no name and the same match"
            problems.append(Problem(where, f"{message}: {why}; give each a name of its own, or remove one"))
            continue
        ends, missing = _ends_of(route, routing, {"from": old, "to": new}, place, namespace)
        problems += missing
        if len(ends) == 2:  # noqa: PLR2004 -- both sides
            found.append(Pair(route, *ends))
    if problems:
        raise PlanError(*problems)
    return found


def _ends_of(
    route: Route, routing: Routing, sides: Mapping[str, Destination], place: str, namespace: str
) -> tuple[list[WeightedDestination], list[Problem]]:
    """The destinations of a route that the two sides name, and a problem for each that is not there exactly once."""
    ends, problems = list[WeightedDestination](), list[Problem]()
    for field, side in sides.items():
        matching = [destination for destination in route.destinations if _is(destination, side, namespace)]
        if len(matching) == 1:
            ends.append(matching[0])
            continue
        count = f"{len(matching)} destinations" if matching else "no destination"
        message = f"{routing.word} {route} of {routing.resource.kind} {routing.name} has {count} {side}"
        problems.append(Problem(f"{place}.{field}", f"{message}; add it with weight 0, or name one that exists"))
    return ends, problems


def _chosen(
    routes: list[Route], routing: Routing, where: str, fits: Callable[[Route], bool]
) -> tuple[list[Route], list[Problem]]:
    """The routes to shift, and what is wrong with that choice."""
    if (named := routing.named(routes, where)) is not None:
        return named
    fitting = routes if len(routes) == 1 else list(filter(fits, routes))
    if len(fitting) == 1:
        return fitting, []
    names = ", ".join(map(str, routes)) or "none"
    whole = f"{routing.resource.kind} {routing.name} has {len(routes)} {routing.word}s"
    message = f"{whole} ({names}), {len(fitting)} with both; {routing.which(fitting or routes)}"
    return [], [Problem(f"{where}.{routing.word}s", message)]


def _has(route: Route, old: Destination, new: Destination, namespace: str) -> bool:
    return all(any(_is(destination, side, namespace) for destination in route.destinations) for side in (old, new))


def _is(destination: WeightedDestination, side: Destination, namespace: str) -> bool:
    return (
        same(destination.host, side.host, namespace)
        and destination.subset == side.subset
        and (side.port is None or destination.port == side.port)
    )
