"""The effect of a plan on its surroundings: who else writes its targets, and whether its pods would be admitted.

Read-only. Called by `preflight.py` before the first step and by `impact.py` for users. What the
account in use may not list is left out, and is not an error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cutover.errors import Denied, NotFound, Problem
from cutover.field_path import Json
from cutover.objects.config_maps import CREATE_FIRST, Reference, references
from cutover.objects.endpoints import selects
from cutover.objects.gitops import Manager, Tool, drifts, way_out
from cutover.objects.quotas import Room, meets
from cutover.objects.volumes import lost_volumes
from cutover.objects.workloads import scalers_of
from cutover.plan.spec import Plan
from cutover.ports import AUTOSCALERS, CONFIG_MAPS, DISRUPTION_BUDGETS, LIMIT_RANGES, RESOURCE_QUOTAS, Ref
from cutover.preflight.reader import Reader, permitted, targets
from cutover.preflight.rollouts import UNREADABLE, RolloutChange, rollout_changes
from cutover.status.status import RISKS, Risk
from cutover.steps.parts import WritesFields

_DRIFT, _CAPACITY = RISKS


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found: problems that stop the plan, and risks that users should know."""

    problems: tuple[Problem, ...] = ()
    risks: tuple[Risk, ...] = ()


async def assess(plan: Plan, reader: Reader, namespace: str) -> Assessment:
    """Whether the pods of a plan would be admitted, and risks that do not stop it."""
    bodies = await targets(plan, reader, namespace)
    rollouts = list(rollout_changes(plan, bodies, namespace))
    if not rollouts:
        return Assessment(risks=tuple(_drift(plan, bodies)))
    quotas, ranges, budgets, scalers = await asyncio.gather(
        *(
            permitted(reader, kind, namespace)
            for kind in (RESOURCE_QUOTAS, LIMIT_RANGES, DISRUPTION_BUDGETS, AUTOSCALERS)
        )
    )
    problems, warnings = list[Problem](), list[str]()
    room = Room(quotas, ranges)
    for change in rollouts:
        try:
            found = room.refuses(change.pods)
            slower = [] if found else [*_slower(change, room), *_scaled(change, room, scalers)]
            slower += _disrupted(change, budgets)
            room.take(change.pods)
        except UNREADABLE:  # a value that only the server understands must not hide the other results
            continue
        problems += [Problem(change.place, f"pods of {change.ref} would be refused: {message}") for message in found]
        final = plan.step(change.step).irreversible
        problems += lost_volumes(change.ref, change.place, change.before, change.after, irreversible=final)
        warnings += slower
    problems += await _missing_config_maps(plan, rollouts, reader)
    risks = [*_drift(plan, bodies)]
    if warnings:
        risks.append(Risk(_CAPACITY, "RolloutHindered", "; ".join(dict.fromkeys(warnings))))
    return Assessment(tuple(problems), tuple(risks))


async def _missing_config_maps(plan: Plan, rollouts: Sequence[RolloutChange], reader: Reader) -> list[Problem]:
    """ConfigMaps that pods read after a later step of their workload, and that do not exist.

    For its first step the kind `deploy` checks that by a dry run of the server.
    """
    problems, names = list[Problem](), [step.name for step in plan.steps]
    for change in rollouts:
        at, namespace = names.index(change.step), change.ref.namespace
        earlier = {target.ref(namespace) for step in plan.steps[:at] for target in step.kind.touches()}
        if change.ref in earlier:
            problems += await _missing_to(change, earlier, reader)
    return problems


async def _missing_to(change: RolloutChange, earlier: Container[Ref], reader: Reader) -> list[Problem]:
    """For one step; an earlier step may still create its own targets."""
    problems = []
    for need in _new_needs(change):
        ref = Ref(CONFIG_MAPS, change.ref.namespace, need.name)
        if ref not in earlier and (message := await _lacks(need, ref, reader)):
            problems.append(Problem(change.place, f"{message}, {CREATE_FIRST}"))
    return problems


async def _lacks(need: Reference, ref: Ref, reader: Reader) -> str:
    try:
        return need.lacks(await reader.get(ref))
    except NotFound:
        return need.lacks(None)
    except Denied:
        return ""


def _new_needs(change: RolloutChange) -> list[Reference]:
    """What pods read after a step and did not read before."""
    if change.after.get("replicas") == 0:
        return []
    try:
        had, has = (list(references(spec["template"]["spec"])) for spec in (change.before, change.after))
    except UNREADABLE:
        return []
    return [one for one in has if one not in had]


# --- who else writes ----------------------------------------------------------------------------------------------------


def fields(plan: Plan, bodies: Mapping[Ref, Json]) -> dict[Ref, list[str]]:
    """For every target the fields that the plan writes, as jq paths."""
    found: dict[Ref, list[str]] = {}
    known = {(ref.resource, ref.name): ref for ref in bodies}
    for step in plan.steps:
        for target in step.kind.touches():
            if ref := known.get((target.resource, target.name)):
                fields = step.kind.fields(target, bodies[ref]) if isinstance(step.kind, WritesFields) else []
                found.setdefault(ref, []).extend(fields)
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


def _slower(change: RolloutChange, room: Room) -> Iterator[str]:
    for message in room.delays(change.pods, change.pods.may_reach):
        yield f"not all surge pods of {change.ref} would be admitted, so its rollout takes longer: {message}"


def _scaled(change: RolloutChange, room: Room, scalers: Sequence[Json]) -> Iterator[str]:
    for scaler in scalers_of(change.ref, scalers):
        most = scaler["spec"]["maxReplicas"]
        for message in room.delays(change.pods, (most, 0)):
            name = scaler["metadata"]["name"]
            yield f"HorizontalPodAutoscaler {name} may request {most} pods of {change.ref}, and they would be refused: {message}"


def _disrupted(change: RolloutChange, budgets: Sequence[Json]) -> Iterator[str]:
    if change.before["template"] == change.after["template"]:
        return
    for budget in budgets_of(change.before, budgets):
        name, status = budget["metadata"]["name"], budget.get("status") or {}
        desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        if change.pods.now and change.least < desired <= healthy:
            yield (
                f"PodDisruptionBudget {name} wants {desired} healthy pods, and the rollout of {change.ref} may leave "
                f"{change.least}: rollouts do not respect it; lower its maxUnavailable"
            )
        elif status.get("expectedPods") and not status.get("disruptionsAllowed", 0):
            yield (
                f"PodDisruptionBudget {name} allows no pod of {change.ref} to be evicted now ({healthy} healthy, {desired} wanted), "
                "so draining a node waits"
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
