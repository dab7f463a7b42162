"""Which DestinationRule counts for a host, and for whom: Istio's order, told from the rules alone. Pure.

Istio gives no answer to this by its API, so its order is told again here. `docs/routing.md` has it as a table with sources, and
`tests/cluster/test_destination_rules.py` asks istiod for each row of it. Used by `endpoints.py` and by the `traffic` kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cutover.field_path import Json
from cutover.objects.hosts import full_host

ROOT: Final = "istio-system"
"""The namespace whose rules count for all clients. A mesh may name another one (`rootNamespace`), which its objects do not tell."""
MESH: Final = "mesh"
"""What a VirtualService calls the sidecars, among its gateways."""
_ALL, _OWN = "*", "."


@dataclass(frozen=True, slots=True)
class Client:
    """Proxies that look a host up: sidecars, or those of a gateway.

    Attributes:
        namespace: theirs; empty: any that has no rules of its own for the host.
        labels: theirs, as far as the selector of a rule asks for them.
    """

    namespace: str
    labels: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """As messages name them."""
        if not self.namespace:
            return "clients of other namespaces"
        having = " and ".join(f"{key}={value}" for key, value in sorted(self.labels.items()))
        return f"clients of namespace {self.namespace}{f' with label {having}' if having else ''}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A DestinationRule, or several of one namespace that Istio has merged into one.

    Attributes:
        namespace: theirs.
        names: theirs, the one that counts first before the others.
        host: full.
        exports: the namespaces that they are exported to; empty: those of the mesh config.
        selector: labels of the clients that they are for; None: all.
        subsets: by name.
        policy: the traffic policy of all subsets.
    """

    namespace: str
    names: tuple[str, ...]
    host: str
    exports: frozenset[str]
    selector: Mapping[str, str] | None
    subsets: Mapping[str, Json]
    policy: Json

    def __str__(self) -> str:
        """As messages name them."""
        return f"DestinationRule {' and '.join(self.names)}"

    def labels(self, subset: str) -> Mapping[str, str] | None:
        """The labels of a subset; None when it is not defined."""
        return None if (found := self.subsets.get(subset)) is None else found.get("labels") or {}

    def exported_to(self, client: str) -> bool:
        """Whether clients of another namespace get it."""
        return not self.exports or _ALL in self.exports or client in self.exports


_ByHost = dict[str, list[Rule]]


class DestinationRules:
    """The rules that may count for one host.

    Args:
        bodies: all DestinationRules that are known, of any namespace.
        host: in full.
        namespace: of its Service.
        root: the root namespace of the mesh.
    """

    def __init__(self, bodies: Iterable[Json], host: str, namespace: str, root: str = ROOT) -> None:
        self._namespace, self._root = namespace, root
        # Its definition asks for a host, but not for a spec.
        told = (body for body in bodies if (body.get("spec") or {}).get("host"))
        matching = (rule for _, rule in sorted(map(_read, told), key=lambda one: one[0]) if _matches(rule.host, host))
        self._local: dict[str, _ByHost] = {}
        self._exported: dict[str, _ByHost] = {}
        self._of_root: _ByHost = {}
        for rule in matching:
            self._add(rule)

    def _add(self, rule: Rule) -> None:
        place = rule.namespace
        private = len(rule.exports) == 1 and rule.exports <= {_OWN, place}
        if not rule.exports or rule.exports & {_ALL, _OWN, place}:
            _merge(self._local.setdefault(place, {}), rule)
        if not private:
            _merge(self._exported.setdefault(place, {}), rule)
        elif place == self._root:
            _merge(self._of_root, rule)

    def counting(self, client: Client) -> Rule | None:
        """The rule that counts for a client; None when there is none."""
        own = self._of_root if client.namespace == self._root else self._local.get(client.namespace, {})
        found = _most_specific(own)
        for place in (self._namespace, self._root):
            found = found or [rule for rule in _of(self._exported, place) if rule.exported_to(client.namespace)]
        return _selected(found, client)

    def clients(self, gateways: Iterable[str] = ()) -> Iterator[Client]:
        """Those among whom the rules differ.

        Args:
            gateways: ``mesh``, or each with its namespace. The proxies of a gateway may also be in another
                namespace than it, which only their pods tell.
        """
        names = [*gateways] or [MESH]
        elsewhere = {name.partition("/")[0] for name in names if name != MESH}
        if MESH in names or self._namespace in elsewhere:
            yield Client(self._namespace)
            for rule in _most_specific(self._local.get(self._namespace, {})):
                if rule.selector:
                    yield Client(self._namespace, rule.selector)
        yield Client("")
        exported = {one for rule in _of(self._exported, self._namespace) for one in rule.exports}
        apart = {*self._local, *exported, *([self._root] if self._of_root else ())} - {_ALL, _OWN, self._namespace}
        yield from (Client(place) for place in sorted(apart) if MESH in names or place in elsewhere)

    def defining(self, subset: str) -> Iterator[Rule]:
        """All that define a subset, whether they count or not."""
        for by_host in (*self._local.values(), *self._exported.values(), self._of_root):
            yield from (rule for rules in by_host.values() for rule in rules if subset in rule.subsets)


def _of(exported: Mapping[str, _ByHost], namespace: str) -> list[Rule]:
    return _most_specific(exported.get(namespace, {}))


def _most_specific(by_host: _ByHost) -> list[Rule]:
    """Those of the host itself before those of a wildcard, and of wildcards the longest: all that are here match."""
    if not by_host:
        return []
    return by_host[max(by_host, key=lambda host: (not host.startswith(_ALL), len(host)))]


def _selected(rules: Iterable[Rule], client: Client) -> Rule | None:
    """The first whose selector asks for labels of the client; else the last that has none."""
    found = None
    for rule in rules:
        if rule.selector is None:
            found = rule
        elif rule.namespace == client.namespace and rule.selector.items() <= client.labels.items():
            return rule
    return found


def _merge(by_host: _ByHost, rule: Rule) -> None:
    """Rules of one host and namespace become one where all that they are exported to is the same, or more for the newer one."""
    known, apart = by_host.setdefault(rule.host, []), True
    for at, older in enumerate(known):
        if older.exports != rule.exports and not (older.exports and rule.exports >= older.exports):
            apart = True
            continue
        if older.selector is not None and rule.selector is not None and older.selector != rule.selector:
            apart = True
            continue
        apart = older.exports != rule.exports and (older.selector is None) != (rule.selector is None)
        known[at] = replace(
            older,
            names=(*older.names, *rule.names),
            subsets={**rule.subsets, **older.subsets},
            policy=older.policy if older.policy is not None else rule.policy,
        )
    if apart:
        known.append(rule)


def _matches(pattern: str, host: str) -> bool:
    return host.endswith(pattern[1:]) if pattern.startswith(_ALL) else pattern == host


def _read(body: Json) -> tuple[tuple[bool, str, str, str], Rule]:
    """A rule, and its place in the order: those with a selector first, then the older, then by name."""
    metadata, spec = body["metadata"], body["spec"]
    namespace, name = metadata["namespace"], metadata["name"]
    selector = (spec.get("workloadSelector") or {}).get("matchLabels") if "workloadSelector" in spec else None
    subsets = dict[str, Json]()
    for subset in spec.get("subsets") or ():
        subsets.setdefault(subset["name"], subset)
    exports = frozenset(spec.get("exportTo") or ()) if selector is None else frozenset({_OWN})
    rule = Rule(
        namespace,
        (name,),
        full_host(spec["host"], namespace),
        exports,
        selector,
        subsets,
        spec.get("trafficPolicy"),
    )
    return (selector is None, metadata.get("creationTimestamp", ""), name, namespace), rule


def hashed_by(rule: Rule, subset: str | None, port: int | None) -> str:
    """The field of a rule by which Istio chooses the pod for a user (consistentHash); empty where there is none."""
    own = rule.subsets.get(subset or "") or {}
    places = ((f"subsets[{subset}].trafficPolicy", own.get("trafficPolicy")), ("trafficPolicy", rule.policy))
    for place, policy in places:
        of_ports = (policy or {}).get("portLevelSettings") or ()
        named = [one for one in of_ports if port is not None and (one.get("port") or {}).get("number") == port]
        for where, settings in (*((f"{place}.portLevelSettings", one) for one in named), (place, policy or {})):
            if (settings.get("loadBalancer") or {}).get("consistentHash"):
                return f"spec.{where}.loadBalancer.consistentHash"
    return ""
