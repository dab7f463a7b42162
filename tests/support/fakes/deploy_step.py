"""One `deploy` step at a time in memory, as a process that has just started would carry it out."""

from __future__ import annotations

from typing import Any

import yaml

from cutover.ports import FENCE_LABEL, PLAN_LABEL, PLANS, Ref
from cutover.saga.turn import Outcome
from cutover.steps.deploy import Deploy
from cutover.steps.kind import StepContext, Target
from cutover.targets.claims import Owner
from cutover.targets.targets import Targets
from cutover.testing import MemoryClock, MemoryCluster, MemoryMessenger
from support.fakes.shop import AGENT, PLAN, STORE, V2, shop

STORE_2 = "{workload: {kind: StatefulSet, name: store}, images: [{container: db, image: 'db:2'}]}"
AGENT_2 = "{workload: {kind: DaemonSet, name: agent}, images: [{container: agent, image: 'agent:2'}]}"
V2_2 = "{workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}]}"
SCALE = "{workload: {name: shop-v2}, replicas: 3}"


def claimed() -> MemoryCluster:
    """A shop whose workloads are claimed."""
    made = MemoryCluster()
    shop(made)
    for ref in (V2, STORE, AGENT):
        made.objects[ref]["metadata"].setdefault("labels", {}).update({PLAN_LABEL: "uid-a", FENCE_LABEL: "1"})
    return made


def step(text: str) -> Deploy:
    return Deploy.model_validate(yaml.safe_load(text))


def work(
    cluster: MemoryCluster, elapsed: float = 0.0, *, fence: int = 1, earlier: frozenset[Target] = frozenset()
) -> StepContext:
    """As a process that has just begun: it remembers nothing."""
    body = {"metadata": {"name": PLAN.name, "uid": "uid-a"}, "spec": {}}
    cluster.put(PLANS, body | {"status": {"phase": "Running", "run": {"number": 1, "fence": fence}}})
    targets = Targets(cluster, Owner(PLAN, "uid-a", 1, fence, "migrator"), "roll")
    return StepContext(
        cluster,
        targets,
        "shop",
        "steps[roll]",
        MemoryClock().now(),
        elapsed,
        earlier=earlier,
        messenger=MemoryMessenger(),
    )


def status(cluster: MemoryCluster, ref: Ref, **figures: Any) -> None:
    """The controller's status, of the newest generation."""
    body = cluster.objects[ref]
    body["status"] = {"observedGeneration": body["metadata"]["generation"], **figures}


def pod(cluster: MemoryCluster, ref: Ref) -> Any:
    return cluster.objects[ref]["spec"]["template"]["spec"]


async def do(cluster: MemoryCluster, text: str, elapsed: float = 0.0) -> Outcome:
    return await step(text).do(work(cluster, elapsed), 0)


async def undo(cluster: MemoryCluster, text: str, elapsed: float = 0.0) -> Outcome:
    return await step(text).undo(work(cluster, elapsed, fence=2))
