"""Pods that carry the labels of a workload and are not its own: `flags` and readiness gates do not count them."""

from __future__ import annotations

import copy

import pytest

from cutover.field_path import ABSENT, Json
from cutover.gates.base import GateContext
from cutover.gates.readiness import Readiness
from cutover.objects.workloads import owned
from cutover.ports import DAEMON_SETS, DEPLOYMENTS, PODS, STATEFUL_SETS, Ref
from cutover.saga.turn import Done
from cutover.testing import MemoryMetrics
from cutover.testing.controllers import owner
from support.fakes.flags_step import claimed, do, mark, pods, settle, undo
from support.fakes.shop import NAMESPACE, V1

NIGHTLY = {"kind": "Job", "name": "nightly", "uid": "uid-nightly", "controller": True}
CANARY = {"kind": "ReplicaSet", "name": "canary-1", "uid": "uid-canary-1", "controller": True}


@pytest.mark.parametrize("stranger", [NIGHTLY, CANARY, None])
async def test_a_pod_of_another_owner_blocks_neither_direction(stranger: Json) -> None:
    cluster = claimed()
    other = copy.deepcopy(cluster.objects[pods(cluster)[0]])
    await do(cluster)
    settle(cluster)
    other["metadata"] |= {"name": "other", "uid": "uid-other", "ownerReferences": [stranger] if stranger else []}
    cluster.put(PODS, other)
    assert await do(cluster) == Done(ready="3/3")
    await undo(cluster)
    assert mark(cluster) is ABSENT
    ours = [ref for ref in pods(cluster) if ref.name != "other"]
    for ref in ours:
        cluster.objects[ref]["metadata"]["annotations"] = {}
    cluster.objects[V1]["status"]["observedGeneration"] = cluster.objects[V1]["metadata"]["generation"]
    assert await undo(cluster) == Done(ready="3/3")


@pytest.mark.parametrize(("whose", "ready"), [(NIGHTLY, 3), (CANARY, 3), (None, 2)], ids=["job", "canary", "own"])
async def test_only_a_restart_of_an_own_pod_counts_against_readiness(whose: Json, ready: int) -> None:
    cluster = claimed()
    one = copy.deepcopy(cluster.objects[pods(cluster)[0]])
    if whose:
        one["metadata"] |= {"name": "other", "uid": "uid-other", "ownerReferences": [whose]}
    again = {"name": "app", "restartCount": 1, "state": {"running": {"startedAt": cluster.clock.now().isoformat()}}}
    one["status"]["containerStatuses"] = [again]
    cluster.put(PODS, one)
    gate = Readiness.model_validate({"for": "10s"})
    around = GateContext(cluster, MemoryMetrics(), cluster.clock, NAMESPACE, "flip", V1)
    assert (await gate.measure(around)).note == f"{ready} of 3 pods of Deployment shop-v1 are ready"


@pytest.mark.parametrize("resource", [DEPLOYMENTS, STATEFUL_SETS, DAEMON_SETS])
def test_which_pods_are_a_workloads_own(resource: Json) -> None:
    ref, body = Ref(resource, "shop", "app"), {"metadata": {"uid": "uid-app"}}
    labels = {"pod-template-hash": "a1"}
    own: Json = {"metadata": {"labels": labels, "ownerReferences": [owner(ref, body, "a1")]}}
    others = [
        {"metadata": {"labels": labels}},
        {
            "metadata": {
                "labels": labels,
                "ownerReferences": [own["metadata"]["ownerReferences"][0] | {"controller": False}],
            }
        },
        {"metadata": {"labels": labels, "ownerReferences": [CANARY]}},
    ]
    assert owned([own, *others], ref, body) == [own]
