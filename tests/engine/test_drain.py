"""After traffic has moved away from a side no step takes pods from it for a while, whoever dies in between."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta
from typing import Any

import pytest

from cutover.ports import HTTP_ROUTES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import CrashSwitch
from engine.test_rollback import with_another
from steps.test_sides_without_pods import ready
from support.fakes.shop import FRONT, ROUTES, RULES, V1, V2, plan, shop, shop_with_an_http_route, shop_without_a_mesh
from support.fakes.simulation import Simulation

SHIFT = "traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]MORE}"
RULED = "traffic: {httpRoute: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]MORE}"
TURN = "switch: {service: front, selector: {app: shop-v2}MORE}"
SPEC = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - {name: shift, SHIFT}
  - {name: retire, deploy: {workload: {name: RETIRED}, replicas: 0}}
  - {name: ok, approve: {message: go}}
"""

WAYS = [(SHIFT, ROUTES, shop), (TURN, FRONT, shop_without_a_mesh), (RULED, RULES, shop_with_an_http_route)]
each_way = pytest.mark.parametrize(("kind", "ref", "put"), WAYS, ids=["virtualService", "switch", "httpRoute"])


def spec(kind: str = SHIFT, more: str = "", retired: str = "shop-v1") -> dict[str, Any]:
    text = SPEC.replace("SHIFT", kind).replace("MORE", f", {more}" if more else "").replace("RETIRED", retired)
    return plan(text)


class Moments:
    """When each target was written last, labels apart, and when its replicas were lowered."""

    def __init__(self, run: Simulation) -> None:
        self.last: dict[Ref, datetime] = {}
        self.lowered: dict[Ref, datetime] = {}
        self._run = run
        run.cluster.told = self._told

    def _told(self, verb: str, ref: Ref, content: Any) -> None:
        writes = (
            [op for op in content if op["op"] != "test" and op["path"].startswith("/spec")] if verb == "patch" else ()
        )
        for op in writes:
            self.last[ref] = self._run.clock.now()
            if op["path"] == "/spec/replicas" and op["value"] < self._run.cluster.objects[ref]["spec"]["replicas"]:
                self.lowered[ref] = self._run.clock.now()

    def between(self, moved: Ref, lowered: Ref) -> float:
        """Seconds from the last move of the traffic to when pods were taken away."""
        return (self.lowered[lowered] - self.last[moved]).total_seconds()


@each_way
async def test_forward_the_old_pods_stay_until_it_has_drained(kind: str, ref: Ref, put: Any) -> None:
    run = Simulation(spec(kind), put=put)
    seen = Moments(run)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert 30 <= seen.between(ref, V1) < 32


@each_way
async def test_the_old_pods_stay_while_the_new_side_lacks_some_at_the_end_of_the_drain(
    kind: str, ref: Ref, put: Any
) -> None:
    """What was asked when the drain began may not be so any more when it is over."""
    run = Simulation(spec(kind), put=put)
    seen = Moments(run)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "retire")
    while run.clock.now() < seen.last[ref] + timedelta(seconds=25):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=1))
    ready(run, V2, 1)
    while run.clock.now() < seen.last[ref] + timedelta(minutes=3):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=1))
    assert V1 not in seen.lowered
    run.cluster.rollouts = True
    await run.until(lambda: run.phase is Phase.WAITING)
    assert V1 in seen.lowered


@each_way
async def test_backward_the_traffic_goes_at_once_and_the_new_pods_stay(kind: str, ref: Ref, put: Any) -> None:
    run = Simulation(spec(kind, "drain: 20s", retired="store").copy(), put=put)
    run.cluster.objects[run.plan]["spec"]["steps"][2]["deploy"]["workload"]["kind"] = "StatefulSet"
    seen = Moments(run)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.clock.pass_time(timedelta(hours=1))
    asked = run.clock.now()
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert (seen.last[ref] - asked).total_seconds() < 1
    assert 20 <= seen.between(ref, V2) < 22
    assert run.specs() == run.specs_before()


async def test_it_is_said_why_nothing_happens() -> None:
    run = Simulation(spec(), put=shop)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "retire")
    await run.turn()
    status = run.driver._caches._caches[run.plan].status
    assert status.current is not None
    assert status.current.message == (
        "Deployment shop-v1 keeps its 3 replicas until 12:00:30 UTC: traffic that step shift has moved drains"
    )


@pytest.mark.parametrize(
    ("more", "waits"), [("dwell: 10s", 20), ("dwell: 1m", 0), ("drain: 0s", 0), ("drain: 5m", 300)]
)
async def test_it_counts_from_the_last_weight(more: str, waits: float) -> None:
    """The dwell is a part of it, and who wants none has none."""
    run = Simulation(spec(more=more), put=shop)
    seen = Moments(run)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "retire")
    begin = run.clock.now()
    await run.until(lambda: V1 in seen.lowered)
    assert waits <= (seen.lowered[V1] - begin).total_seconds() < waits + 1


async def test_a_workload_that_no_traffic_has_left_does_not_wait() -> None:
    run = Simulation(spec(retired="other"), put=with_another)
    seen = Moments(run)
    other = Ref(V1.resource, V1.namespace, "other")
    await run.until(lambda: other in seen.lowered)
    assert seen.between(ROUTES, other) < 1


async def test_more_pods_do_not_wait() -> None:
    body = spec()
    body["spec"]["steps"][2]["deploy"]["replicas"] = 9
    run = Simulation(body, put=shop)
    begin = run.clock.now()
    await run.until(lambda: run.phase is Phase.WAITING)
    assert (run.clock.now() - begin).total_seconds() < 5


async def test_a_weight_that_is_written_again_begins_it_again() -> None:
    """Somebody has given the old side a part back; after a resume it goes over once more."""
    run = Simulation(spec(), put=shop)
    seen = Moments(run)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "retire")
    run.clock.pass_time(timedelta(seconds=25))
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    for entry, weight in zip(body["spec"]["http"][0]["route"], (40, 60), strict=True):
        entry["weight"] = weight
    run.cluster.put(ROUTES.resource, body)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: V1 in seen.lowered)
    assert seen.between(ROUTES, V1) >= 30


@each_way
@pytest.mark.exhaustive
@pytest.mark.parametrize("way", range(4), ids=["dies before", "dies after", "not done", "done"])
@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
async def test_no_death_makes_it_shorter(kind: str, ref: Ref, put: Any, way: int, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """A new process does not know when the traffic moved, so it waits for all of it. At each call one of the four happens."""
    for at in range(1 + way, 200, 4):
        run = Simulation(spec(kind), put=put, switch=CrashSwitch(at, bool(way % 2), lost=way > 1))
        seen = Moments(run)
        if back:
            await run.until(lambda ref=ref, seen=seen: ref in seen.last)  # type: ignore[misc]
            run.request(RequestVerb.ABORT)
            assert await run.run() is Phase.ROLLED_BACK
        else:
            await run.until(lambda run=run: run.phase is Phase.WAITING)  # type: ignore[misc]
        assert seen.between(ref, V2 if back else V1) >= 30, f"at call {at}"
        if run.switch.calls < at:
            return
    raise AssertionError("it makes more calls than that")


def report(run: Simulation, generation: int) -> None:
    """The gateway has taken up this generation of the HTTPRoute."""
    accepted = {"type": "Accepted", "status": "True", "observedGeneration": generation}
    parents = [{"parentRef": {"name": "gateway"}, "conditions": [accepted]}]
    body = run.cluster.objects[RULES]
    run.cluster.objects[RULES] = body | {"status": {"parents": parents}}


@pytest.mark.parametrize(("reports", "waits"), [(45, 45), (10, 30), (1000, 60)])
async def test_the_old_pods_stay_until_the_gateway_has_taken_it_up(reports: int, waits: int) -> None:
    """Longer than the drain, but not for ever: some never report again."""
    run = Simulation(spec(RULED), put=shop_with_an_http_route)
    report(run, run.cluster.objects[RULES]["metadata"]["generation"])
    seen = Moments(run)
    await run.until(lambda: RULES in seen.last)
    moved, told = run.clock.now(), False
    while V1 not in seen.lowered:
        await run.turn()
        run.clock.pass_time(timedelta(seconds=0.5))
        if (run.clock.now() - moved).total_seconds() >= reports and not told:
            report(run, run.cluster.objects[RULES]["metadata"]["generation"])
            told = True
    assert waits <= seen.between(RULES, V1) <= waits + 1
    assert RULES.resource == HTTP_ROUTES


@pytest.mark.parametrize("more", ["drain: 30s", "drain: 0s"])
async def test_a_route_that_is_deleted_keeps_no_other_step_from_its_undo(more: str) -> None:
    """What an undo reads besides its own target may be gone; that is no reason to skip it."""
    run = Simulation(spec(RULED, more), put=shop_with_an_http_route)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "ok")
    run.cluster.delete(RULES)
    assert await run.run() is Phase.ROLLED_BACK
    after, before = run.specs(), run.specs_before()
    del before[RULES]
    assert after == before
    assert "skipped" in run.status.steps[1].message
    assert "skipped" not in run.status.steps[0].message


async def test_the_time_for_pods_to_stop_begins_after_the_drain() -> None:
    """Ten minutes, as without a drain: five of them would be over by then."""
    body = spec(more="drain: 5m")
    del body["spec"]["steps"][2]
    run = Simulation(body, put=shop)
    seen = Moments(run)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.rollouts = False
    run.request(RequestVerb.ABORT)
    await run.until(lambda: V2 in seen.lowered)
    while run.phase is Phase.ROLLING_BACK:
        after = await run.turn()
        assert after is not None
        run.clock.pass_time(after)
    assert run.phase is Phase.STUCK
    assert timedelta(minutes=10) <= run.clock.now() - seen.lowered[V2] <= timedelta(minutes=12)
