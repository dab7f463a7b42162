"""An undo of a DaemonSet while nodes do not answer: what can run is back, and the rest comes back with its node. Used by the kinds that move pods."""

from __future__ import annotations

from typing import Final

from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.objects.pods import silent_node
from cutover.objects.workloads import Rollout, owned, pod_ready, selector
from cutover.ports import DAEMON_SETS, PODS, SNAPSHOTS, Ref
from cutover.steps.kind import StepContext
from cutover.targets.snapshots import Snapshot

_AFTER: Final = 60.0
"""Seconds of an undo until a node that does not answer is not waited for any longer."""
_HASH: Final = "controller-revision-hash"


async def restored_elsewhere(context: StepContext, ref: Ref, body: Json, before: Snapshot) -> str:
    """Where the pods of a DaemonSet are not waited for, as all the others are back; empty when it is not as before.

    Its controller deletes a pod of the newer template on a silent node, but only the node can confirm that, so the undo would wait
    for ever; and no former version runs there that could be missed.
    """
    rollout = Rollout.of(body, ref.resource)
    if ref.resource != DAEMON_SETS or not rollout.current or context.elapsed < _AFTER:
        return ""
    pods = owned(await context.cluster.list(PODS, context.namespace, selector(body)), ref, body)
    silent = {pod["metadata"]["uid"]: node for pod in pods if (node := silent_node(pod, context.now))}
    others = [pod for pod in pods if pod["metadata"]["uid"] not in silent]
    nodes = sorted(set(silent.values()))
    _, available = before.facts["stood"]
    enough = len(others) >= min(available, rollout.wanted - len(nodes)) and rollout.updated >= len(others)
    if not nodes or not enough or not all(map(pod_ready, others)):
        return ""
    if not await _newest(context, ref, {_hash(pod) for pod in others}, {_hash(pod) for pod in pods}):
        return ""
    which = f"node {nodes[0]} does" if len(nodes) == 1 else f"{len(nodes)} nodes such as {nodes[0]} do"
    return f"{which} not answer; its pods of {ref} are not waited for"


async def _newest(context: StepContext, ref: Ref, theirs: set[str], known: set[str]) -> bool:
    """Whether these pods are all of the newest template that any pod has. Its figures alone do not tell which pods are."""
    if len(theirs) != 1 or "" in known:
        return False
    if theirs == known:
        return True
    (mine,) = theirs
    revisions = {one: await _revision(context, Ref(SNAPSHOTS, context.namespace, f"{ref.name}-{one}")) for one in known}
    return revisions[mine] == max(revisions.values())


async def _revision(context: StepContext, ref: Ref) -> int:
    try:
        return int((await context.cluster.get(ref)).get("revision", 0))
    except NotFound:  # its controller keeps ten
        return 0


def _hash(pod: Json) -> str:
    return str((pod["metadata"].get("labels") or {}).get(_HASH, ""))
