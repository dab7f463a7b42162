"""In which order Istio tries the http routes of VirtualServices. Pure; the table with its sources is in docs/routing.md.

At a gateway the routes of all VirtualServices for one host are tried one after the other: those of the older one first, but what
matches every request after all that does not. In the mesh the first VirtualService of a host has all of its requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from cutover.field_path import Json
from cutover.objects.destination_rules import MESH
from cutover.objects.hosts import full_host
from cutover.ports import VIRTUAL_SERVICES, Ref
from cutover.routing.order import Entry, Place, Surroundings, common_host, every_path, in_turn, ref_of
from cutover.routing.routes import Route
from cutover.routing.virtual_service_matches import delegated

_PUBLIC: Final = "*"
_ENVOYS: Final = ("scheme", "method", "authority", "headers", "withoutHeaders", "queryParams")
"""What Envoy compares beside the path."""
_ISTIOS: Final = ("port", "sourceLabels", "sourceNamespace")
"""What istiod compares, for each proxy: a match that does not fit is not sent to it."""
_ONE: Final = "routes of one VirtualService are tried in their order"
_AGE: Final = "Istio tries the routes of the older VirtualService first, and those that match every request last"
_FIRST: Final = "in the mesh the older VirtualService of a host gets all of its requests"

_At = tuple[str, int, str]
"""A gateway, one of its servers, and a host: there all matches are one list."""
RoutesOf = Callable[[Json], Iterable[Route]]


def places(body: Json, routes_of: RoutesOf, around: Surroundings) -> Iterator[Place]:
    """Each list of matches that has some of an object, or of one that delegates to it."""
    known = {ref_of(VIRTUAL_SERVICES, one): one for one in (*around.routes, body)}
    spread = _Spread(known, routes_of)
    hosted = [one for one in known.values() if one["spec"].get("hosts")]
    listening = [(one, _listens(one, around)) for one in hosted]
    for root in _roots(body, hosted):
        for at in _listens(root, around):
            there = [_Bound(one, at[0], spread) for one, heard in listening if at in heard]
            there.sort(key=lambda one: _age(one.body))
            yield _place(at, root, there, around)


def unreached(body: Json, around: Surroundings) -> Iterator[tuple[str, bool]]:
    """Why requests do not come to it, each with whether it is certain that none does: nothing hands any to it, or no gateway serves its hosts."""
    own, spec = ref_of(VIRTUAL_SERVICES, body), body["spec"]
    roots = _roots(body, [one for one in around.routes if one["spec"].get("hosts")])
    so = "so no request reaches its routes and its weights have no effect"
    if not roots:
        message = f"{own} has no hosts, and no VirtualService delegates to it, {so}"
        yield f"{message}; give it hosts, or let another one delegate to it", around.complete
    elif not any(_listens(root, around) for root in roots):
        whose = own if spec.get("hosts") else f"the VirtualServices that delegate to {own}"
        message = f"no server of the gateways of {whose} serves any of its hosts, {so}"
        yield f"{message}; add such a server, or name another gateway", around.complete
    for name in gateways_of(body):
        if name != MESH and (why := _cut_off(body, name, around)):
            yield why, False


def _cut_off(body: Json, gateway: str, around: Surroundings) -> str:
    """Why no request comes to a VirtualService by a gateway that it names, as far as that is known; empty where some may."""
    own, (whose, _) = ref_of(VIRTUAL_SERVICES, body), _parts(gateway)
    if around.complete and _parts(gateway) not in around.gateways:
        return (
            f"there is no Gateway {gateway}, which {own} names, so no request comes by it; create it, or name another"
        )
    exports = {body["metadata"]["namespace"] if one == "." else one for one in body["spec"].get("exportTo") or ()}
    if _restricted(body) and whose not in exports:
        message = f"{own} is not exported to namespace {whose} (exportTo), so if the pods of Gateway {gateway} are there no request comes by it"
        return f"{message}; add {whose}"
    return ""


def _roots(body: Json, hosted: Iterable[Json]) -> list[Json]:
    """Through which VirtualServices requests come to an object: itself if it has hosts, otherwise those that delegate to it."""
    if body["spec"].get("hosts"):
        return [body]
    own = ref_of(VIRTUAL_SERVICES, body)
    return [one for one in hosted if _delegates_to(one, own)]


class _Bound:
    """A VirtualService at one gateway, with the matches that are sent there."""

    def __init__(self, body: Json, gateway: str, spread: _Spread) -> None:
        self.body, self.ref = body, ref_of(VIRTUAL_SERVICES, body)
        self.sent = [_as_sent(one) for one in spread.of(self.ref) if _sent(one, gateway)]


def _place(at: _At, root: Json, there: list[_Bound], around: Surroundings) -> Place:
    """The list of a root at one host, among all that are bound there, the first one first."""
    mine = next(one for one in there if one.body is root)
    unsure = frozenset(
        entry.owner for one in there if not _certain(one.body, root, at[0], around) for entry in one.sent
    )
    made = _in_mesh if at[0] == MESH else _at_gateway
    return made(at, mine, there, unsure)


def _in_mesh(at: _At, mine: _Bound, there: list[_Bound], unsure: frozenset[Ref]) -> Place:
    first = next(one for one in there if one is mine or _unconditional(one.sent))
    if first is mine:
        return Place(at, at[-1], mine.sent, _ONE)
    whole = Entry(first.sent[0].owner, first.sent[0].route, {}, "")
    return Place(at, at[-1], (whole, *mine.sent), _FIRST, unsure)


def _at_gateway(at: _At, _: _Bound, there: list[_Bound], unsure: frozenset[Ref]) -> Place:
    entries = in_turn((one.sent for one in there), _matches_all)
    return Place(at, at[-1], entries, _AGE if len(there) > 1 else _ONE, unsure)


class _Spread:
    """The matches of each VirtualService with those of its delegates in their places."""

    def __init__(self, known: Mapping[Ref, Json], routes_of: RoutesOf) -> None:
        self._known, self._routes_of = known, routes_of
        self._found: dict[Ref, list[Entry]] = {}

    def of(self, ref: Ref) -> list[Entry]:
        if ref not in self._found:
            self._found[ref] = list(self._entries(ref))
        return self._found[ref]

    def _entries(self, ref: Ref) -> Iterator[Entry]:
        """The matches of each http route; of a route that delegates, those of its delegate."""
        for route in self._routes_of(self._known[ref]):
            if not route.http:
                continue
            if handed := route.body.get("delegate"):
                to = Ref(VIRTUAL_SERVICES, handed.get("namespace") or ref.namespace, handed.get("name", ""))
                yield from self._delegated(_matches(route, ref), to)
            else:
                yield from (_entry(ref, route, match) for match in _matches(route, ref) or [{}])

    def _delegated(self, outer: list[Json], to: Ref) -> Iterator[Entry]:
        """The matches of a delegate in the place of the route that delegates to it; none where it is not known."""
        for below in self._routes_of(self._known[to]) if to in self._known else ():
            yield from (_entry(to, below, both) for both in delegated(outer, _matches(below, to)))


def _entry(owner: Ref, route: Route, match: Json) -> Entry:
    uri = match.get("uri") or {"prefix": "/"}
    how, what = next(iter(uri.items()))
    if match.get("ignoreUriCase") and how != "regex" and not every_path((how, what)):
        how = f"{how} in any case"
    parts = {key: match[key] for key in (*_ENVOYS, *_ISTIOS, "gateways") if match.get(key)}
    names = [*(match.get("headers") or ()), *(match.get("queryParams") or ())]
    shown = " ".join([what, *(f"with {name}" for name in names)])
    return Entry(owner, route, {"path": (how, what), **parts}, shown)


def _matches(route: Route, owner: Ref) -> list[Json]:
    """Those of a route, their gateways with namespaces."""
    return [
        {**one, "gateways": [_gateway(name, owner.namespace) for name in one.get("gateways") or ()]}
        for one in route.body.get("match") or ()
    ]


def _sent(entry: Entry, gateway: str) -> bool:
    """Whether a match applies at this gateway."""
    named = entry.match.get("gateways")
    return not named or gateway in named


def _as_sent(entry: Entry) -> Entry:
    """A match at one of its gateways, where it makes no difference any more which others it names."""
    return replace(entry, match={key: value for key, value in entry.match.items() if key != "gateways"})


def _unconditional(entries: list[Entry]) -> bool:
    return any(not any(entry.match.get(key) for key in _ISTIOS) for entry in entries)


def _matches_all(match: Json) -> bool:
    """As istiod sees it: ``.*`` and ``/`` are moved to the end, other expressions are not."""
    return match["path"] in (("prefix", "/"), ("regex", ".*")) and not any(match.get(key) for key in _ENVOYS)


def _listens(body: Json, around: Surroundings) -> list[_At]:
    """Each host that it has at each server of the gateways that it is bound to."""
    spec, namespace = body["spec"], body["metadata"]["namespace"]
    hosts = [one if one.startswith("*") else full_host(one, namespace) for one in spec.get("hosts") or ()]
    found = dict[_At, None]()
    for gateway in gateways_of(body):
        for server, served in _served(gateway, namespace, around):
            both = (common_host(one, served).lower() for one in hosts)
            found |= dict.fromkeys((gateway, server, one) for one in both if one)
    return list(found)


def gateways_of(body: Json) -> list[str]:
    """The gateways of a VirtualService, each with its namespace, or the mesh."""
    return [_gateway(one, body["metadata"]["namespace"]) for one in body["spec"].get("gateways") or (MESH,)]


def _parts(gateway: str) -> tuple[str, str]:
    own, _, name = gateway.partition("/")
    return own, name


def _gateway(name: str, namespace: str) -> str:
    """With its namespace, which it names before a slash, or, as in former times, after a dot."""
    own, slash, rest = name.partition("/")
    if name == MESH or (slash and own != "."):
        return name
    if slash:
        return f"{namespace}/{rest}"
    alone, *more = name.split(".")
    return f"{more[0] if more else namespace}/{alone}"


def _served(gateway: str, namespace: str, around: Surroundings) -> Iterator[tuple[int, str]]:
    """The hosts that each server of a gateway has for VirtualServices of a namespace; all, where it is not known."""
    own, _ = asked = _parts(gateway)
    known = around.gateways.get(asked)
    if known is None:
        yield 0, _PUBLIC
        return
    for at, server in enumerate(known["spec"].get("servers") or ()):
        for host in server.get("hosts") or ():
            whose, slash, rest = host.partition("/")
            if not slash or whose in (_PUBLIC, namespace) or (whose == "." and own == namespace):
                yield at, rest if slash else host


def _certain(one: Json, root: Json, gateway: str, around: Surroundings) -> bool:
    """Whether each proxy that has the root has this one too: ``exportTo``, and the hosts of the gateway, may keep it away."""
    if one is root:
        return True
    if _restricted(one) or _restricted(root):
        return False
    whose, _ = at = _parts(gateway)
    namespace = root["metadata"]["namespace"]
    # By default all is exported to all, which the mesh config may restrict to the own namespace: then a gateway elsewhere would not have the root.
    # In the mesh a Sidecar may keep those of other namespaces away.
    return one["metadata"]["namespace"] == namespace or (at in around.gateways and whose != namespace)


def _restricted(body: Json) -> bool:
    given = body["spec"].get("exportTo")
    return bool(given) and _PUBLIC not in given


def _age(body: Json) -> tuple[bool, str, str, str]:
    """What is exported to some namespaces only comes first; then the older one."""
    metadata = body["metadata"]
    return not _restricted(body), metadata.get("creationTimestamp", ""), metadata["name"], metadata["namespace"]


def _delegates_to(body: Json, to: Ref) -> bool:
    namespace = body["metadata"]["namespace"]
    return any(
        handed.get("name") == to.name and (handed.get("namespace") or namespace) == to.namespace
        for route in body["spec"].get("http") or ()
        if (handed := route.get("delegate"))
    )
