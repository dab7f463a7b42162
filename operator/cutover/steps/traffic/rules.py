"""What the DestinationRules of the cluster make of a shift, told before the first step. Read-only; used by `preconditions.py`."""

from __future__ import annotations

from collections.abc import Sequence

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.objects.destination_rules import Rule
from cutover.objects.subsets import known_rules
from cutover.ports import DESTINATION_RULES, Ref
from cutover.routing.routes import Pair
from cutover.routing.rule_warnings import Told, told
from cutover.steps.kind import StepContext
from cutover.steps.shared.preconditions import may_name
from cutover.steps.traffic.spec import TrafficSpec

_UNSEEN = "the operator watches some namespaces only, so DestinationRules of the root namespace, and those of clients in others, are not seen"
_UNREAD = "the operator could not list DestinationRules of all namespaces, so it is not known which of them count for the clients of this plan's hosts"


async def problems(step: TrafficSpec, context: StepContext, body: Json, found: Sequence[Pair]) -> list[Problem]:
    """All that is told; an error where requests would certainly fail."""
    place, namespace = f"{context.place}.traffic", context.namespace
    # What a step goes by, the subsets of its own sides, is read afresh; of the rest those of other namespaces may be behind too.
    known = await known_rules(context.cluster, namespace, fresh=False)
    sentences = told(body, found, step.weights[-1], lambda host: known.of(host, namespace))
    said = [Problem(place, await _say(context, one), warning=not one.wrong) for one in sentences]
    unseen = (
        [Problem("", _UNSEEN if known.read else _UNREAD, warning=True)]
        if any(side.subset for side in step.ends)
        else []
    )
    return said if known.all else said + unseen


async def _say(context: StepContext, one: Told) -> str:
    rule = one.rule
    named = rule is None or await may_name(
        context, *(Ref(DESTINATION_RULES, rule.namespace, name) for name in rule.names)
    )
    client = one.client
    if client and client.namespace not in ("", context.namespace) and not (rule and named):
        whose = "clients of another namespace"
    else:
        whose = str(client)
    return one.text.replace("{rule}", _named(context, rule, named=named)).replace("{client}", whose)


def _named(context: StepContext, rule: Rule | None, *, named: bool) -> str:
    if rule is None or not named:
        return "a DestinationRule of another namespace"
    return str(rule) if rule.namespace == context.namespace else f"{rule} of namespace {rule.namespace}"
