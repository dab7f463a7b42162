"""Every workload that a plan changes, step by step: its spec before and after, and how many pods its rollout needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cutover.field_path import Json, names_of
from cutover.objects.quantities import amounts
from cutover.objects.quotas import Pods
from cutover.objects.workloads import Rollout, surge_and_unavailable
from cutover.plan.spec import Plan
from cutover.ports import WORKLOADS, Ref, Resource
from cutover.steps.parts import RollsOut

UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True, slots=True)
class RolloutChange:
    """The change of one workload by one step.

    Attributes:
        step: name of the step; `place` is its path in the plan.
        before: the spec before the step; `after` is the spec after it.
        pods: the effect on its pods.
        least: how many of its pods stay available during the rollout, at least.
    """

    step: str
    place: str
    ref: Ref
    before: Json
    after: Json
    pods: Pods
    least: int


def rollout_changes(plan: Plan, bodies: Mapping[Ref, Json], namespace: str) -> Iterator[RolloutChange]:
    """Every change of a workload by a step; each step starts from the result of the steps before it."""
    specs = {ref: body["spec"] for ref, body in bodies.items() if ref.resource in WORKLOADS}
    counts = {ref: Rollout.of(bodies[ref], ref.resource).total for ref in specs}
    for step in plan.steps:
        for target in step.kind.touches():
            ref = target.ref(namespace)
            if ref not in specs:
                continue
            try:
                change = _change_of(step, target, ref, bodies[ref] | {"spec": specs[ref]}, counts[ref])
            except UNREADABLE:  # the server's dry run reports what is wrong with such a patch
                continue
            if change is not None:
                yield change
                specs[ref], counts[ref] = change.after, sum(change.pods.must_reach[-1])


def _change_of(step: Any, target: Any, ref: Ref, body: Json, now: int) -> RolloutChange | None:
    """The change of a workload by one step; None when there is none. Raises `UNREADABLE` for an invalid spec."""
    before = body["spec"]
    if not isinstance(step.kind, RollsOut):
        return None
    after = step.kind.predicted_spec(target, before)
    if after == before:
        return None
    rollout = Rollout.of(body | {"spec": after}, ref.resource)
    pods, least = _stages_of(ref.resource, before, after, now, rollout)
    amounts(pods.after, ())
    _legible(after["template"])
    return RolloutChange(step.name, f"steps[{step.name}].{step.kind.key}", ref, before, after, pods, least)


def _legible(template: Json) -> None:
    """Raise one of `UNREADABLE` for an invalid pod template: a null may have removed what every pod has."""
    pod, metadata = template["spec"], template["metadata"]
    for part in ("labels", "annotations"):
        (metadata.get(part) or {}).items()
    names_of(pod["containers"])[0]
    if inits := pod.get("initContainers"):
        names_of(inits)[0]


def _stages_of(resource: Resource, before: Json, after: Json, now: int, rollout: Rollout) -> tuple[Pods, int]:
    """How many pods a rollout creates on its way, and how many stay available, as the controllers do it.

    They remove pods that are not wanted any more before they create new ones.
    """
    wanted, kept = rollout.wanted, rollout.kept
    old, new = before["template"]["spec"], after["template"]["spec"]
    if before["template"] == after["template"]:
        return Pods(old, new, now, ((wanted, 0),), (wanted, 0), created=wanted > now), min(now, wanted)
    surge, unavailable = surge_and_unavailable(resource, after, wanted)
    fresh, left = wanted - kept, min(now, wanted)
    must_reach = [(fresh, kept)]
    if not unavailable and left:  # at least one new pod must exist before the first old one is removed
        must_reach = [(1, left), (wanted, 1), (wanted, 0)]
    pods = Pods(old, new, now, tuple(must_reach), (fresh, kept + min(surge, now)), created=fresh > 0)
    return pods, max(0, min(now, wanted) - unavailable)
