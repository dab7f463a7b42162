"""Which routes are tried before others, the same for every object that has routes. Pure.

`virtual_service_order.py` and `http_route_order.py` know the order of their kind (docs/routing.md has it as a table); what comes of
it for the routes of a plan is told here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cutover.field_path import Json
from cutover.ports import Ref, Resource
from cutover.routing.routes import Route

Path = tuple[str, str]
"""How a path is matched (``exact``; ``prefix`` of characters; ``segments``, a prefix of whole ones; ``regex``; all else only equals itself), and with what."""
_EVERY: Final = frozenset(
    {("prefix", "/"), ("segments", "/"), *(("regex", one) for one in (".*", "/.*", ".+", "/?.*"))}
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else is known that decides who gets a request.

    Attributes:
        routes: other objects of the kind, of all namespaces that the operator sees.
        gateways: by namespace and name, those that objects of the kind may name.
        complete: whether those of all namespaces are among both.
    """

    routes: Sequence[Json] = ()
    gateways: Mapping[tuple[str, str], Json] = field(default_factory=dict)
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One match of one route, as a proxy has it.

    Attributes:
        owner: the object that has the route.
        route: the route.
        match: what it matches, in the form of its kind.
        shown: the match, as messages show it.
    """

    owner: Ref
    route: Route
    match: Json
    shown: str


@dataclass(frozen=True, slots=True)
class Place:
    """One list of matches that a proxy tries from the first to the last, for the requests of one host.

    Attributes:
        key: what identifies it: gateway, listener, host.
        host: as messages name it.
        entries: the matches in the order in which they are tried; `why` says what that order follows from.
        unsure: objects of which it is not certain that this proxy has them.
    """

    key: Hashable
    host: str
    entries: Sequence[Entry]
    why: str
    unsure: frozenset[Ref] = frozenset()


@dataclass(frozen=True, slots=True)
class Taken:
    """Requests that a route does not get, because another one is tried before it.

    Attributes:
        route: the route that does not get them.
        by: the object whose route gets them, and `taker` that route.
        requests: which, as messages name them.
        why: what the order follows from.
        whole: it is certain that these are all requests of the route, so that its weights have no effect.
    """

    route: Route
    by: Ref
    taker: Route
    requests: str
    why: str
    whole: bool = False


def taken(places: Iterable[Place], owner: Ref, chosen: Iterable[Route]) -> Iterator[Taken]:
    """What routes of an object lose to others, each other route once."""
    known = list(places)
    for route in chosen:
        yield from _losses(known, owner, route)


def unsent(places: Iterable[Place], owner: Ref, chosen: Iterable[Route]) -> list[Route]:
    """Routes of which no proxy has any match, though some have others of the object."""
    known = [entry for place in places for entry in place.entries if entry.owner == owner]
    return [route for route in chosen if known and all(entry.route != route for entry in known)]


def _losses(known: Iterable[Place], owner: Ref, route: Route) -> Iterator[Taken]:
    """What one route loses, each route that takes it once."""
    lost, kept, certain = dict[tuple[Ref, str], list[Taken]](), False, True
    for place, entry, winner in _contests(known, owner, route):
        if winner is None:
            kept = True
            continue
        certain &= winner.owner not in place.unsure
        told = Taken(route, winner.owner, winner.route, f"{entry.shown} of host {place.host}", place.why)
        lost.setdefault((winner.owner, str(winner.route)), []).append(told)
    for some in lost.values():
        requests = ", ".join(dict.fromkeys(one.requests for one in some))
        whole = not kept and certain
        yield Taken(route, some[0].by, some[0].taker, requests, some[0].why, whole)


def _contests(known: Iterable[Place], owner: Ref, route: Route) -> Iterator[tuple[Place, Entry, Entry | None]]:
    """Each match of a route, where it stands, with the first that takes all its requests; None where it keeps some."""
    for place in known:
        for at, entry in enumerate(place.entries):
            if entry.owner == owner and entry.route == route:
                yield place, entry, next((one for one in place.entries[:at] if _wins(one, entry)), None)


def told(loss: Taken, routing: str, owner: Ref, named: str) -> str:
    """A loss as one sentence.

    Args:
        loss: what is lost.
        routing: what routes of the object are called.
        owner: the object.
        named: the object that takes it, as the author may know it; empty where it may not be named.
    """
    if loss.by == owner:
        taker, out = f"{routing} {loss.taker}", f"move it below, or let it match less than {routing} {loss.route}"
    elif named:
        taker, out = f"{routing} {loss.taker} of {named}", "remove it there, or shift the weights of that one"
    else:
        taker = f"a {owner.resource.kind} of another namespace, which the plan's account may not get,"
        out = "ask an administrator which one that is"
    why = f"{taker} is tried before it ({loss.why})"
    if loss.whole:
        return f"{routing} {loss.route} gets no requests, so its weights have no effect: {why}; {out}"
    return f"{routing} {loss.route} gets none for {loss.requests}: {why}; {out}"


def _wins(one: Entry, entry: Entry) -> bool:
    return covers(one.match, entry.match) and (one.owner, one.route) != (entry.owner, entry.route)


def covers(one: Json, other: Json) -> bool:
    """Whether each request that matches the other matches this one too; where that is not certain, it does not."""
    return all(
        _path_covers(value, other.get(key)) if key == "path" else _criteria_cover(value, other.get(key))
        for key, value in one.items()
        if value
    )


def _criteria_cover(one: Json, other: Json) -> bool:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(name in other and other[name] == value for name, value in one.items())
    return bool(one == other)


def every_path(path: Path) -> bool:
    """Whether it matches all paths. An expression must match the whole path anyway, so its anchors mean nothing."""
    how, what = path
    return (how, what.removeprefix("^").removesuffix("$") if how == "regex" else what) in _EVERY


def _path_covers(one: Path, other: Path | None) -> bool:
    if one == other or every_path(one):
        return True
    if other is None or one[0] not in ("prefix", "segments") or other[0] not in ("exact", "prefix", "segments"):
        return False
    return other[1].startswith(one[1]) if one[0] == "prefix" else f"{other[1]}/".startswith(f"{one[1].rstrip('/')}/")


def in_turn(groups: Iterable[Iterable[Entry]], matches_all: Callable[[Json], bool]) -> list[Entry]:
    """The matches of several objects as Istio has them in one list: what matches every request is moved to the end, and what stands below it in its own object is left out."""
    early, late, never = list[Entry](), list[Entry](), list[Entry]()
    for entries in groups:
        ended = False
        for entry in entries:
            every = matches_all(entry.match)
            (never if ended else late if every else early).append(entry)
            ended |= every
    return [*early, *late, *never]


def ref_of(resource: Resource, body: Json) -> Ref:
    """The object's address."""
    return Ref(resource, body["metadata"]["namespace"], body["metadata"]["name"])


def common_host(one: str, other: str) -> str:
    """The hosts that both name, as one name: the more specific of the two, or none (empty). Istio compares them to the letter here."""
    if _below(one, other):
        return one
    return other if _below(other, one) else ""


def _below(host: str, wide: str) -> bool:
    """Whether a name or wildcard is within another."""
    return host == wide or (wide.startswith("*") and host.lstrip("*").endswith(wide[1:]) and len(host) >= len(wide))
