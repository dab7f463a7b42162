"""What DestinationRules make of the destinations of a route, where that is not what users may expect. Pure; told before the first step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from cutover.field_path import Json
from cutover.objects.destination_rules import MESH, ROOT, Client, DestinationRules, Rule, hashed_by
from cutover.objects.hosts import other_domain, service_of
from cutover.routing import virtual_service_order
from cutover.routing.routes import WHOLE, Pair, Route, WeightedDestination

_MOST: Final = 3
"""Clients of which it is told that they lack a subset: the way out is the same for all."""


@dataclass(frozen=True, slots=True)
class Told:
    """One sentence.

    Attributes:
        text: with `{rule}` and `{client}` where these are named.
        rule: the rule, if it is about one.
        client: whom it is about.
        wrong: requests would certainly fail, so the plan does not begin.
    """

    text: str
    rule: Rule | None = None
    client: Client | None = None
    wrong: bool = False


RulesOf = Callable[[str], DestinationRules]
"""The rules that may count for a host."""


def gateways_of(body: Json) -> list[str]:
    """The gateways of a VirtualService or an HTTPRoute, each with its namespace, or the mesh."""
    parents = body["spec"].get("parentRefs")
    if parents is None:
        return virtual_service_order.gateways_of(body)
    own = body["metadata"]["namespace"]
    found = (
        MESH if one.get("kind", "Gateway") == "Service" else f"{one.get('namespace', own)}/{one['name']}"
        for one in parents
    )
    return list(dict.fromkeys(found))


def told(body: Json, pairs: Sequence[Pair], last: int, rules_of: RulesOf) -> Iterator[Told]:
    """All that is told of the routes of these pairs.

    Args:
        body: the VirtualService or the HTTPRoute.
        pairs: what the step shifts.
        last: the last weight of the step.
        rules_of: the rules that may count for a host.
    """
    namespace, gateways = body["metadata"]["namespace"], gateways_of(body)
    for pair in pairs:
        moved = (pair.old, pair.new)
        for one in pair.route.destinations:
            if not service_of(one.host, namespace) or not (one.weight or one in moved):
                continue
            if domain := other_domain(one.host):
                yield Told(
                    f"host {one.host} of route {pair.route} is of cluster domain {domain}: requests reach it only where that is the "
                    "domain of the mesh (--domain of istiod), and fail everywhere else; a name without a dot is right in any domain"
                )
            if one.subset:
                yield from _of_subset(pair.route, one, rules_of(one.host), gateways, moves=one in moved)
        yield from _sticky(pair, last, rules_of, gateways)


def _of_subset(
    route: Route, one: WeightedDestination, rules: DestinationRules, gateways: Sequence[str], *, moves: bool
) -> Iterator[Told]:
    """What is told of the subset of a destination: that no client knows it, or which clients know it in another way."""
    what, subset = f"subset {one.subset} of host {one.host}", one.subset or ""
    seen = [(client, rules.counting(client)) for client in rules.clients(gateways)]
    having = [(client, rule, labels) for client, rule in seen if rule and (labels := rule.labels(subset)) is not None]
    if not having:
        taker = next((rule for _, rule in seen if rule), None)
        yield from _undefined(f"{what} of route {route}", taker, next(rules.defining(subset), None), moves=moves)
        return
    nearest, deciding, labels = having[0]
    if deciding.namespace == ROOT and nearest.namespace != ROOT:
        yield Told(
            f"{what} is defined by {{rule}}, which counts for all namespaces only where {ROOT} is the root namespace of the mesh "
            "(rootNamespace of its config); elsewhere its requests fail",
            deciding,
        )
    yield from islice(_other_clients(what, subset, seen, dict(labels)), _MOST)


def _undefined(what: str, taker: Rule | None, elsewhere: Rule | None, *, moves: bool) -> Iterator[Told]:
    """That no rule which counts defines a subset; `taker` counts for its host, `elsewhere` defines it and does not count."""
    if moves and elsewhere is None:
        return  # refused where the sides are looked up
    why = "and {rule} counts for that host" if taker else "asked by any client"
    message = f"no DestinationRule that counts defines {what}, {why}: its requests fail; define it"
    if elsewhere and elsewhere.namespace != ROOT and elsewhere.exported_to(""):
        message += f", unless the root namespace of the mesh is not {ROOT}"
        moves = False
    yield Told(message, taker, wrong=moves)


def _other_clients(what: str, subset: str, seen: Sequence[tuple[Client, Rule | None]], labels: Json) -> Iterator[Told]:
    for client, rule in seen:
        found = rule.labels(subset) if rule else None
        if found is None:
            whose = "{rule} counts for them" if rule else "no DestinationRule counts for them"
            yield Told(f"{{client}} know no {what} ({whose}): their requests to it fail; define it there", rule, client)
        elif found != labels:
            yield Told(
                f"for {{client}} {{rule}} counts, and by it {what} is of other pods, which are not counted; make the labels the same",
                rule,
                client,
            )


def _sticky(pair: Pair, last: int, rules_of: RulesOf, gateways: Sequence[str]) -> Iterator[Told]:
    """Istio gives Envoy one hash policy for each destination with weight, and Envoy joins them: one more is another hash."""
    if not pair.route.http:
        return
    found = list[tuple[Rule, str]]()
    for one in (pair.old, pair.new):
        rules = rules_of(one.host)
        counting = filter(None, map(rules.counting, rules.clients(gateways)))
        found += islice(((rule, by) for rule in counting if (by := hashed_by(rule, one.subset, one.port))), 1)
    moments = [
        *(["the first weight"] if not pair.new.weight else ()),
        *([f"weight {last}"] if last == WHOLE else ()),
    ]
    if len(found) == len((pair.old, pair.new)) and moments:
        rule, by = found[0]
        yield Told(
            f"{{rule}} keeps users on their pods by {by}, and Istio hashes in another way as soon as another destination of route {pair.route} has "
            f"weight or none: at {' and at '.join(moments)}, and when they go back, most users who stay on their version come to another pod "
            "of it; keep what pods remember of users where all pods find it, or remove consistentHash before",
            rule,
        )
