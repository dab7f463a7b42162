"""The labels of a subset, by the DestinationRules of the cluster. Read-only. Used by `endpoints.py` and by the `traffic` kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cutover.field_path import Json
from cutover.objects.destination_rules import Client, DestinationRules
from cutover.objects.hosts import full_host
from cutover.ports import DESTINATION_RULES, Cluster


@dataclass(frozen=True, slots=True)
class KnownRules:
    """All DestinationRules that the operator sees.

    Attributes:
        bodies: the rules.
        all: those of other namespaces are among them.
        read: those of other namespaces could be read, as far as they are to be seen.
    """

    bodies: Sequence[Json]
    all: bool
    read: bool = True

    def of(self, host: str, namespace: str) -> DestinationRules:
        """Those that may count for a host of a Service of the namespace."""
        return DestinationRules(self.bodies, full_host(host, namespace), namespace)


async def known_rules(cluster: Cluster, namespace: str, *, fresh: bool = True) -> KnownRules:
    """The rules of a namespace, as they are now where they must be `fresh`, and those of the others, of which a stream may be behind."""
    own = await cluster.list(DESTINATION_RULES, namespace, fresh=fresh)
    found = await cluster.outlines(DESTINATION_RULES, namespace, wait=True)
    others = [body for body in found.bodies if body["metadata"]["namespace"] != namespace]
    return KnownRules([*own, *others], all=found.complete, read=bool(found.number))


async def subset_labels(cluster: Cluster, namespace: str, host: str, subset: str) -> Mapping[str, str] | str:
    """The labels of a subset for the clients that are nearest, or a message that says what is missing."""
    own = DestinationRules(await cluster.list(DESTINATION_RULES, namespace), full_host(host, namespace), namespace)
    nearest = own.counting(Client(namespace))
    if nearest and (labels := nearest.labels(subset)) is not None:
        return labels
    return labels_in(await known_rules(cluster, namespace), namespace, host, subset)


def labels_in(known: KnownRules, namespace: str, host: str, subset: str) -> Mapping[str, str] | str:
    """The same by rules that are known already."""
    rules = known.of(host, namespace)
    for client in rules.clients():
        if (rule := rules.counting(client)) and (labels := rule.labels(subset)) is not None:
            return labels
    return f"subset {subset} of host {host} {_why_not(rules, subset, namespace, known)}"


def _why_not(rules: DestinationRules, subset: str, namespace: str, known: KnownRules) -> str:
    """Only rules of the namespace itself are named: who reads the message may know no others."""
    taker = rules.counting(Client(namespace))
    if taker and (lost := next((str(one) for one in rules.defining(subset) if one.namespace == namespace), None)):
        whose = str(taker) if taker.namespace == namespace else "a rule of another namespace"
        return f"is in {lost}, but {whose} counts for it and does not define it; define it there"
    unseen = "" if known.all else ", and the operator sees those of no other namespace"
    return f"is in no DestinationRule of namespace {namespace}{unseen}; define it"
