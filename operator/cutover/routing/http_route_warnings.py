"""Where the rules of an HTTPRoute do not do what users may expect. Pure; reported before the first step, and never an error."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from cutover.field_path import Json
from cutover.routing.branches import Match
from cutover.routing.http_route_matches import criteria, loses, matches_of
from cutover.routing.parents import unserved
from cutover.routing.routes import Pair, Route
from cutover.routing.routing import header_matched_already


def warnings(body: Json, everything: list[Route], chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
    """Gateways that do not serve it, and rules that a header rule takes requests from.

    Args:
        body: the HTTPRoute.
        everything: its rules.
        chosen: the pairs to shift.
        match: the headers of requests that will have rules of their own.
    """
    yield from unserved(body)
    for pair in chosen:
        above = everything[: everything.index(pair.route)]
        yield from _own_warnings(pair.route, match)
        yield from _losing_rules(pair.route, everything, above, match)


def _own_warnings(route: Route, match: tuple[Match, ...]) -> Iterator[str]:
    if "sessionPersistence" in route.body:
        yield (
            f"rule {route} keeps sessions where they are (sessionPersistence), so its weights apply to new sessions only; "
            "let sessions end before the old version is removed, or remove sessionPersistence"
        )
    for one in match:
        if any(criteria(one).items() <= own["headers"].items() for own in matches_of(route)):
            yield header_matched_already("rule", route, one)


def _losing_rules(route: Route, everything: list[Route], above: list[Route], match: tuple[Match, ...]) -> Iterator[str]:
    for other, one in itertools.product(everything, match):
        if other is not route and loses(other, route, one, above=other in above):
            yield (
                f"rule {other} loses requests with header {' and '.join(one.headers)} to rule {route}, because the "
                f"most specific match wins; let rule {other} match one more header if it should keep them"
            )
