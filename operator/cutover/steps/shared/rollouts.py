"""How far the rollout of a workload is, and when an undo that waits becomes Stuck. Used by the kinds that change or move pods."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cutover.errors import Denied
from cutover.field_path import Json
from cutover.objects.pods import waits_for
from cutover.objects.refused_pods import refused_by_events, refused_by_status
from cutover.objects.workloads import Rollout, owned, paused, pods_to_delete, selector
from cutover.ports import PODS, STATEFUL_SETS, Ref, Resource
from cutover.saga.turn import Again, Failed, Outcome, Pause, Wait
from cutover.steps.kind import StepContext
from cutover.targets.snapshots import Snapshot

_UNDO_LIMIT: Final = 60.0
"""Seconds that an undo waits before it is Stuck, which asks for attention."""
UNDO_LIMIT_WITH_PODS: Final = 600.0
"""The same where pods must start or stop: as long as the default progress deadline of a Deployment."""
_LONG_FOR_A_POD: Final = 15.0
"""Seconds until the reason why pods do not start is read, and from one such read to the next."""


def kept(context: StepContext, waits: Again | Wait) -> Again | Wait:
    """An undo may not take pods away yet. The time for which pods may take to stop and start counts from when it may."""
    rest = waits.after if isinstance(waits, Again) else None
    context.memo[_kept(context)] = context.now + timedelta(seconds=rest or 0.0)
    return waits


def since_kept(context: StepContext) -> StepContext:
    """With the time that has passed since the undo may take pods away; a new process does not know that, and has less patience."""
    until: datetime = context.memo.get(_kept(context), datetime.min.replace(tzinfo=UTC))
    return replace(context, elapsed=max(0.0, min(context.elapsed, (context.now - until).total_seconds())))


def _kept(context: StepContext) -> str:
    return f"{context.place}.kept"


def stuck_after(context: StepContext, again: Again, limit: float = UNDO_LIMIT_WITH_PODS) -> Outcome:
    """Wait for what should happen by itself; after `limit` seconds the undo is Stuck, which asks for attention."""
    return again if context.elapsed < limit else Wait("NotBackYet", again.message)


def pod_counts(body: Json, resource: Resource) -> list[int]:
    """For the snapshot: how many pods a workload had before a step, in total and available."""
    rollout = Rollout.of(body, resource)
    return [rollout.total, rollout.available]


def restored(context: StepContext, rollout: Rollout, before: Snapshot) -> bool:
    """Whether the rollback of a workload is complete, or, after a while, no worse than before the step.

    An undo that required more than there was could never end, and every earlier undo would wait for it.
    """
    if rollout.complete:
        return True
    late = bool(rollout.stalled(context.elapsed)) or context.elapsed >= _UNDO_LIMIT
    return late and rollout.as_before(*before.facts["stood"])


def needs_manual_deletion(context: StepContext, ref: Ref, body: Json, rollout: Rollout) -> Wait | None:
    """Pods of a rollback that no controller replaces by itself; a StatefulSet is given some time first. Missing ones are none of them."""
    late = ref.resource == STATEFUL_SETS and rollout.older and context.elapsed > _UNDO_LIMIT
    if rollout.outdated and (rollout.by_hand or late):
        return Wait("PodsToDelete", pods_to_delete(ref, body, rollout))
    return None


async def why_pods_wait(context: StepContext, ref: Ref, body: Json) -> str:
    """Why pods of a workload are not created, or do not start: the server's, the scheduler's or the kubelet's reason, such as a missing Secret.

    Only the kubelet may read Secrets, so this cannot be checked in advance. Read once it takes long, and then rarely: a rollout of hundreds
    of pods brings as many events. Starts with a semicolon, or is empty.
    """
    if refused := refused_by_status(body):
        return f"; {refused}"
    if context.elapsed < _LONG_FOR_A_POD:
        return ""
    memo = f"{context.place}.why_pods_wait[{ref}]"
    at, why = context.memo.get(memo, (None, ""))
    if at is None or context.now - at >= timedelta(seconds=_LONG_FOR_A_POD):
        why = await _why_not_started(context, ref, body)
        context.memo[memo] = (context.now, why)
    return f"; {why}" if why else ""


async def _why_not_started(context: StepContext, ref: Ref, body: Json) -> str:
    try:
        pods = owned(await context.cluster.list(PODS, context.namespace, selector(body), fresh=False), ref, body)
    except Denied:  # it would only explain: the rollout itself is read from its workload
        return ""
    if why := waits_for(pods, context.namespace, context.now):
        return why
    if len(pods) >= Rollout.of(body, ref.resource).wanted:
        return ""
    since = context.now - timedelta(seconds=context.elapsed)
    return await refused_by_events(context.cluster, ref, body["metadata"]["uid"], since)


def look_again(context: StepContext, rarely: float) -> float:
    """Seconds until a workload is looked at again: its changes are streamed, but that its pods do not start is none of them."""
    left = _LONG_FOR_A_POD - context.elapsed
    return left if 0 < left < rarely else rarely


def blocked(context: StepContext, ref: Ref, rollout: Rollout) -> Pause | Failed | None:
    """A rollout that does not progress by itself. Pausing it is a request to stop: nothing is undone, and a user decides."""
    if rollout.paused:
        message = paused(ref, "its rollout does not progress")
        return Pause("DeploymentPaused", f"{message}, then resume the plan; abort rolls everything back")
    message = _stalled(context, ref, rollout)
    return Failed("RolloutStalled", message) if message else None


def undo_blocked(context: StepContext, ref: Ref, rollout: Rollout) -> Wait | None:
    """The same for an undo, which continues by itself once nothing blocks it."""
    if rollout.paused:
        return Wait("DeploymentPaused", paused(ref, "its old pods do not come back"))
    message = _stalled(context, ref, rollout)
    return Wait("RolloutStalled", message) if message else None


def _stalled(context: StepContext, ref: Ref, rollout: Rollout) -> str:
    reason = rollout.stalled(context.elapsed)
    return f"the rollout of {ref} does not progress ({reason}); {rollout.text} pods are ready" if reason else ""
