"""In which order gateways try the rules of HTTPRoutes. Pure; the table with its sources is in docs/routing.md.

Of HTTPRoutes with the same hostname at one listener the most specific match wins, and of two equal ones that of the older route, as
the Gateway API asks. Where hostnames differ, it asks for the more specific one; Istio tries, at a listener whose own
hostname leaves one host to both of them, the older route first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from cutover.field_path import Json
from cutover.ports import HTTP_ROUTES, Ref
from cutover.routing.http_route_matches import matches_of, show_match
from cutover.routing.order import Entry, Place, Surroundings, common_host, in_turn, ref_of
from cutover.routing.routes import Route

_ANY: Final = "*"
_ISTIO: Final = "istio.io/"
"""The beginning of the names of Istio's controllers."""
_RANKS: Final = {"of its own": 4, "exact": 3, "segments": 2, "regex": 1}
_HOW: Final = {"Exact": "exact", "PathPrefix": "segments", "RegularExpression": "regex"}
_SAME: Final = "the most specific match wins, and of two equal ones that of the older HTTPRoute"
_MIXED: Final = "at a listener with a hostname Istio tries the rules of the older HTTPRoute first, regardless of the hostnames that each has"
_ONE: Final = "the most specific match wins, and of two equal ones the first"

RoutesOf = Callable[[Json], Iterable[Route]]


@dataclass(frozen=True, slots=True)
class _Listener:
    """One listener of a parent.

    Attributes:
        parent: kind, namespace and name of the parent.
        name: its name, and `port`; None where the parent is not known: then as a reference names it, or not.
        hostname: all of them where it has none.
    """

    parent: tuple[str, str, str]
    name: str | None
    port: int | None
    hostname: str = _ANY

    def takes(self, reference: Json, namespace: str) -> bool:
        """Whether a reference to a parent means this listener."""
        section, port = reference.get("sectionName"), reference.get("port")
        return (
            _parent(reference, namespace) == self.parent
            and (section is None or self.name is None or section == self.name)
            and (port is None or self.port is None or port == self.port)
        )


def places(body: Json, routes_of: RoutesOf, around: Surroundings) -> Iterator[Place]:
    """Each list of matches that has some of an object."""
    known = {ref_of(HTTP_ROUTES, one): one for one in (*around.routes, body)}
    if not body["spec"].get("parentRefs"):
        yield Place("", _ANY, _sorted([body], routes_of, istio=False), _ONE)
    for listener in _listeners(body, around):
        yield from _places_at(listener, body, known.values(), routes_of)


def _places_at(listener: _Listener, body: Json, known: Iterable[Json], routes_of: RoutesOf) -> Iterator[Place]:
    """Those at one listener, one for each hostname of the object."""
    bound = _bound(known, body, listener)
    istio = _controller(body, listener).startswith(_ISTIO)
    for mine, host in _hosts(body, listener):
        there = [(raw, one) for raw, at, one in bound if (at == host if istio else raw == mine)]
        entries = _in_order(there, listener, routes_of, istio=istio)
        yield Place((listener, host), host, entries, _why(there, mine), _unsure(there, body, listener))


def _bound(known: Iterable[Json], body: Json, listener: _Listener) -> list[tuple[str, str, Json]]:
    """Each hostname at a listener, the host that it leaves there, and its HTTPRoute; of a Service, only those of the object's namespace."""
    namespace = body["metadata"]["namespace"]
    return [
        (raw, host, one)
        for one in known
        if listener.parent[0] != "Service" or one["metadata"]["namespace"] == namespace
        for raw, host in _hosts(one, listener)
    ]


def _why(there: list[tuple[str, Json]], mine: str) -> str:
    """What the order of these HTTPRoutes follows from, as seen from one hostname."""
    if any(raw != mine for raw, _ in there):
        return _MIXED
    return _SAME if len(there) > 1 else _ONE


def _unsure(there: list[tuple[str, Json]], body: Json, listener: _Listener) -> frozenset[Ref]:
    """The other HTTPRoutes of which no gateway says that it serves them there."""
    others = {ref_of(HTTP_ROUTES, one) for _, one in there if one is not body and not _accepted(one, listener)}
    return frozenset(others - {ref_of(HTTP_ROUTES, body)})


def _in_order(there: list[tuple[str, Json]], listener: _Listener, routes_of: RoutesOf, *, istio: bool) -> list[Entry]:
    """The matches of all of them: those of one hostname are sorted together, and stand where the oldest of them does."""
    groups = []
    for _, some in groupby(sorted(there, key=lambda one: (one[0], _age(one[1]))), key=lambda one: one[0]):
        bodies = [one for _, one in some]
        created, namespace, name = _age(bodies[0])
        elsewhere = namespace != listener.parent[1]  # those of the gateway's own namespace come first
        groups.append(((elsewhere, created, name, namespace), _sorted(bodies, routes_of, istio=istio)))
    groups.sort(key=lambda one: one[0])
    return in_turn((entries for _, entries in groups), _matches_all)


def _sorted(bodies: Iterable[Json], routes_of: RoutesOf, *, istio: bool) -> list[Entry]:
    """The matches of HTTPRoutes with one hostname, the most specific first; equal ones stay in the order of age."""
    entries = [
        Entry(ref_of(HTTP_ROUTES, one), route, _comparable(match, istio=istio), show_match(match))
        for one in bodies
        for route in routes_of(one)
        for match in matches_of(route)
    ]
    return sorted(entries, key=lambda one: _rank(one.match), reverse=True)


def _rank(match: Json) -> tuple[int, int, bool, int, int]:
    how, what = match["path"]
    return _RANKS.get(how, 0), len(what), bool(match["method"]), len(match["headers"]), len(match["query"])


def _comparable(match: Json, *, istio: bool) -> Json:
    path = match["path"]
    how, what = _HOW.get(path["type"], path["type"]), path["value"]
    if how == "regex" and not istio:
        how = "of its own"  # the Gateway API leaves its place open, and others try it first: nothing is known to take its requests
    if how == "segments" and what != "/":
        what = what.rstrip("/")
    return {**match, "path": (how, what)}


def _matches_all(match: Json) -> bool:
    return match["path"] in (("segments", "/"), ("regex", ".*")) and not any(
        match[key] for key in ("method", "headers", "query")
    )


def _age(body: Json) -> tuple[str, str, str]:
    metadata = body["metadata"]
    return metadata.get("creationTimestamp", ""), metadata["namespace"], metadata["name"]


def _listeners(body: Json, around: Surroundings) -> list[_Listener]:
    """The listeners that it is attached to, or may be."""
    namespace, found = body["metadata"]["namespace"], dict[_Listener, None]()
    for reference in body["spec"].get("parentRefs") or ():
        parent = _parent(reference, namespace)
        gateway = around.gateways.get(parent[1:]) if parent[0] == "Gateway" else None
        if gateway is None:
            found[_Listener(parent, reference.get("sectionName"), reference.get("port"))] = None
            continue
        for one in gateway["spec"].get("listeners") or ():
            listener = _Listener(parent, one["name"], one["port"], one.get("hostname") or _ANY)
            if listener.takes(reference, namespace):
                found[listener] = None
    return list(found)


def _hosts(body: Json, listener: _Listener) -> list[tuple[str, str]]:
    """Each hostname that it has, with the host that this leaves it at a listener; none where it is not attached there."""
    spec, namespace = body["spec"], body["metadata"]["namespace"]
    if not any(listener.takes(one, namespace) for one in spec.get("parentRefs") or ()):
        return []
    raw = [one.lower() for one in spec.get("hostnames") or (_ANY,)]
    return [(one, both) for one in raw if (both := common_host(one, listener.hostname))]


def _parent(reference: Json, namespace: str) -> tuple[str, str, str]:
    return reference.get("kind", "Gateway"), reference.get("namespace", namespace), reference["name"]


def _reports(body: Json, listener: _Listener) -> Iterator[Json]:
    namespace = body["metadata"]["namespace"]
    for one in (body.get("status") or {}).get("parents") or ():
        if listener.takes(one.get("parentRef") or {"name": ""}, namespace):
            yield one


def _controller(body: Json, listener: _Listener) -> str:
    return next((one.get("controllerName", "") for one in _reports(body, listener)), "")


def _accepted(body: Json, listener: _Listener) -> bool:
    """Whether a gateway says that it serves it there; without a word it is not certain."""
    said = [
        condition["status"] == "True"
        for one in _reports(body, listener)
        for condition in one.get("conditions") or ()
        if condition["type"] == "Accepted"
    ]
    return bool(said) and all(said)
