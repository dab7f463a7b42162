"""What a plan means for what else is there: who else writes its targets, whether its pods are let in, who stands around them.

Reads only. `preflight.py` and `engine/commands.py` ask for it before the first step, `context.py` for people. What the
asking account may not list is not said, and fails nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cutover.errors import Denied, NotFound, Problem
from cutover.field_path import Json, names_of
from cutover.objects.config_maps import WAY_OUT, Reference, references
from cutover.objects.endpoints import selects
from cutover.objects.gitops import Manager, Tool, drifts, way_out
from cutover.objects.quotas import Pods, Room, amounts, meets
from cutover.objects.workloads import Rollout, scalers_of
from cutover.plan.plan import Plan
from cutover.ports import (
    AUTOSCALERS,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    DISRUPTION_BUDGETS,
    LIMIT_RANGES,
    RESOURCE_QUOTAS,
    STATEFUL_SETS,
    WORKLOADS,
    Ref,
    Resource,
)
from cutover.status.status import RISKS, Risk

_DRIFT, _CAPACITY = RISKS


class Reader(Protocol):
    """What is needed of the API server; the port `Cluster` is one."""

    async def get(self, ref: Ref) -> Json:
        """Read one object. Raises NotFound."""

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """All objects of a kind in a namespace; a kind that is not installed has none."""


@dataclass(frozen=True, slots=True)
class Rolling:
    """One workload as one step changes it.

    Attributes:
        step: name of the step, and `place` where it stands in the plan.
        before: its spec before the step, and `after` the one it leaves.
        pods: what that means for its pods.
        least: how many of its pods the rollout leaves available, at least.
    """

    step: str
    place: str
    ref: Ref
    before: Json
    after: Json
    pods: Pods
    least: int


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
        except _UNREADABLE:  # a value that only the server can judge must not keep the plan from saying the rest
            continue
        problems += [Problem(rolling.place, f"pods of {rolling.ref} would be refused: {says}") for says in found]
        warnings += slower
    problems += await _unfed(plan, rollouts, reader)
    risks = [*_drift(plan, bodies)]
    if warnings:
        risks.append(Risk(_CAPACITY, "RolloutHindered", "; ".join(dict.fromkeys(warnings))))
    return Weighed(tuple(problems), tuple(risks))


async def targets(plan: Plan, reader: Reader, namespace: str) -> dict[Ref, Json]:
    """Every target of the plan that is there, in the order of the plan."""
    refs = plan.targets(namespace)

    async def found(ref: Ref) -> Json:
        try:
            return await reader.get(ref)
        except NotFound:
            return None

    bodies = await asyncio.gather(*(found(ref) for ref in refs))
    return {ref: body for ref, body in zip(refs, bodies, strict=True) if body is not None}


async def permitted(reader: Reader, resource: Resource, namespace: str) -> Sequence[Json]:
    """All objects of a kind; none where one may not list them."""
    try:
        return await reader.list(resource, namespace, fresh=False)
    except Denied:
        return ()


async def _unfed(plan: Plan, rollouts: Sequence[Rolling], reader: Reader) -> list[Problem]:
    """ConfigMaps that a later step of a workload makes its pods read, and that are not there.

    Of its first step the kind `deploy` tells that by what the server's dry run says.
    """
    problems, names = [], [step.name for step in plan.steps]
    for rolling in rollouts:
        at, namespace = names.index(rolling.step), rolling.ref.namespace
        earlier = {target.ref(namespace) for step in plan.steps[:at] for target in step.kind.touches()}
        for need in _new_needs(rolling) if rolling.ref in earlier else ():
            ref = Ref(CONFIG_MAPS, namespace, need.name)
            if ref in earlier:
                continue  # what it writes may come yet
            try:
                body = await reader.get(ref)
            except NotFound:
                body = None
            except Denied:
                continue
            if says := need.lacks(body):
                problems.append(Problem(rolling.place, f"{says}, {WAY_OUT}"))
    return problems


def _new_needs(rolling: Rolling) -> list[Reference]:
    """What pods read after a step and did not before."""
    if rolling.after.get("replicas") == 0:
        return []
    try:
        had, has = (list(references(spec["template"]["spec"])) for spec in (rolling.before, rolling.after))
    except _UNREADABLE:
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


def rollings(plan: Plan, bodies: Mapping[Ref, Json], namespace: str) -> Iterator[Rolling]:
    """Every workload that a step changes, each step beginning with what those before it leave."""
    specs = {ref: body["spec"] for ref, body in bodies.items() if ref.resource in WORKLOADS}
    counts = {ref: Rollout.of(bodies[ref], ref.resource).total for ref in specs}
    for step in plan.steps:
        for target in step.kind.touches():
            ref = target.ref(namespace)
            if ref not in specs:
                continue
            try:
                rolling = _rolling(step, target, ref, bodies[ref] | {"spec": specs[ref]}, counts[ref])
            except _UNREADABLE:  # the server's own dry run says what is wrong with such a patch
                continue
            if rolling is not None:
                yield rolling
                specs[ref], counts[ref] = rolling.after, sum(rolling.pods.passes[-1])


_UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


def _rolling(step: Any, target: Any, ref: Ref, body: Json, now: int) -> Rolling | None:
    """What one step does to a workload; None when it does nothing. Raises `_UNREADABLE` for a spec that is none."""
    before = body["spec"]
    after = step.kind.shaped(target, before)
    if after == before:
        return None
    rollout = Rollout.of(body | {"spec": after}, ref.resource)
    pods, least = _passes(ref.resource, before, after, now, rollout)
    amounts(pods.after, ())
    _legible(after["template"])
    return Rolling(step.name, f"steps[{step.name}].{step.kind.key}", ref, before, after, pods, least)


def _legible(template: Json) -> None:
    """Raise one of `_UNREADABLE` for a template that is no pod's: a null may have taken away what every pod has."""
    pod, metadata = template["spec"], template["metadata"]
    for part in ("labels", "annotations"):
        (metadata.get(part) or {}).items()
    names_of(pod["containers"])[0]
    if inits := pod.get("initContainers"):
        names_of(inits)[0]


def _passes(resource: Resource, before: Json, after: Json, now: int, rollout: Rollout) -> tuple[Pods, int]:
    """Through how many pods a rollout goes, and how many it leaves available, as the controllers do it.

    They take away what is no longer wanted before they make anything new.
    """
    wanted, kept = rollout.wanted, rollout.kept
    old, new = before["template"]["spec"], after["template"]["spec"]
    if before["template"] == after["template"]:
        return Pods(old, new, now, ((wanted, 0),), (wanted, 0), created=wanted > now), min(now, wanted)
    surge, unavailable = _bounds(resource, after, wanted)
    fresh, left = wanted - kept, min(now, wanted)
    passes = [(fresh, kept)]
    if not unavailable and left:  # one new pod at least must be there before the first old one goes
        passes = [(1, left), (wanted, 1), (wanted, 0)]
    pods = Pods(old, new, now, tuple(passes), (fresh, kept + min(surge, now)), created=fresh > 0)
    return pods, max(0, min(now, wanted) - unavailable)


def _bounds(resource: Resource, spec: Json, wanted: int) -> tuple[int, int]:
    """How many pods a rollout makes beyond those wanted, and how many of those may be missing."""
    strategy = spec.get("strategy" if resource == DEPLOYMENTS else "updateStrategy") or {}
    kind, rolling = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate") or {}
    if kind == "Recreate":
        return 0, wanted
    if kind == "OnDelete":
        return 0, 1
    default = {DEPLOYMENTS: ("25%", "25%"), DAEMON_SETS: (0, 1), STATEFUL_SETS: (0, 1)}[resource]
    surge = _share(rolling.get("maxSurge", default[0]), wanted, up=True)
    unavailable = _share(rolling.get("maxUnavailable", default[1]), wanted, up=resource != DEPLOYMENTS)
    return surge, unavailable if surge or unavailable else 1


def _share(value: str | int, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * of / 100
    return math.ceil(share) if up else math.floor(share)


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
