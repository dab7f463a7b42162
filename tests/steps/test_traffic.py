"""Weights: computed from what the pair held, never lowered, never to what is not ready; other destinations stay."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest

from cutover.objects.endpoints import Side
from cutover.objects.serving import Count
from cutover.ports import DESTINATION_RULES, ENDPOINT_SLICES, PODS, SERVICES, VIRTUAL_SERVICES, Ref
from cutover.routing.routes import Destination
from cutover.status.status import Phase
from cutover.steps.kind import StepContext
from cutover.steps.traffic.sides import Ready, short_of_new
from cutover.targets.claims import Owner
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets
from cutover.testing import MemoryCluster, MemoryMessenger
from support.fakes.shop import PLAN, ROUTES, V2, plan, service, shop
from support.fakes.simulation import Simulation

SHIFT = """
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: {replicas}}}}}
  - name: shift
    traffic: {{virtualService: {{name: shop}}, from: {{host: {old}}}, to: {{host: {new}}}, weights: {weights}}}
"""


def spec(
    weights: str = "[10, 50, 100]", replicas: int = 3, old: str = "shop-v1", new: str = "shop-v2"
) -> dict[str, Any]:
    return plan(SHIFT.format(weights=weights, replicas=replicas, old=old, new=new))


def routes(cluster: MemoryCluster) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = cluster.objects[ROUTES]["spec"]["http"][0]["route"]
    return found


def written(run: Simulation) -> list[list[int]]:
    """Every state of the weights that was written."""
    seen: list[list[int]] = []

    def told(verb: str, ref: Ref, content: Any) -> None:
        if verb == "patch" and ref == ROUTES and any("/weight" in op["path"] for op in content):
            body = {str(op["path"]): op["value"] for op in content if op["op"] == "add" and "/weight" in op["path"]}
            seen.append([value for _, value in sorted(body.items())])

    run.cluster.told = told
    return seen


def with_routes(entries: list[dict[str, Any]]) -> Any:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = copy.deepcopy(cluster.objects[ROUTES])
        body["spec"]["http"][0]["route"] = entries
        cluster.put(VIRTUAL_SERVICES, body)

    return put


async def test_every_weight_in_its_turn() -> None:
    run = Simulation(spec(), put=shop)
    seen = written(run)
    assert await run.run() is Phase.SUCCEEDED
    assert seen == [[90, 10], [50, 50], [0, 100]]


async def test_the_pair_shares_what_it_had_and_others_keep_theirs() -> None:
    entries = [
        {"destination": {"host": "shop-v1.shop.svc.cluster.local"}, "weight": 60},
        {"destination": {"host": "other"}, "weight": 37},
        {"destination": {"host": "shop-v2"}, "weight": 3},
    ]
    run = Simulation(spec("[50, 100]"), put=with_routes(entries))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert [entry["weight"] for entry in routes(run.cluster)] == [0, 37, 63]


async def test_half_is_rounded_up_and_nothing_is_lost() -> None:
    entries = [{"destination": {"host": "shop-v1"}, "weight": 33}, {"destination": {"host": "shop-v2"}, "weight": 0}]
    run = Simulation(spec("[50]"), put=with_routes(entries))
    await run.run()
    assert [entry["weight"] for entry in routes(run.cluster)] == [16, 17]


async def test_a_weight_it_has_already_is_skipped() -> None:
    entries = [{"destination": {"host": "shop-v1"}, "weight": 60}, {"destination": {"host": "shop-v2"}, "weight": 40}]
    run = Simulation(spec("[10, 40, 80]"), put=with_routes(entries))
    seen = written(run)
    assert await run.run() is Phase.SUCCEEDED
    assert seen == [[20, 80]]


async def test_an_absent_weight_is_none_and_comes_back_absent() -> None:
    entries: list[dict[str, Any]] = [
        {"destination": {"host": "shop-v1"}, "weight": 100},
        {"destination": {"host": "shop-v2"}},
    ]
    body = spec("[50]")
    body["spec"]["steps"].append(
        {"name": "soak", "check": {}, "gates": [{"name": "g", "prometheus": {"query": "x"}, "pass": {"min": "5"}}]}
    )
    run = Simulation(body, put=with_routes(entries))
    assert await run.run() is Phase.ROLLED_BACK
    assert routes(run.cluster) == entries


async def test_no_weight_for_what_is_not_ready() -> None:
    run = Simulation(spec("[10, 100]", replicas=0), put=shop)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "shift")
    for _ in range(5):
        await run.turn()
    assert [entry["weight"] for entry in routes(run.cluster)] == [100, 0]
    status = run.driver._caches._caches[run.plan].status
    assert status.current is not None
    assert "shop-v2 has 0 ready endpoints and needs 1" in status.current.message


async def test_all_that_its_workload_wants_is_enough() -> None:
    run = Simulation(spec("[100]", replicas=1), put=shop)
    assert await run.run() is Phase.SUCCEEDED


@pytest.mark.parametrize(("share", "old", "needed"), [(0.55, 100, 55), (0.55, 101, 56), (0.07, 100, 7), (0.01, 3, 1)])
async def test_no_endpoint_more_is_asked_for_than_the_share(share: float, old: int, needed: int) -> None:
    """A share of 0.55 times 100 is a little more than 55 for a computer."""
    cluster = MemoryCluster()
    shop(cluster)
    cluster.objects[V2]["spec"]["replicas"] = 1000
    targets = Targets(cluster, Owner(PLAN, "uid-a", 1, 1, "migrator"), "shift")
    work = StepContext(cluster, targets, "shop", "steps[shift]", cluster.clock.now(), messenger=MemoryMessenger())
    sides = {
        key: asdict(Side(name, {"app": name}, subset=False)) for key, name in (("from", "shop-v1"), ("to", "shop-v2"))
    }
    snapshot, new = Snapshot("uid-b", (), {**sides, "fromReady": old}), Destination(host="shop-v2")
    assert await short_of_new(work, snapshot, new, Ready(Count(old), Count(needed)), share) == ""
    says = await short_of_new(work, snapshot, new, Ready(Count(old), Count(needed - 1)), share)
    assert says == f"shop-v2 has {needed - 1} ready endpoint{'' if needed == 2 else 's'} and needs {needed}"


async def test_traffic_does_not_go_back_to_what_is_not_ready() -> None:
    body = spec("[100]")
    body["spec"]["steps"].append({"name": "ok", "approve": {"message": "go"}})
    run = Simulation(body, put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    old = Ref(ENDPOINT_SLICES, "shop", "shop-v1")
    kept = copy.deepcopy(run.cluster.objects[old])
    del run.cluster.objects[old]
    run.cluster.delete(run.plan)
    await run.turn()
    for _ in range(3):
        await run.turn()
    assert [entry["weight"] for entry in routes(run.cluster)] == [0, 100]
    assert run.phase is Phase.ROLLING_BACK
    run.cluster.objects[old] = kept
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert [entry["weight"] for entry in routes(run.cluster)] == [100, 0]
    assert run.cluster.objects[V2]["spec"]["replicas"] == 0


def with_subsets(cluster: MemoryCluster) -> None:
    shop(cluster)
    body = copy.deepcopy(cluster.objects[ROUTES])
    body["spec"]["http"][0]["route"] = [
        {"destination": {"host": "shop", "subset": "v1"}, "weight": 100},
        {"destination": {"host": "shop", "subset": "v2"}, "weight": 0},
    ]
    cluster.put(VIRTUAL_SERVICES, body)

    cluster.put(SERVICES, service("shop", {"app": "shop"}))
    subsets = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
    cluster.put(DESTINATION_RULES, {"metadata": {"name": "shop"}, "spec": {"host": "shop", "subsets": subsets}})
    for number, version in enumerate(("v1", "v1", "v2")):
        ready = {"conditions": [{"type": "Ready", "status": "True"}]}
        labels = {"app": "shop", "version": version}
        cluster.put(PODS, {"metadata": {"name": f"p{number}", "labels": labels}, "status": ready})


async def test_subsets_are_counted_by_their_pods() -> None:
    body = plan("""
steps:
  - name: shift
    timeout: 5s
    traffic: {virtualService: {name: shop}, from: {host: shop, subset: v1}, to: {host: shop, subset: v2}, weights: [50, 100]}
""")
    run = Simulation(body, put=with_subsets)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.stage == "2/2"
    assert "shop subset v2 has 1 ready endpoint and needs 2" in run.status.failure.message


async def test_a_foreign_change_is_not_written_over() -> None:
    body = spec("[10, 50]")
    body["spec"]["steps"][1]["traffic"]["dwell"] = "1m"
    run = Simulation(body, put=shop)
    await run.until(lambda: routes(run.cluster)[1].get("weight") == 10)
    foreign = copy.deepcopy(run.cluster.objects[ROUTES])
    foreign["spec"]["http"][0]["route"][1]["destination"] = {"host": "shop-v3"}
    run.cluster.put(VIRTUAL_SERVICES, foreign)
    await run.until(lambda: run.status.failure is not None)
    assert run.status.failure is not None
    assert run.status.failure.reason == "ForeignChange"
    assert routes(run.cluster)[1]["weight"] == 10
