"""One plan beside many objects of others in its namespace: what it asks is what it asks where it is alone, but for some lists."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cutover.ports import DEPLOYMENTS, PLANS, SERVICES, VIRTUAL_SERVICES, Ref, Resource
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from engine.test_rollback import with_another
from support.fakes.shop import deployment, plan, shop, virtual_service
from support.fakes.simulation import Simulation

MANY = 60
ASKED = ("get", "list", "patch", "try_out", "dry_run", "create", "delete_all", "save_status", "may")
DEPLOY = "  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: 'shop:2'}], replicas: 3}}\n"
SHIFT = "{virtualService: {name: VS}, from: {host: OLD}, to: {host: NEW}, weights: [50, 100], drain: 0s}"
STAYS = "  - {name: ok, approve: {message: go}}\n"


def shift(routes: str = "shop", old: str = "shop-v1", new: str = "shop-v2") -> str:
    fields = SHIFT.replace("VS", routes).replace("OLD", old).replace("NEW", new)
    return f"  - {{name: shift, traffic: {fields}}}\n"


def put_others(cluster: MemoryCluster) -> None:
    """Many objects that have nothing to do with the plan."""
    for number in range(MANY):
        for name in (f"other-{number}-v1", f"other-{number}-v2"):
            cluster.put(DEPLOYMENTS, deployment(name, "other:1", 1))
            cluster.put(
                SERVICES, {"metadata": {"name": name}, "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}}
            )
        routes = virtual_service()
        routes["metadata"]["name"] = f"other-{number}"
        routes["spec"]["hosts"] = [f"other-{number}.example"]
        for at, entry in enumerate(routes["spec"]["http"][0]["route"]):
            entry["destination"]["host"] = f"other-{number}-v{at + 1}"
        cluster.put(VIRTUAL_SERVICES, routes)


class Counted(Simulation):
    """A plan, and how often each method of the port was called for it."""

    def __init__(self, spec: str, *, crowd: bool, put: Any = shop) -> None:
        def put_all(cluster: MemoryCluster) -> None:
            put(cluster)
            if crowd:
                put_others(cluster)

        super().__init__(plan(spec), put=put_all)
        self.counted, self.by_kind = Counter[str](), Counter[str]()
        for name in ASKED:
            self._count(name)
        self._start_process()

    def _count(self, name: str) -> None:
        inner = getattr(self.cluster, name)

        async def counting(*args: Any, **more: Any) -> Any:
            self.counted[name] += 1
            what = next((one for one in args if isinstance(one, Ref | Resource)), None)
            kind = what.resource.kind if isinstance(what, Ref) else what.kind if what else ""
            self.by_kind[name if name == "save_status" else f"{name} {kind}"] += 1
            return await inner(*args, **more)

        setattr(self.cluster, name, counting)


@pytest.mark.parametrize(
    "spec",
    [
        f"steps:\n{DEPLOY}{shift()}",
        f"steps:\n{DEPLOY}{shift()}  - {{name: retire, deploy: {{workload: {{name: shop-v1}}, replicas: 0}}}}\n",
    ],
    ids=["moves traffic", "takes the old pods away"],
)
async def test_objects_of_others_cost_no_call(spec: str) -> None:
    counts = []
    for crowd in (False, True):
        run = Counted(spec, crowd=crowd)
        assert await run.run() is Phase.SUCCEEDED
        counts.append(run.counted)
    alone, beside = counts
    assert beside == alone


OWN = {
    "save_status": 9,  # seen, claims, the first step, four weights, releases, over
    "patch MigrationPlan": 2,  # the finalizer
    "dry_run Deployment": 2,  # before the run, and for the snapshot
    "try_out VirtualService": 2,  # the first and the last weight
    "patch Deployment": 3,  # claim, rollout, release
    "patch VirtualService": 6,  # claim, four weights, release
    "create ControllerRevision": 2,
    "patch ControllerRevision": 2,  # an owner at the end
    "get Deployment": 1,  # before the run; the claim is of that
    "get VirtualService": 2,  # the same, and for the snapshot
    "get MigrationPlan": 3,  # who drives the run: before each claim, and before the snapshots get an owner
    "get Service": 3,  # of each side before the first weight, and of the one that has the traffic at the end
    "list EndpointSlice": 6,
}
"""What nobody else asks, of a plan with one rollout and four weights. What plans have in common is not here."""


async def test_what_a_plan_asks_in_all_of_its_life() -> None:
    run = Counted(f"steps:\n{DEPLOY}{shift().replace('50, 100', '10, 25, 50, 100')}", crowd=True)
    assert await run.run() is Phase.SUCCEEDED
    assert {what: number for what, number in run.by_kind.items() if what in OWN or "list" not in what} == {
        **OWN,
        "may Deployment": 1,
        "may VirtualService": 1,
        "get ServiceAccount": 3,
        "get ConfigMap": 1,  # that the pods read
    }


@pytest.mark.parametrize("drains", [False, True])
async def test_plans_of_others_cost_no_call(drains: bool) -> None:  # noqa: FBT001
    """A plan that takes pods away asks what other plans need: of those that wait, have moved their traffic, or have just succeeded."""
    few, many = [await _beside_plans(number, drains=drains) for number in (4, 40)]
    assert few == many


async def _beside_plans(others: int, *, drains: bool) -> Counter[str]:
    run = Counted(
        "steps:\n  - {name: retire, deploy: {workload: {name: other}, replicas: 0}}\n", crowd=True, put=with_another
    )
    mine = run.plan
    for number in range(others):
        mine_too = f"other-{number}", f"other-{number}-v1", f"other-{number}-v2"
        steps = f"{shift(*mine_too)}{STAYS}" if number % 2 else f"{STAYS}{shift(*mine_too)}"
        if drains:
            steps = shift(*mine_too).replace("drain: 0s", "drain: 5m")
        body = plan(f"steps:\n{steps}")
        body["metadata"]["name"] = f"plan-{number}"
        run.plan = run.cluster.put(PLANS, body)
        run.cluster.objects[run.plan]["status"] = {"observedGeneration": -1}
        await run.until(lambda: run.over if drains else run.phase is Phase.WAITING)
    run.plan = mine
    run.counted.clear()
    assert await run.run() is Phase.SUCCEEDED
    return run.counted
