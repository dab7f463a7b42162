"""What a plan means for what else is there: who else writes its targets, whether its pods are let in, who stands around them.

Reads only. `preflight.py` and `engine/commands.py` ask for it before the first step, `context.py` for people. What the
asking account may not list is not said, and fails nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutover.errors import Denied, NotFound, Problem
from cutover.field_path import Json
from cutover.objects.config_maps import WAY_OUT, Reference, references
from cutover.objects.endpoints import selects
from cutover.objects.gitops import Manager, Tool, drifts, way_out
from cutover.objects.quotas import Room, meets
from cutover.objects.workloads import scalers_of
from cutover.plan.plan import Plan
from cutover.ports import AUTOSCALERS, CONFIG_MAPS, DISRUPTION_BUDGETS, LIMIT_RANGES, RESOURCE_QUOTAS, Ref
from cutover.preflight.reader import Reader, permitted, targets
from cutover.preflight.rollouts import UNREADABLE, Rolling, rollings
from cutover.status.status import RISKS, Risk

_DRIFT, _CAPACITY = RISKS


@dataclass(frozen=True, slots=True)
class Weighed:
    """What was found: what stops the plan, and what people should know."""

    problems: tuple[Problem, ...] = ()
    risks: tuple[Risk, ...] = ()


async def weigh(plan: Plan, reader: Reader, namespace: str) -> Weighed:
    """Whether the pods of a plan would be let in, and what may go wrong without stopping it."""
    bodies = await targets(plan, reader, namespace)
    rollouts = list(rollings(plan, bodies, namespace))
    if not rollouts:
        return Weighed(risks=tuple(_drift(plan, bodies)))
    quotas, ranges, budgets, scalers = await asyncio.gather(
        *(
            permitted(reader, kind, namespace)
            for kind in (RESOURCE_QUOTAS, LIMIT_RANGES, DISRUPTION_BUDGETS, AUTOSCALERS)
        )
    )
    problems, warnings = list[Problem](), list[str]()
    room = Room(quotas, ranges)
    for rolling in rollouts:
        try:
            found = room.refuses(rolling.pods)
            slower = [] if found else [*_slower(rolling, room), *_scaled(rolling, room, scalers)]
            slower += _disrupted(rolling, budgets)
            room.take(rolling.pods)
        except UNREADABLE:  # a value that only the server can judge must not keep the plan from saying the rest
            continue
        problems += [Problem(rolling.place, f"pods of {rolling.ref} would be refused: {says}") for says in found]
        warnings += slower
    problems += await _unfed(plan, rollouts, reader)
    risks = [*_drift(plan, bodies)]
    if warnings:
        risks.append(Risk(_CAPACITY, "RolloutHindered", "; ".join(dict.fromkeys(warnings))))
    return Weighed(tuple(problems), tuple(risks))


async def _unfed(plan: Plan, rollouts: Sequence[Rolling], reader: Reader) -> list[Problem]:
    """ConfigMaps that a later step of a workload makes its pods read, and that are not there.

    Of its first step the kind `deploy` tells that by what the server's dry run says.
    """
    problems, names = list[Problem](), [step.name for step in plan.steps]
    for rolling in rollouts:
        at, namespace = names.index(rolling.step), rolling.ref.namespace
        earlier = {target.ref(namespace) for step in plan.steps[:at] for target in step.kind.touches()}
        if rolling.ref in earlier:
            problems += await _unfed_by(rolling, earlier, reader)
    return problems


async def _unfed_by(rolling: Rolling, earlier: Container[Ref], reader: Reader) -> list[Problem]:
    """Of one step; what an earlier step writes may come yet."""
    problems = []
    for need in _new_needs(rolling):
        ref = Ref(CONFIG_MAPS, rolling.ref.namespace, need.name)
        if ref not in earlier and (says := await _lacks(need, ref, reader)):
            problems.append(Problem(rolling.place, f"{says}, {WAY_OUT}"))
    return problems


async def _lacks(need: Reference, ref: Ref, reader: Reader) -> str:
    try:
        return need.lacks(await reader.get(ref))
    except NotFound:
        return need.lacks(None)
    except Denied:
        return ""


def _new_needs(rolling: Rolling) -> list[Reference]:
    """What pods read after a step and did not before."""
    if rolling.after.get("replicas") == 0:
        return []
    try:
        had, has = (list(references(spec["template"]["spec"])) for spec in (rolling.before, rolling.after))
    except UNREADABLE:
        return []
    return [one for one in has if one not in had]


# --- who else writes ----------------------------------------------------------------------------------------------------


def fields(plan: Plan, bodies: Mapping[Ref, Json]) -> dict[Ref, list[str]]:
    """Of every target the fields that the plan writes, as jq paths."""
    found: dict[Ref, list[str]] = {}
    known = {(ref.resource, ref.name): ref for ref in bodies}
    for step in plan.steps:
        for target in step.kind.touches():
            if ref := known.get((target.resource, target.name)):
                found.setdefault(ref, []).extend(step.kind.fields(target, bodies[ref]))
    return {ref: list(dict.fromkeys(paths)) for ref, paths in found.items()}


def _drift(plan: Plan, bodies: Mapping[Ref, Json]) -> Iterator[Risk]:
    written = fields(plan, bodies)
    owned: dict[Manager, dict[Ref, list[str]]] = {}
    for ref, body in bodies.items():
        if owner := drifts(body):
            owned.setdefault(owner, {})[ref] = written[ref]
    if not owned:
        return
    tools = {owner.tool for owner in owned}
    reason = (
        {Tool.ARGO_CD: "OwnedByArgoCD", Tool.FLUX: "OwnedByFlux"}[tools.pop()] if len(tools) == 1 else "OwnedBySeveral"
    )
    yield Risk(_DRIFT, reason, "\n".join(way_out(owner, refs) for owner, refs in owned.items()))


# --- whether pods are let in --------------------------------------------------------------------------------------------


def _slower(rolling: Rolling, room: Room) -> Iterator[str]:
    for says in room.delays(rolling.pods, rolling.pods.wishes):
        yield f"not all pods of maxSurge of {rolling.ref} are let in, so its rollout takes longer: {says}"


def _scaled(rolling: Rolling, room: Room, scalers: Sequence[Json]) -> Iterator[str]:
    for scaler in scalers_of(rolling.ref, scalers):
        most = scaler["spec"]["maxReplicas"]
        for says in room.delays(rolling.pods, (most, 0)):
            name = scaler["metadata"]["name"]
            yield f"HorizontalPodAutoscaler {name} may ask for {most} pods of {rolling.ref}, and they would be refused: {says}"


def _disrupted(rolling: Rolling, budgets: Sequence[Json]) -> Iterator[str]:
    if rolling.before["template"] == rolling.after["template"]:
        return
    for budget in budgets_of(rolling.before, budgets):
        name, status = budget["metadata"]["name"], budget.get("status") or {}
        desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        if rolling.pods.now and rolling.least < desired <= healthy:
            yield (
                f"PodDisruptionBudget {name} wants {desired} healthy pods, and the rollout of {rolling.ref} may leave "
                f"{rolling.least}: rollouts do not heed it; set its maxUnavailable lower"
            )
        elif status.get("expectedPods") and not status.get("disruptionsAllowed", 0):
            yield (
                f"PodDisruptionBudget {name} lets no pod of {rolling.ref} be evicted now ({healthy} healthy, {desired} wanted), "
                "so a node that is drained meanwhile waits"
            )


def budgets_of(spec: Json, budgets: Sequence[Json]) -> list[Json]:
    """PodDisruptionBudgets that count the pods of a workload's spec."""
    labels = labels_of(spec)
    return [budget for budget in budgets if _selected(budget["spec"].get("selector"), labels)]


def labels_of(spec: Json) -> Mapping[str, str]:
    """Labels of the pods of a workload's spec."""
    labels: Mapping[str, str] = (spec["template"].get("metadata") or {}).get("labels") or {}
    return labels


def _selected(selector: Any, labels: Mapping[str, str]) -> bool:
    """As policy/v1 reads it: an empty selector selects all pods, a missing one none."""
    return selector is not None and (
        selects(selector.get("matchLabels") or {}, labels)
        and all(meets(rule, labels.get(rule["key"])) for rule in selector.get("matchExpressions") or ())
    )
