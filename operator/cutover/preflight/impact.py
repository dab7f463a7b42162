"""The surroundings of the targets of a plan, for its users: who manages them, what routes to them, what scales and protects their pods.

Read-only, with the permissions of the caller. Called by the command line; what preflight needs too is in `assessment.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cutover.errors import PlanError
from cutover.field_path import Json
from cutover.objects.endpoints import selects
from cutover.objects.gitops import manager_of
from cutover.objects.hosts import service_of
from cutover.objects.quantities import amounts, shown
from cutover.objects.workloads import scalers_of
from cutover.plan.parsing import parse
from cutover.plan.spec import Plan
from cutover.ports import (
    AUTOSCALERS,
    DISRUPTION_BUDGETS,
    LIMIT_RANGES,
    PLANS,
    SERVICES,
    WORKLOADS,
    Ref,
    Resource,
)
from cutover.preflight.assessment import assess, budgets_of, fields, labels_of
from cutover.preflight.look import Look
from cutover.preflight.reader import Reader, permitted, targets
from cutover.preflight.rollouts import RolloutChange, rollout_changes
from cutover.routing.resources import ROUTINGS, destinations


@dataclass(frozen=True, slots=True)
class TargetImpact:
    """One target of a plan and its surroundings, by their names.

    Attributes:
        owner: the tool that keeps it in sync; empty for none.
        fields: the fields that the plan writes, as jq paths.
        routes: routes to it by kind, with the weight that they give.
        plans: other plans that write it, each with its phase.
    """

    target: str
    owner: str = ""
    fields: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    routes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    autoscalers: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    plans: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Capacity:
    """Pods of one workload before and after one step, and the maximum in between."""

    step: str
    workload: str
    before: int
    after: int
    most: int
    each: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Impact:
    """The effect of a plan on everything around its targets."""

    targets: tuple[TargetImpact, ...]
    missing: tuple[str, ...]
    capacity: tuple[Capacity, ...]
    problems: tuple[str, ...]
    risks: Mapping[str, str]


async def impact_of(plan: Plan, name: str, reader: Reader, namespace: str) -> Impact:
    """Read the surroundings of the targets of a plan with this name. Raises Unavailable."""
    async with Look(reader) as look:
        return await _impact_of(plan, name, look.reader, namespace)


async def _impact_of(plan: Plan, name: str, reader: Reader, namespace: str) -> Impact:
    bodies = await targets(plan, reader, namespace)
    found = await assess(plan, reader, namespace)
    kinds = (SERVICES, *ROUTINGS, AUTOSCALERS, DISRUPTION_BUDGETS, PLANS, LIMIT_RANGES)
    listed = dict(
        zip(kinds, await asyncio.gather(*(permitted(reader, kind, namespace) for kind in kinds)), strict=True)
    )
    written = fields(plan, bodies)
    return Impact(
        targets=tuple(
            _impact_on(ref, body, written[ref], listed, _others(ref, name, listed[PLANS]))
            for ref, body in bodies.items()
        ),
        missing=tuple(str(ref) for ref in plan.targets(namespace) if ref not in bodies),
        capacity=tuple(
            _capacity_of(change, listed[LIMIT_RANGES]) for change in rollout_changes(plan, bodies, namespace)
        ),
        problems=tuple(map(str, found.problems)),
        risks={risk.type: risk.message for risk in found.risks},
    )


def _impact_on(
    ref: Ref, body: Json, written: Sequence[str], listed: Mapping[Resource, Sequence[Json]], plans: tuple[str, ...]
) -> TargetImpact:
    services, budgets = list[str](), list[str]()
    if ref.resource in WORKLOADS:
        labels = labels_of(body["spec"])
        services = [
            service["metadata"]["name"]
            for service in listed[SERVICES]
            if service["spec"].get("selector") and selects(service["spec"]["selector"], labels)
        ]
        budgets = [budget["metadata"]["name"] for budget in budgets_of(body["spec"], listed[DISRUPTION_BUDGETS])]
    elif ref.resource in ROUTINGS:
        found = (service_of(destination.host, ref.namespace) for destination, _ in destinations(ref.resource, body))
        services = list(dict.fromkeys(filter(None, found)))
    behind = [ref.name] if ref.resource == SERVICES else services if ref.resource in WORKLOADS else []
    return TargetImpact(
        target=str(ref),
        owner=str(manager_of(body) or ""),
        fields=tuple(written),
        services=tuple(services),
        routes={kind.kind: tuple(_routes_to(behind, kind, listed[kind], ref.namespace)) for kind in ROUTINGS},
        autoscalers=tuple(
            f"{scaler['metadata']['name']} ({scaler['spec'].get('minReplicas', 1)} to {scaler['spec']['maxReplicas']})"
            for scaler in scalers_of(ref, listed[AUTOSCALERS])
        ),
        budgets=tuple(budgets),
        plans=plans,
    )


def _routes_to(services: Sequence[str], resource: Resource, routes: Sequence[Json], namespace: str) -> Iterator[str]:
    for body in routes:
        given = destinations(resource, body)
        weights = [weight for destination, weight in given if service_of(destination.host, namespace) in services]
        if weights:
            yield f"{body['metadata']['name']} (weight {', '.join(map(str, weights))})"


def _others(ref: Ref, name: str, plans: Sequence[Json]) -> tuple[str, ...]:
    """Other plans that write an object; a plan that cannot be read is left out."""
    found = []
    for document in plans:
        called = document["metadata"]["name"]
        if called == name:
            continue
        try:
            other = parse(document["spec"])
        except PlanError:
            continue
        if ref in other.targets(ref.namespace):
            found.append(f"{called} ({(document.get('status') or {}).get('phase', 'not seen yet')})")
    return tuple(found)


def _capacity_of(change: RolloutChange, ranges: Sequence[Json]) -> Capacity:
    pods = change.pods
    most = max(sum(state) for state in (*pods.must_reach, pods.may_reach, (0, pods.now)))
    each = {what: shown(what, amount) for what, amount in sorted(amounts(pods.after, ranges).items()) if what != "pods"}
    return Capacity(change.step, str(change.ref), pods.now, pods.must_reach[-1][0], most, each)


def lines(found: Impact) -> Iterator[str]:
    """Line by line, indented by two spaces per level."""
    for around in found.targets:
        yield f"{around.target}{f', owned by {around.owner}' if around.owner else ''}"
        for head, items in (
            ("writes", around.fields),
            ("Services", around.services),
            *((f"{kind}s", items) for kind, items in around.routes.items()),
            ("HorizontalPodAutoscalers", around.autoscalers),
            ("PodDisruptionBudgets", around.budgets),
            ("other plans", around.plans),
        ):
            if items:
                yield f"  {head}: {', '.join(items)}"
    for target in found.missing:
        yield f"{target}: does not exist"
    if found.capacity:
        yield "capacity"
    for need in found.capacity:
        each = ", ".join(f"{what} {amount}" for what, amount in need.each.items())
        pods = f"{need.before} pods, then {need.after}, at most {need.most} in between"
        yield f"  step {need.step}: {need.workload}: {pods}{f'; each: {each}' if each else ''}"
    for problem in found.problems:
        yield f"would be refused: {problem}"
    for risk, message in found.risks.items():
        first, *rest = message.splitlines()
        yield f"{risk}: {first}"
        yield from (f"  {line}" for line in rest)
