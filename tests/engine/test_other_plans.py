"""Two plans in one namespace: none takes the pods away that a shift of the other one needs, now or for its rollback."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from cutover.ports import DEPLOYMENTS, PLANS, SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.state import State
from cutover.status.status import Phase
from cutover.testing import CrashSwitch, MemoryCluster
from cutover.testing.controllers import react
from engine.test_drain import RULED, SHIFT, TURN
from engine.test_rollback import with_another
from support.fakes.shop import FRONT, NAMESPACE, V1, V2, plan, shop_with_an_http_route, shop_without_a_mesh
from support.fakes.simulation import Simulation

OTHER = Ref(DEPLOYMENTS, NAMESPACE, "other")
APPROVE = "{name: ok, approve: {message: go}}"
NEEDS = "before plan canary ends, whose step shift needs these pods; to end it sooner, abort or abandon it"


def lowers(name: str, replicas: int = 0) -> str:
    return f"{{name: retire, deploy: {{workload: {{name: {name}}}, replicas: {replicas}}}}}"


def shifts(kind: str = SHIFT, *, weight: int = 100) -> str:
    return f"{{name: shift, {kind.replace('MORE', ', drain: 0s').replace('[100]', f'[{weight}]')}}}"


def steps(*those: str) -> dict[str, Any]:
    return plan("steps:\n" + "".join(f"  - {step}\n" for step in those))


class Two(Simulation):
    """The plan of the simulation, and beside it the plan `canary`, which moves the traffic."""

    def __init__(
        self,
        taker: dict[str, Any],
        canary: dict[str, Any],
        put: Callable[..., None] = with_another,
        new: int = 3,
        switch: CrashSwitch | None = None,
    ) -> None:
        def put_both(cluster: MemoryCluster) -> None:
            put(cluster)
            cluster.objects[V2]["spec"]["replicas"] = new
            react(cluster)

        super().__init__(taker, put=put_both, switch=switch)
        canary["metadata"]["name"] = "canary"
        self.canary = self.cluster.put(PLANS, canary)
        self.cluster.objects[self.canary]["status"] = {"observedGeneration": -1}

    @contextmanager
    def driving_the_canary(self) -> Iterator[None]:
        taker, self.plan = self.plan, self.canary
        try:
            yield
        finally:
            self.plan = taker

    async def canary_until(self, reached: Callable[[], bool], verb: RequestVerb | None = None, step: str = "") -> None:
        with self.driving_the_canary():
            if verb:
                self.request(verb, step)
            await self.until(reached)

    async def end_canary(self) -> None:
        await self.canary_until(lambda: self.phase is Phase.SUCCEEDED and self.over, RequestVerb.APPROVE, "ok")

    async def roll_canary_back(self) -> None:
        await self.canary_until(lambda: self.phase is Phase.ROLLED_BACK and self.over, RequestVerb.ABORT)

    async def looks(self, turns: int = 5) -> None:
        """Some turns of the plan, each when it wants one."""
        for _ in range(turns):
            after = await self.turn()
            react(self.cluster)
            if after:
                self.clock.pass_time(after)

    def replicas(self, ref: Ref) -> int:
        return int(self.cluster.objects[ref]["spec"]["replicas"])

    @property
    def says(self) -> str:
        cached = self.driver._caches._caches[self.plan].status
        return (cached.current and cached.current.message) or cached.message


def waiting(run: Simulation) -> Callable[[], bool]:
    return lambda: run.phase is Phase.WAITING


async def waiting_in_the_middle() -> Two:
    """A plan that has begun before the other one, and is now allowed to take pods away."""
    run = Two(steps(APPROVE, lowers("shop-v2", 1)), steps(APPROVE, shifts()))
    await run.until(waiting(run))
    await run.canary_until(waiting(run))
    run.request(RequestVerb.APPROVE, "ok")
    return run


WAYS = [(SHIFT, with_another), (TURN, shop_without_a_mesh), (RULED, shop_with_an_http_route)]
each_way = pytest.mark.parametrize(("kind", "put"), WAYS, ids=["virtualService", "switch", "httpRoute"])


@each_way
async def test_the_old_side_stays_for_the_rollback_of_another_plan(kind: str, put: Any) -> None:
    """It has no traffic any more, so no route protects it. The plan does not even begin before the other one has ended."""
    run = Two(steps(lowers("shop-v1")), steps(shifts(kind), APPROVE), put)
    await run.canary_until(waiting(run))
    await run.looks()
    assert run.status.state is State.TARGET_BUSY
    assert run.status.message == f"Deployment shop-v1 cannot go from 3 to 0 replicas {NEEDS}"
    assert run.replicas(V1) == 3
    await run.end_canary()
    assert await run.run() is Phase.SUCCEEDED
    assert run.replicas(V1) == 0


@each_way
async def test_traffic_that_the_other_plan_has_moved_drains_also_after_its_end(kind: str, put: Any) -> None:
    """The plan is woken by that very end, and what sends the requests may not know yet where they go."""
    run = Two(steps(lowers("shop-v1")), steps(shifts(kind).replace("drain: 0s", "drain: 90s"), APPROVE), put)
    await run.canary_until(waiting(run))
    await run.looks()
    assert run.status.state is State.TARGET_BUSY
    await run.end_canary()
    ended = run.clock.now()
    await run.looks(1)
    until = (ended + timedelta(seconds=90)).strftime("%H:%M:%S")
    assert run.status.message == (
        f"Deployment shop-v1 cannot go from 3 to 0 replicas before {until} UTC: "
        "traffic that step shift has moved drains in plan canary"
    )
    run.restart()
    await run.until(lambda: run.replicas(V1) == 0)
    assert timedelta(seconds=90) <= run.clock.now() - ended <= timedelta(minutes=3)


async def test_the_other_plan_can_still_be_rolled_back() -> None:
    run = Two(steps(lowers("shop-v1")), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    await run.looks()
    await run.roll_canary_back()
    await run.looks()
    assert run.replicas(V1) == 3
    assert "cannot go from 3 to 0 replicas while VirtualService shop gives its pods 100%" in run.status.message


@pytest.mark.parametrize("verb", [RequestVerb.ABANDON, None], ids=["abandoned", "deleted"])
async def test_a_plan_that_is_over_needs_nothing(verb: RequestVerb | None) -> None:
    run = Two(steps(lowers("shop-v1")), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    await run.looks()
    if verb:
        await run.canary_until(lambda: run.phase is Phase.ABANDONED and run.over, verb)
    else:
        run.cluster.objects.pop(run.canary)  # nobody has rolled it back
    assert await run.run() is Phase.SUCCEEDED


async def test_a_step_waits_for_a_plan_that_began_later() -> None:
    run = await waiting_in_the_middle()
    await run.looks()
    assert run.phase is Phase.RUNNING
    assert run.says == f"Deployment shop-v2 cannot go from 3 to 1 replicas {NEEDS}"
    assert run.replicas(V2) == 3
    await run.roll_canary_back()
    assert await run.run() is Phase.SUCCEEDED
    assert run.replicas(V2) == 1


async def test_while_traffic_moves_a_plan_waits_and_is_not_refused() -> None:
    """What carries traffic now may have none when the other plan ends."""
    run = Two(
        steps(lowers("shop-v1")), steps(shifts(weight=50), APPROVE, shifts().replace("name: shift", "name: rest"))
    )
    await run.canary_until(waiting(run))
    await run.looks(10)
    assert run.status.state is State.TARGET_BUSY
    await run.end_canary()
    assert await run.run() is Phase.SUCCEEDED


@each_way
async def test_the_new_side_stays_before_its_first_weight(kind: str, put: Any) -> None:
    run = Two(steps(lowers("shop-v2", 1)), steps(APPROVE, shifts(kind)), put)
    await run.canary_until(waiting(run))
    await run.looks()
    assert run.status.message == f"Deployment shop-v2 cannot go from 3 to 1 replicas {NEEDS}"
    assert run.replicas(V2) == 3


async def test_what_the_sides_were_when_the_step_began_counts() -> None:
    """Also where nobody can tell from the Services any more."""
    run = Two(steps(lowers("shop-v1")), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    run.cluster.objects.pop(Ref(SERVICES, NAMESPACE, "shop-v1"))
    await run.looks()
    assert run.status.state is State.TARGET_BUSY


async def test_a_shift_whose_service_is_gone_needs_nothing() -> None:
    run = Two(steps(lowers("shop-v2", 1)), steps(APPROVE, shifts(TURN)), shop_without_a_mesh)
    await run.canary_until(waiting(run))
    run.cluster.objects.pop(FRONT)
    assert await run.run() is Phase.SUCCEEDED


async def test_a_stream_that_is_behind_hides_no_run() -> None:
    """Another process drives the other plan, and this one has not yet heard of its new run."""
    run = Two(steps(lowers("shop-v1")), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    old = copy.deepcopy(run.cluster.objects[run.canary])
    old["status"]["run"]["number"] = 0
    old["status"]["steps"] = [step | {"state": "Undone"} for step in old["status"]["steps"]]
    seen = run.cluster.seen
    run.cluster.seen = lambda ref: old if ref == run.canary else seen(ref)  # type: ignore[method-assign]
    await run.looks()
    assert run.status.state is State.TARGET_BUSY


async def test_an_undo_waits_too() -> None:
    more = lowers("shop-v2", 3).replace("retire", "more")
    run = Two(steps(more, APPROVE), steps(APPROVE, shifts()), new=0)
    await run.until(waiting(run))
    await run.canary_until(waiting(run))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "NeededElsewhere"
    assert run.status.message.endswith(f"Deployment shop-v2 cannot go from 3 to 0 replicas {NEEDS}")
    assert run.replicas(V2) == 3
    await run.roll_canary_back()
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


@pytest.mark.parametrize(
    "taker",
    [lowers("other"), lowers("shop-v1", 5), "{name: roll, deploy: {workload: {name: shop-v1}, images: [IMAGE]}}"],
    ids=["another workload", "more pods", "another image"],
)
async def test_nothing_else_waits(taker: str) -> None:
    image = "{container: app, image: 'shop-v1:2'}"
    run = Two(steps(taker.replace("IMAGE", image)), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    assert await run.run() is Phase.SUCCEEDED


async def test_a_shift_that_is_undone_needs_nothing_any_more() -> None:
    deploy = "{name: deploy, deploy: {workload: {name: other}, images: [{container: app, image: 'other:2'}]}}"
    run = Two(steps(lowers("shop-v2")), steps(deploy, shifts(), APPROVE))
    await run.canary_until(waiting(run))
    run.cluster.rollouts = False  # so that its rollback does not end
    await run.canary_until(
        lambda: run.status.current is not None and run.status.current.step == "deploy", RequestVerb.ABORT
    )
    with run.driving_the_canary():
        assert run.phase is Phase.ROLLING_BACK
    run.cluster.rollouts = True
    assert await run.run() is Phase.SUCCEEDED


async def test_a_shift_that_a_rollback_has_not_begun_needs_nothing() -> None:
    deploy = "{name: deploy, deploy: {workload: {name: other}, images: [{container: app, image: 'other:2'}]}}"
    run = Two(steps(lowers("shop-v2")), steps(deploy, APPROVE, shifts()))
    await run.canary_until(waiting(run))
    run.cluster.rollouts = False  # so that its rollback does not end
    await run.canary_until(lambda: run.phase is Phase.ROLLING_BACK, RequestVerb.ABORT)
    run.cluster.rollouts = True
    assert await run.run() is Phase.SUCCEEDED


async def test_past_the_point_of_no_return_nothing_goes_back() -> None:
    final = "{name: final, irreversible: true, deploy: {workload: {name: other}, images: [{container: app, image: 'other:2'}]}}"
    run = Two(steps(lowers("shop-v1")), steps(shifts(), final, APPROVE))
    await run.canary_until(waiting(run))
    assert await run.run() is Phase.SUCCEEDED


async def test_of_a_plan_that_cannot_be_read_nobody_knows_what_it_needs() -> None:
    run = Two(steps(lowers("shop-v1")), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    run.cluster.objects[run.canary]["spec"]["steps"][0]["traffic"]["weights"] = ["all"]
    await run.looks()
    assert run.status.state is State.TARGET_BUSY
    assert run.status.message == (
        "Deployment shop-v1 cannot go from 3 to 0 replicas before plan canary ends, whose spec cannot be read, so that nobody "
        "knows which pods it needs; restore the spec, or abandon that plan"
    )


async def test_a_plan_that_takes_no_pods_away_asks_for_no_plans() -> None:
    run = Two(steps(lowers("shop-v1", 5)), steps(shifts(), APPROVE))
    await run.canary_until(waiting(run))
    listed = list[Any]()
    inner = run.cluster.list

    async def noted(resource: Any, *args: Any, **more: Any) -> Any:
        listed.append(resource)
        return await inner(resource, *args, **more)

    run.cluster.list = noted  # type: ignore[method-assign]
    assert await run.run() is Phase.SUCCEEDED
    assert PLANS not in listed


@pytest.mark.parametrize("way", range(3), ids=["dies before", "dies after", "no answer"])
async def test_no_death_takes_them_away(way: int) -> None:
    """A new process asks again, and nothing is left to clean up."""
    for at in range(1 + way, 200, 3):
        run = await waiting_in_the_middle()
        run.switch.at, run.switch.after, run.switch.lost = run.switch.calls + at, way == 1, way == 2
        await run.looks(4)
        assert run.replicas(V2) == 3, f"at call {at}"
        died = run.switch.calls >= run.switch.at
        await run.roll_canary_back()
        assert await run.run() is Phase.SUCCEEDED
        assert run.replicas(V2) == 1
        if not died:
            assert at > 20
            return
    raise AssertionError("it makes more calls than that")
