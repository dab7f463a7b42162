"""Where the routes of a VirtualService do not do what users may expect. Pure; reported before the first step, and never an error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cutover.routing.branches import Match
from cutover.routing.routes import WHOLE, Pair, Route
from cutover.routing.routing import header_matched_already
from cutover.routing.virtual_service_matches import criteria


def warnings(everything: list[Route], chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
    """Where Istio does not do with the routes of these pairs what users may expect.

    Args:
        everything: the routes of the VirtualService.
        chosen: the pairs to shift.
        match: the headers of requests that will have routes of their own.
    """
    for route in (pair.route for pair in chosen):
        yield from _own_matches(route, match)
        above = everything[: everything.index(route)] if not route.http else ()
        if taker := next((one for one in above if one.path[1] == route.path[1] and not one.body.get("match")), None):
            yield f"route {taker} comes before route {route} and matches every request, so {route} gets none; move it below"
        yield from _of_weights(route)


def _own_matches(route: Route, match: tuple[Match, ...]) -> Iterator[str]:
    own = [entry.get("headers") or {} for entry in route.body.get("match") or ()]
    for one in match:
        if any(criteria(one).items() <= headers.items() for headers in own):
            yield header_matched_already("route", route, one)


def _of_weights(route: Route) -> Iterator[str]:
    total = sum(destination.weight for destination in route.destinations)
    if total != WHOLE:
        yield (
            f"the weights of route {route} add up to {total}, and Istio reads each as its share of that sum, "
            f"not as percent; make them add up to {WHOLE}"
        )
