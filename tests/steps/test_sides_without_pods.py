"""A side that carries traffic loses its pods: without any it is noticed within five seconds, with too few after a while; the step fails."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from cutover.ports import Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from support.fakes.shop import FRONT, ROUTES, V1, V2, plan, shop, shop_with_an_http_route
from support.fakes.simulation import Simulation
from support.plans.simulated import weight_of_new

_BOUND = timedelta(seconds=5)
_SHIFT = """
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, images: [{{container: app, image: "shop:2"}}]}}}}
  - name: shift
    traffic:
      {where}
      from: {{host: shop-v1}}
      to: {{host: shop-v2}}
      weights: {weights}
      dwell: {dwell}
      {more}
  - {{name: ok, approve: {{message: go}}}}
  - {{name: retire, deploy: {{workload: {{name: shop-v1}}, replicas: 1}}}}
"""
_SWITCH = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}]}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - {name: ok, approve: {message: go}}
  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 1}}
"""


def shift(
    weights: str = "[50, 100]", dwell: str = "10m", more: str = "", where: str = "virtualService: {name: shop}"
) -> Any:
    return plan(_SHIFT.format(weights=weights, dwell=dwell, more=more, where=where))


def staffed(put: Callable[[MemoryCluster], None] = shop) -> Callable[[MemoryCluster], None]:
    """A shop whose new version has as many pods as the old one."""

    def filled(cluster: MemoryCluster) -> None:
        put(cluster)
        scale(cluster, V2, 3)

    return filled


def without_routes(cluster: MemoryCluster) -> None:
    staffed()(cluster)
    cluster.delete(ROUTES)


def scale(cluster: MemoryCluster, ref: Ref, replicas: int) -> None:
    """As an autoscaler does."""
    body = copy.deepcopy(cluster.objects[ref])
    body["spec"]["replicas"] = replicas
    cluster.put(ref.resource, body)
    react(cluster)


def ready(run: Simulation, ref: Ref, pods: int) -> None:
    """So many pods of a workload are ready from now on, whatever it wants."""
    run.cluster.rollouts = False
    body = run.cluster.objects[ref]
    run.cluster.report(ref, {**body["status"], "readyReplicas": pods, "availableReplicas": pods})
    react(run.cluster)


async def lasts(run: Simulation, reached: Callable[[], bool], longest: timedelta = timedelta(hours=1)) -> timedelta:
    """How long it takes until something is so; no longer than this."""
    begun = run.clock.now()
    await run.until(lambda: reached() or run.clock.now() - begun > longest)
    assert reached(), run.status
    return run.clock.now() - begun


def reason(run: Simulation) -> str:
    assert run.status.failure is not None
    return run.status.failure.reason


def weights(run: Simulation) -> Callable[[int], Callable[[], bool]]:
    return lambda weight: lambda: weight_of_new(run) == weight


@pytest.mark.parametrize("weight", [50, 100])
@pytest.mark.parametrize(
    ("put", "where"), [(shop, "virtualService: {name: shop}"), (shop_with_an_http_route, "httpRoute: {name: shop}")]
)
async def test_the_new_side_loses_all_pods_while_it_dwells(weight: int, put: Any, where: str) -> None:
    run = Simulation(shift(where=where), put=staffed(put))
    await run.until(weights(run)(weight))
    await run.turn()
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND
    assert reason(run) == "SideNotReady"
    assert run.status.failure is not None
    assert run.status.failure.message == "shop-v2 carries traffic and has no ready endpoint, for 2s"
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK


async def test_a_process_that_has_just_begun_notices_it_too() -> None:
    run = Simulation(shift(), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    run.restart()
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND


async def test_while_it_waits_for_the_next_weight() -> None:
    """That weight waits for pods, up to the step's timeout; the one before it must not."""
    run = Simulation(shift("[50, 100]", dwell="10s"), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    ready(run, V2, 2)
    await lasts(run, lambda: "weight 100 waits: shop-v2 has 2 ready endpoints and needs 3" in told(run))
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND
    assert reason(run) == "SideNotReady"


async def test_after_its_step_and_the_old_side_is_not_retired() -> None:
    run = Simulation(shift("[100]", dwell="0s"), put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 0)
    run.request(RequestVerb.APPROVE, "ok")
    await lasts(run, weights(run)(0), _BOUND)
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    assert reason(run) == "SideNotReady"
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK


@pytest.mark.parametrize("weight", [50, 100])
async def test_while_a_user_has_paused_the_plan(weight: int) -> None:
    run = Simulation(shift(), put=staffed())
    await run.until(weights(run)(weight))
    await run.turn()
    run.request(RequestVerb.PAUSE)
    await run.until(lambda: run.phase is Phase.PAUSED)
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND
    assert reason(run) == "SideNotReady"


async def test_while_the_plan_is_paused_because_another_writer_has_changed_a_field() -> None:
    """Traffic first: the disputed field is left to a user all the same."""
    run = Simulation(shift("[100]", dwell="0s"), put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    body = copy.deepcopy(run.cluster.objects[V2])
    body["spec"]["template"]["spec"]["containers"][1]["image"] = "hotfix:9"
    run.cluster.put(V2.resource, body)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "ForeignChange"
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND
    assert reason(run) == "SideNotReady"


async def test_while_an_approval_is_awaited() -> None:
    """No event comes but the one that tells of the pods, so the plan looks again by itself."""
    run = Simulation(shift("[100]", dwell="0s"), put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 0)
    assert await lasts(run, weights(run)(0)) < _BOUND
    assert reason(run) == "SideNotReady"


async def test_not_where_the_failures_of_its_step_pause() -> None:
    spec = shift("[100]", dwell="0s")
    spec["spec"]["steps"][1]["onFailure"] = "Pause"
    run = Simulation(spec, put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 0)
    await lasts(run, lambda: run.phase is Phase.PAUSED, _BOUND)
    assert run.status.failure is not None
    assert (run.status.failure.step, run.status.failure.reason) == ("shift", "SideNotReady")
    await run.turn()
    assert weight_of_new(run) == 100
    ready(run, V2, 3)
    run.cluster.rollouts = True
    run.request(RequestVerb.RESUME)
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED


async def test_in_the_very_moment_of_the_approval_nothing_is_retired() -> None:
    """The stream has not told of it yet, and the answer is read before pods are taken away."""
    run = Simulation(shift("[100]", dwell="0s"), put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 1)
    run.request(RequestVerb.APPROVE, "ok")
    for _ in range(5):
        await run.turn()
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    assert "shop-v2 carries traffic with 1 ready endpoint, and its share needs 3" in told(run)
    ready(run, V2, 3)
    run.cluster.rollouts = True
    assert await run.run() is Phase.SUCCEEDED


def told(run: Simulation) -> str:
    current = run.driver._caches._caches[run.plan].status.current
    return current.message if current else ""


async def test_too_few_may_last_as_long_as_the_step_says() -> None:
    run = Simulation(shift(more="unreadyDeadline: 90s"), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    ready(run, V2, 1)
    assert timedelta(seconds=90) <= await lasts(run, weights(run)(0)) <= timedelta(seconds=92)
    assert reason(run) == "SideNotReady"
    assert run.status.failure is not None
    assert (
        "shop-v2 carries traffic with 1 ready endpoint, and its share needs 2, for 1m30s" in run.status.failure.message
    )


@pytest.mark.parametrize("more", ["unreadyDeadline: 0s", "unreadyDeadline: 20m"])
async def test_or_for_ever(more: str) -> None:
    run = Simulation(shift("[50]", more=more), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    ready(run, V2, 1)
    await lasts(run, lambda: run.phase is Phase.WAITING)
    assert weight_of_new(run) == 50


async def test_all_that_its_workload_wants_is_enough() -> None:
    """An autoscaler that finds fewer pods enough is no failure."""
    run = Simulation(shift("[50]", more="unreadyDeadline: 10s"), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    run.cluster.objects[V2]["spec"]["replicas"] = 1
    ready(run, V2, 1)
    await lasts(run, lambda: run.phase is Phase.WAITING)


async def test_a_moment_without_pods_is_forgiven() -> None:
    run = Simulation(shift("[50]", dwell="1m"), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    for _ in range(3):
        ready(run, V2, 0)
        await run.turn()
        run.clock.pass_time(timedelta(seconds=1.5))
        await run.turn()
        ready(run, V2, 3)
        await run.turn()
        run.clock.pass_time(timedelta(seconds=1.5))
    await lasts(run, lambda: run.phase is Phase.WAITING)


async def test_the_old_side_counts_as_long_as_it_carries_some() -> None:
    run = Simulation(shift(), put=staffed())
    await run.until(weights(run)(50))
    await run.turn()
    ready(run, V1, 0)
    assert await lasts(run, lambda: run.phase is Phase.ROLLING_BACK) < _BOUND
    assert run.status.failure is not None
    assert run.status.failure.message == "shop-v1 carries traffic and has no ready endpoint, for 2s"


async def test_an_old_side_that_had_none_is_not_asked_for_any() -> None:
    """Then the shift is what helps."""
    run = Simulation(shift(), put=staffed())
    ready(run, V1, 0)
    run.cluster.rollouts = True
    scale(run.cluster, V1, 0)
    await lasts(run, weights(run)(100))


async def test_switch_loses_its_pods() -> None:
    run = Simulation(plan(_SWITCH), put=without_routes)
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 0)
    run.request(RequestVerb.APPROVE, "ok")
    took = await lasts(run, lambda: run.cluster.objects[FRONT]["spec"]["selector"] == {"app": "shop-v1"})
    assert took < _BOUND
    assert run.cluster.objects[V1]["spec"]["replicas"] == 3
    assert reason(run) == "SideNotReady"


async def test_a_plan_that_waits_with_moved_weight_asks_nobody() -> None:
    """What is streamed tells."""
    run = Simulation(shift("[50]", dwell="0s"), put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    await run.turn()
    run.clock.pass_time(timedelta(seconds=10))
    await run.turn()
    calls = run.switch.calls
    assert await run.turn() is None
    assert run.switch.calls == calls


def rolls_out(run: Simulation, ref: Ref) -> None:
    """One of three pods at a time gets another template, and takes its time."""
    ready(run, ref, 2)
    body = copy.deepcopy(run.cluster.objects[ref])
    body["spec"]["strategy"] = {"rollingUpdate": {"maxUnavailable": 1}}
    body["status"]["updatedReplicas"] = 1
    run.cluster.put(ref.resource, body)
    observed = {**body["status"], "observedGeneration": run.cluster.objects[ref]["metadata"]["generation"]}
    run.cluster.report(ref, observed)


@pytest.mark.parametrize("spec", [shift("[100]", dwell="0s"), plan(_SWITCH)], ids=["traffic", "switch"])
async def test_a_slow_rollout_of_the_side_that_carries_traffic_is_no_loss(spec: Any) -> None:
    """A later step may restart it; what its strategy allows to be missing meanwhile is not judged."""
    run = Simulation(spec, put=without_routes if spec["spec"]["steps"][1]["name"] == "turn" else staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    rolls_out(run, V2)
    for _ in range(60):
        run.clock.pass_time(timedelta(seconds=10))
        await run.turn()
    assert run.phase is Phase.WAITING, run.status
    ready(run, V2, 1)
    await lasts(run, lambda: run.phase is Phase.ROLLING_BACK)
    assert run.status.failure is not None
    assert "unreadyDeadline allows for longer" in run.status.failure.message


async def test_without_a_limit_too_few_pods_do_not_keep_a_run_from_its_end() -> None:
    spec = shift("[100]", dwell="0s", more="unreadyDeadline: 0s")
    del spec["spec"]["steps"][3]
    run = Simulation(spec, put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V2, 1)
    run.request(RequestVerb.APPROVE, "ok")
    assert await lasts(run, lambda: run.phase is Phase.SUCCEEDED) < _BOUND


# --- the baseline -----------------------------------------------------------------------------------------------------


async def test_the_old_side_has_grown_since_the_start() -> None:
    spec = shift("[100]", dwell="0s")
    spec["spec"]["steps"].insert(1, {"name": "may", "approve": {"message": "go"}})
    run = Simulation(spec, put=staffed())
    await run.until(lambda: run.phase is Phase.WAITING)
    for ref in (V1, V2):
        scale(run.cluster, ref, 40)
    ready(run, V2, 3)
    run.request(RequestVerb.APPROVE, "may")
    for _ in range(6):
        await run.turn()
    assert weight_of_new(run) == 0
    assert "shop-v2 has 3 ready endpoints and needs 40" in told(run)
    ready(run, V2, 40)
    await run.until(weights(run)(100))


async def test_the_old_side_of_a_switch_has_grown() -> None:
    spec = plan(_SWITCH)
    spec["spec"]["steps"].insert(1, {"name": "may", "approve": {"message": "go"}})
    run = Simulation(spec, put=without_routes)
    await run.until(lambda: run.phase is Phase.WAITING)
    scale(run.cluster, V1, 5)
    run.request(RequestVerb.APPROVE, "may")
    for _ in range(6):
        await run.turn()
    assert run.cluster.objects[FRONT]["spec"]["selector"] == {"app": "shop-v1"}
    assert "3 pods with app=shop-v2 are ready, and 5 are needed" in told(run)
