"""The restart of workloads by an annotation in their pod templates: which pods carry it, and its progress. Used by the kind `flags`."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from cutover.field_path import ABSENT, Json, Path, find
from cutover.objects.workloads import Rollout, owned, selector
from cutover.ports import PODS, Ref
from cutover.saga.turn import Again, Done, Wait
from cutover.steps.kind import StepContext
from cutover.steps.shared.rollouts import look_again, needs_manual_deletion, undo_blocked, why_pods_wait

RESTART: Final = "cutover.dev/restarted-by"
"""On the pod template and its pods: which plan, step and run restarted them."""
RESTARTED_BY: Final[Path] = ("spec", "template", "metadata", "annotations", RESTART)
_LOOK_AGAIN: Final = 30.0
"""Seconds; the workloads are streamed, so this only makes up for a lost event."""
_SOONEST: Final = 0.1
"""Minimum seconds between two checks of terminating pods."""


async def progress(
    context: StepContext, bodies: Mapping[Ref, Json], wanted: Mapping[Ref, Json], back: Container[Ref] = ()
) -> Again | Done:
    """Whether each rollout is complete and each pod has the wanted annotation. Terminating pods still run, so they count.

    Args:
        context: of the step.
        bodies: the workloads.
        wanted: for each workload the annotation that its pods should have; ABSENT for none.
        back: workloads that an undo has restored as far as they were before, which is enough.
    """
    rollouts = {ref: Rollout.of(body, ref.resource) for ref, body in bodies.items()}
    pods = f"{sum(one.ready_new for one in rollouts.values())}/{sum(one.wanted for one in rollouts.values())}"
    if slow := [ref for ref, rollout in rollouts.items() if not rollout.complete and ref not in back]:
        why = await why_pods_wait(context, slow[0], bodies[slow[0]])
        message = f"{pods} pods are ready with the values; {', '.join(map(str, slow))} not complete yet{why}"
        return Again(
            look_again(context, _LOOK_AGAIN), message, pods, reached=sum(one.reached for one in rollouts.values())
        )
    for ref, body in bodies.items():
        others = [
            pod["metadata"]["name"]
            for pod in await running_pods(context, ref, body)
            if pod_restarted_by(pod) != wanted[ref]
        ]
        if others:
            return Again(
                context.next_look(_SOONEST),
                f"{len(others)} pods of {ref} still run with other values, such as {others[0]}",
                pods,
            )
    return Done(ready=pods if bodies else "")


def any_undo_blocked(context: StepContext, bodies: Mapping[Ref, Json]) -> Wait | None:
    """Why the pods of an undo do not come back by themselves."""
    for ref, body in bodies.items():
        rollout = Rollout.of(body, ref.resource)
        if wait := undo_blocked(context, ref, rollout) or needs_manual_deletion(context, ref, body, rollout):
            return wait
    return None


async def running_pods(context: StepContext, ref: Ref, body: Json) -> list[Json]:
    """Pods of a workload that run or will run, read now."""
    pods = await context.cluster.list(PODS, context.namespace, selector(body))
    return [pod for pod in owned(pods, ref, body) if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")]


def restarted_by(workload: Json) -> Json:
    """The annotation on the pod template of a workload, or ABSENT."""
    found = find(workload, RESTARTED_BY)
    return found.value if found else ABSENT


def pod_restarted_by(pod: Json) -> Json:
    """The annotation on a pod, or ABSENT."""
    return (pod["metadata"].get("annotations") or {}).get(RESTART, ABSENT)


def restart_id(context: StepContext) -> str:
    """The value of the annotation, unique to this step in this run."""
    owner = context.targets.owner
    return f"{owner.plan.name}/{context.targets.step}, run {owner.run} ({owner.uid[:8]})"


def second_id(ours: Json) -> str:
    """The value of the annotation while an undo replaces pods of the old template that may have read our values."""
    return f"{ours}, back"
