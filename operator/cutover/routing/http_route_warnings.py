"""Where the rules of an HTTPRoute do not do what users may expect. Pure; reported before the first step, and never an error."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

from cutover.field_path import Json
from cutover.routing.branches import Match
from cutover.routing.http_route_matches import criteria, loses, matches_of, show_match
from cutover.routing.parents import unserved
from cutover.routing.routes import Pair, Route
from cutover.routing.routing import header_matched_already


def warnings(body: Json, everything: list[Route], chosen: Iterable[Pair], match: tuple[Match, ...]) -> Iterator[str]:
    """Gateways that do not serve it, rules that get no requests, and rules that a header rule takes requests from.

    Args:
        body: the HTTPRoute.
        everything: its rules.
        chosen: the pairs to shift.
        match: the headers of requests that will have rules of their own.
    """
    yield from unserved(body)
    for pair in chosen:
        above = everything[: everything.index(pair.route)]
        yield from _own_warnings(pair.route, above, match)
        yield from _losing_rules(pair.route, everything, above, match)


def _own_warnings(route: Route, above: list[Route], match: tuple[Match, ...]) -> Iterator[str]:
    if "sessionPersistence" in route.body:
        yield (
            f"rule {route} keeps sessions where they are (sessionPersistence), so its weights apply to new sessions only; "
            "let sessions end before the old version is removed, or remove sessionPersistence"
        )
    for own in matches_of(route):
        if taker := next((one for one in above if own in matches_of(one)), None):
            yield (
                f"rule {taker} comes before rule {route} and matches {show_match(own)} as well, "
                f"so {route} gets none of these requests; move it below"
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


def conflicts(
    body: Json, others: Iterable[Json], chosen: Iterable[Pair], rules_of: Callable[[Json], Iterable[Route]]
) -> Iterator[str]:
    """Rules of other HTTPRoutes for the same host at the same parent: of two equal matches the older route wins."""
    ours = list(chosen)
    for other in others:
        shared = _hosts(body) & _hosts(other)
        if not shared or not _meet_at_a_parent(body, other) or _age(other) >= _age(body):
            continue
        for rule, pair in itertools.product(rules_of(other), ours):
            for match in (one for one in matches_of(pair.route) if one in matches_of(rule)):
                yield (
                    f"rule {rule} of HTTPRoute {other['metadata']['name']} matches {show_match(match)} of host "
                    f"{min(shared) or '*'} as rule {pair.route} does, and of two HTTPRoutes the older wins (or the first by "
                    f"name), so {pair.route} gets none of these requests; remove it there"
                )


def _age(body: Json) -> tuple[str, str]:
    """The order in which gateways prefer routes with equal matches."""
    return body["metadata"].get("creationTimestamp", ""), body["metadata"]["name"]


def _hosts(body: Json) -> set[str]:
    """Only equal hosts conflict: of two that overlap the more specific one wins. None listed means all, as ``""``."""
    return {name.lower() for name in body["spec"].get("hostnames") or ("",)}


def _meet_at_a_parent(one: Json, other: Json) -> bool:
    """Whether both are attached to one listener: often one redirects at the http listener, and the other serves the https one."""
    return any(
        mine[0] == theirs[0]
        and all(not (here and there) or here == there for here, there in zip(mine[1], theirs[1], strict=True))
        for mine in _parents(one)
        for theirs in _parents(other)
    )


def _parents(body: Json) -> Iterator[tuple[tuple[str, ...], tuple[Json, Json]]]:
    """The parents it is attached to, each with the listener, by name and port; None is any."""
    own = body["metadata"]["namespace"]
    for one in body["spec"].get("parentRefs") or ():
        whole = one.get("kind", "Gateway"), one.get("namespace", own), one["name"]
        yield whole, (one.get("sectionName"), one.get("port"))
