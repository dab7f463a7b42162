"""Every workload that a plan changes, step by step: its spec before and after, and through how many pods its rollout goes. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cutover.field_path import Json, names_of
from cutover.objects.quantities import amounts
from cutover.objects.quotas import Pods
from cutover.objects.workloads import Rollout
from cutover.plan.spec import Plan
from cutover.ports import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, WORKLOADS, Ref, Resource

UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class RolloutChange:
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


def rollout_changes(plan: Plan, bodies: Mapping[Ref, Json], namespace: str) -> Iterator[RolloutChange]:
    """Every workload that a step changes, each step beginning with what those before it leave."""
    specs = {ref: body["spec"] for ref, body in bodies.items() if ref.resource in WORKLOADS}
    counts = {ref: Rollout.of(bodies[ref], ref.resource).total for ref in specs}
    for step in plan.steps:
        for target in step.kind.touches():
            ref = target.ref(namespace)
            if ref not in specs:
                continue
            try:
                change = _change_of(step, target, ref, bodies[ref] | {"spec": specs[ref]}, counts[ref])
            except UNREADABLE:  # the server's own dry run says what is wrong with such a patch
                continue
            if change is not None:
                yield change
                specs[ref], counts[ref] = change.after, sum(change.pods.passes[-1])


def _change_of(step: Any, target: Any, ref: Ref, body: Json, now: int) -> RolloutChange | None:
    """What one step does to a workload; None when it does nothing. Raises `UNREADABLE` for a spec that is none."""
    before = body["spec"]
    after = step.kind.predicted_spec(target, before)
    if after == before:
        return None
    rollout = Rollout.of(body | {"spec": after}, ref.resource)
    pods, least = _passes(ref.resource, before, after, now, rollout)
    amounts(pods.after, ())
    _legible(after["template"])
    return RolloutChange(step.name, f"steps[{step.name}].{step.kind.key}", ref, before, after, pods, least)


def _legible(template: Json) -> None:
    """Raise one of `UNREADABLE` for a template that is no pod's: a null may have taken away what every pod has."""
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
    kind, change = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate") or {}
    if kind == "Recreate":
        return 0, wanted
    if kind == "OnDelete":
        return 0, 1
    default = {DEPLOYMENTS: ("25%", "25%"), DAEMON_SETS: (0, 1), STATEFUL_SETS: (0, 1)}[resource]
    surge = _share(change.get("maxSurge", default[0]), wanted, up=True)
    unavailable = _share(change.get("maxUnavailable", default[1]), wanted, up=resource != DEPLOYMENTS)
    return surge, unavailable if surge or unavailable else 1


def _share(value: str | int, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * of / 100
    return math.ceil(share) if up else math.floor(share)
