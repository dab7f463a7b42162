"""Before a step that cannot be undone: whether pods of the version before still run. Reads only; called by `commands.py`.

A rollout is complete when its controller says so, and no controller counts a pod that is terminating. It may run for minutes
all the same, and would meet what the irreversible step leaves, such as a table without its old column.
"""

from __future__ import annotations

from typing import Final

from cutover.engine.command_context import CommandContext
from cutover.errors import NotFound
from cutover.objects.pods import unfinished
from cutover.objects.workloads import Rollout, ending, owned, selector
from cutover.ports import PODS, WORKLOADS, Ref
from cutover.saga.turn import Again
from cutover.status.status import StepState

_SOONEST: Final = 0.1
"""Minimum seconds between two reads of pods."""


async def old_pods_left(context: CommandContext, at: int) -> Again | None:
    """What an irreversible step waits for before it begins: the last old pod of each workload that earlier steps rolled out."""
    step = context.plan.steps[at]
    for ref in _rolled_out_before(context, at) if step.irreversible else ():
        try:
            left = await _left(context, ref)
        except NotFound:  # that fails the plan elsewhere
            continue
        if left:
            message = f"{left}; step {step.name} is irreversible and begins when the last of them is gone"
            return Again(context.step_context(at).next_look(_SOONEST), message)
    return None


def _rolled_out_before(context: CommandContext, at: int) -> list[Ref]:
    """The workloads that done steps before it have changed, each once."""
    done = [before for before in range(at) if context.status.steps[before].state is StepState.DONE]
    refs = dict.fromkeys(ref for before in done for ref in context.targets_of(before))
    return [ref for ref in refs if ref.resource in WORKLOADS]


async def _left(context: CommandContext, ref: Ref) -> str:
    """Which pods of a workload are terminating or of an older template; empty when none is. Raises NotFound."""
    body = await context.targets().view(ref)
    rollout = Rollout.of(body, ref.resource)
    if not rollout.current:
        return f"the controller of {ref} has not seen its newest template yet"
    if older := rollout.older:
        command = f"kubectl get pods -n {ref.namespace} -l '{selector(body)}' -L controller-revision-hash"
        by_hand = f", and its updateStrategy is OnDelete, so delete them: {command}" if rollout.by_hand else ""
        return f"{older} pods of {ref} run an older template{by_hand}"
    pods = owned(await context.cluster.list(PODS, context.ref.namespace, selector(body)), ref, body)
    if names := unfinished([pod for pod in pods if ending(pod)]):
        return f"{len(names)} pods of {ref} are still terminating, such as {min(names)}"
    return ""
