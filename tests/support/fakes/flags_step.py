"""One `flags` step at a time in memory, with a Deployment whose pods change one by one, as a test asks."""

from __future__ import annotations

import copy
from typing import Any

from cutover.field_path import ABSENT, Json
from cutover.ports import CONFIG_MAPS, DEPLOYMENTS, FENCE_LABEL, PLAN_LABEL, PLANS, PODS, Ref
from cutover.saga.turn import Outcome
from cutover.steps.flags import Flags
from cutover.steps.flags.restart import RESTART
from cutover.steps.kind import StepContext
from cutover.targets.claims import Owner
from cutover.targets.targets import Targets
from cutover.testing import MemoryClock, MemoryCluster, MemoryMessenger
from cutover.testing.controllers import owner, pod, roll_out
from support.fakes.shop import FLAGS, NAMESPACE, PLAN, V1, shop

FLIP = Flags.model_validate(
    {
        "configMap": "flags",
        "set": {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true"},
        "reload": [{"name": "shop-v1"}],
        "leave": [{"name": "shop-v2"}],
    }
)
MARK = "shop-v2/flip, run 1 (uid-a)"
SECOND = f"{MARK}, back"
BEFORE = {"USE_NEW_SCHEMA": "false", "COLOUR": "blue"}
AFTER = {"USE_NEW_SCHEMA": "true", "DUAL_WRITE": "true", "COLOUR": "blue"}


def claimed() -> MemoryCluster:
    """The ConfigMap and the Deployment with its three pods are claimed."""
    made = MemoryCluster()
    shop(made)
    for ref in (FLAGS, V1):
        made.objects[ref]["metadata"].setdefault("labels", {}).update({PLAN_LABEL: "uid-a", FENCE_LABEL: "1"})
    return made


def work(cluster: MemoryCluster, elapsed: float = 0.0, *, fence: int = 1) -> StepContext:
    """As a process that has just begun: it remembers nothing."""
    body = {"metadata": {"name": PLAN.name, "uid": "uid-a"}, "spec": {}}
    cluster.put(PLANS, body | {"status": {"phase": "Running", "run": {"number": 1, "fence": fence}}})
    targets = Targets(cluster, Owner(PLAN, "uid-a", 1, fence, "migrator"), "flip")
    return StepContext(
        cluster, targets, NAMESPACE, "steps[flip]", MemoryClock().now(), elapsed, messenger=MemoryMessenger()
    )


async def do(cluster: MemoryCluster, step: Flags = FLIP, elapsed: float = 0.0) -> Outcome:
    return await step.do(work(cluster, elapsed), 0)


async def undo(cluster: MemoryCluster, elapsed: float = 0.0, step: Flags = FLIP) -> Outcome:
    return await step.undo(work(cluster, elapsed, fence=2))


def data(cluster: MemoryCluster) -> Json:
    return cluster.objects[FLAGS]["data"]


def mark(cluster: MemoryCluster, ref: Ref = V1) -> Json:
    """On the pod template."""
    return (cluster.objects[ref]["spec"]["template"]["metadata"].get("annotations") or {}).get(RESTART, ABSENT)


def pods(cluster: MemoryCluster, app: str = "shop-v1") -> list[Ref]:
    return [
        ref
        for ref, body in sorted(cluster.objects.items())
        if ref.resource == PODS and body["metadata"]["labels"].get("app") == app
    ]


def replace_pod(cluster: MemoryCluster, ref: Ref, template: Json = None) -> Ref:
    """The pod goes, and another one comes, of the present template unless another is given."""
    cluster.objects.pop(ref)
    body = copy.deepcopy(cluster.objects[V1])
    return cluster.put(PODS, pod(ref.name, template or body["spec"]["template"], "other", owner(V1, body, "other")))


def rolled_out(cluster: MemoryCluster) -> None:
    """The controller reports the rollout as complete; the pods are left as they are."""
    roll_out(cluster)


def settle(cluster: MemoryCluster) -> None:
    """The rollout comes to its end, and every pod is of the present template."""
    roll_out(cluster)
    for ref in pods(cluster):
        replace_pod(cluster, ref)


def edit(cluster: MemoryCluster, ref: Ref, **fields: Any) -> None:
    """What somebody else does."""
    resource = CONFIG_MAPS if ref == FLAGS else DEPLOYMENTS
    cluster.put(resource, copy.deepcopy(cluster.objects[ref]) | fields)
