"""How far the rollout of a workload is, and when an undo that waits becomes Stuck. Used by the kinds that change or move pods."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from cutover.field_path import Json
from cutover.objects.pods import waits_for
from cutover.objects.workloads import Rollout, owned, paused, pods_to_delete, selector
from cutover.ports import PODS, STATEFUL_SETS, Ref, Resource
from cutover.saga.turn import Again, Failed, Outcome, Pause, Wait
from cutover.steps.kind import StepContext
from cutover.targets.snapshots import Snapshot

_UNDO_LIMIT: Final = 60.0
"""Seconds that an undo waits before it says that somebody has to help."""
UNDO_LIMIT_WITH_PODS: Final = 600.0
"""The same where pods have to come or go: as long as a Deployment is given by default."""
_LONG_FOR_A_POD: Final = 15.0
"""Seconds after which people ask why pods do not start, and from one such look to the next."""


def old_side_not_ready(context: StepContext, message: str) -> Outcome:
    """Traffic cannot be switched back yet: it is prefetched at again, and after a while said to be Stuck."""
    return Again(context.next_look(), message) if context.elapsed < _UNDO_LIMIT else Wait("OldSideNotReady", message)


def stuck_after(context: StepContext, again: Again, limit: float = UNDO_LIMIT_WITH_PODS) -> Outcome:
    """What an undo waits for comes by itself, until it has taken so long that somebody has to look: it is Stuck then."""
    return again if context.elapsed < limit else Wait("NotBackYet", again.message)


def pod_counts(body: Json, resource: Resource) -> list[int]:
    """For the snapshot: how many pods a workload had before a step, in all and available."""
    rollout = Rollout.of(body, resource)
    return [rollout.total, rollout.available]


def restored(context: StepContext, rollout: Rollout, before: Snapshot) -> bool:
    """Whether a workload on its way back is as it was: complete, or, after a while, no worse than it was.

    An undo that asked for more could never end, and all earlier ones would wait for it.
    """
    if rollout.complete:
        return True
    late = bool(rollout.stalled(context.elapsed)) or context.elapsed >= _UNDO_LIMIT
    return late and rollout.as_before(*before.facts["stood"])


def needs_manual_deletion(context: StepContext, ref: Ref, body: Json, rollout: Rollout) -> Wait | None:
    """Pods of a workload on its way back that no controller replaces by itself; one of a StatefulSet is given some time."""
    if rollout.outdated and (rollout.by_hand or (ref.resource == STATEFUL_SETS and context.elapsed > _UNDO_LIMIT)):
        return Wait("PodsToDelete", pods_to_delete(ref, body, rollout))
    return None


async def why_pods_wait(context: StepContext, ref: Ref, body: Json) -> str:
    """Why pods of a workload do not start, by the scheduler's and the kubelet's reason, such as a Secret that is not there.

    Only the kubelet may read Secrets, so nobody can tell before. Asked once it takes long, and then seldom: a rollout of hundreds
    of pods brings as many events. Begins with a semicolon, or is empty.
    """
    if context.elapsed < _LONG_FOR_A_POD:
        return ""
    memo = f"{context.place}.why_pods_wait[{ref}]"
    at, why = context.memo.get(memo, (None, ""))
    if at is None or context.now - at >= timedelta(seconds=_LONG_FOR_A_POD):
        why = await _why_not_started(context, ref, body)
        context.memo[memo] = (context.now, why)
    return f"; {why}" if why else ""


async def _why_not_started(context: StepContext, ref: Ref, body: Json) -> str:
    pods = owned(await context.cluster.list(PODS, context.namespace, selector(body), fresh=False), ref, body)
    return waits_for(pods, context.namespace)


def blocked(context: StepContext, ref: Ref, rollout: Rollout) -> Pause | Failed | None:
    """A rollout that does not get on by itself. Who pauses it wishes to stop: nothing is undone, and a person decides."""
    if rollout.paused:
        message = paused(ref, "its rollout does not progress")
        return Pause("DeploymentPaused", f"{message}, then resume the plan; abort rolls everything back")
    message = _stalled(context, ref, rollout)
    return Failed("RolloutStalled", message) if message else None


def undo_blocked(context: StepContext, ref: Ref, rollout: Rollout) -> Wait | None:
    """The same on rollback, which goes on by itself once nothing hinders it."""
    if rollout.paused:
        return Wait("DeploymentPaused", paused(ref, "its old pods do not come back"))
    message = _stalled(context, ref, rollout)
    return Wait("RolloutStalled", message) if message else None


def _stalled(context: StepContext, ref: Ref, rollout: Rollout) -> str:
    reason = rollout.stalled(context.elapsed)
    return f"the rollout of {ref} does not progress ({reason}); {rollout.text} pods are ready" if reason else ""
