"""Back again: to as much of the old side as is better than to stay, in parts where it can carry a part, and no more than that."""

from __future__ import annotations

import copy
from dataclasses import asdict
from typing import Any

import pytest

from cutover.field_path import ABSENT
from cutover.objects.endpoints import Side
from cutover.objects.serving import Count
from cutover.ports import DEPLOYMENTS, VIRTUAL_SERVICES, Ref, Sample
from cutover.routing.routes import Destination
from cutover.routing.shift import flat, weights_back
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from cutover.steps.traffic.back import Capacity, affordable
from cutover.targets.snapshots import Snapshot
from cutover.testing import CrashSwitch, MemoryCluster
from cutover.testing.controllers import react
from support.fakes.shop import NAMESPACE, ROUTES, V1, V2, plan, shop, virtual_service
from support.fakes.simulation import Simulation

SPEC = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 20}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [WEIGHTS]MORE}
  - {name: ok, approve: {message: go}}
"""


def spec(more: str = "", weights: str = "100") -> dict[str, Any]:
    return plan(SPEC.replace("MORE", f", {more}" if more else "").replace("WEIGHTS", weights))


def shop_of_twenty(cluster: MemoryCluster) -> None:
    shop(cluster)
    cluster.objects[V1]["spec"]["replicas"] = 20
    react(cluster)


def ready(run: Simulation, of: Ref, pods: int, *, wanted: int | None = None) -> None:
    """So many pods of a Deployment are ready, and no more become so; an autoscaler may want fewer than there were."""
    cluster = run.cluster
    cluster.rollouts = False
    body = copy.deepcopy(cluster.objects[of])
    if wanted is not None:
        body["spec"]["replicas"] = wanted
        cluster.put(DEPLOYMENTS, body)
    figures = {"replicas": pods, "updatedReplicas": pods, "readyReplicas": pods, "availableReplicas": pods}
    cluster.report(of, {"observedGeneration": cluster.objects[of]["metadata"]["generation"], **figures})
    react(cluster)


def weights(run: Simulation) -> list[int]:
    return [entry.get("weight", 0) for entry in run.cluster.objects[ROUTES]["spec"]["http"][0]["route"]]


async def shifted(more: str = "", weights: str = "100", switch: CrashSwitch | None = None) -> Simulation:
    """All has gone over, and a person is asked whether to go on."""
    run = Simulation(spec(more, weights), put=shop_of_twenty, switch=switch)
    await run.until(lambda: run.phase is Phase.WAITING)
    return run


async def look(run: Simulation, times: int = 4) -> None:
    for _ in range(times):
        after = await run.turn()
        react(run.cluster)
        assert after is not None
        run.clock.pass_time(after)


def message(run: Simulation) -> str:
    status = run.driver._caches._caches[run.plan].status
    assert status.current is not None
    return status.current.message


@pytest.mark.parametrize("pods", [19, 10])
async def test_half_of_the_old_side_is_better_than_a_new_one_that_fails(pods: int) -> None:
    """One node is away; whoever aborts wants the traffic back now, not when the last pod has come."""
    run = await shifted()
    ready(run, V1, pods, wanted=20)
    run.request(RequestVerb.ABORT)
    await run.turn()
    assert weights(run) == [100, 0]


async def test_a_plan_can_ask_for_all_of_it() -> None:
    run = await shifted("backward: {share: 100}")
    ready(run, V1, 19, wanted=20)
    run.request(RequestVerb.ABORT)
    await run.turn()
    assert weights(run) == [95, 5]
    assert message(run) == ("only 95% of the traffic is switched back: shop-v1 has 19 ready endpoints and needs 20")
    ready(run, V1, 20)
    await look(run, 1)
    assert weights(run) == [100, 0]


async def test_what_an_idle_side_was_scaled_down_to_is_no_measure_of_what_it_needs() -> None:
    """The autoscaler leaves it one pod of twenty, which is all that it wants. The traffic brings the others, and they the rest."""
    run = await shifted()
    ready(run, V1, 1, wanted=1)
    run.request(RequestVerb.ABORT)
    seen = []
    for pods in (1, 3, 7, 10):
        ready(run, V1, pods, wanted=pods)
        await look(run, 2)
        seen.append(weights(run))
    assert seen == [[10, 90], [30, 70], [70, 30], [100, 0]]
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK


async def test_what_has_gone_back_stays_where_it_is() -> None:
    run = await shifted()
    ready(run, V1, 6, wanted=20)
    run.request(RequestVerb.ABORT)
    await look(run)
    assert weights(run) == [60, 40]
    ready(run, V1, 2)
    await look(run)
    assert weights(run) == [60, 40], "fewer pods are no reason to send it where requests fail"


async def test_nothing_goes_to_a_side_without_pods() -> None:
    run = await shifted()
    ready(run, V1, 0, wanted=20)
    run.request(RequestVerb.ABORT)
    await look(run)
    assert weights(run) == [0, 100]
    assert message(run) == "traffic cannot be switched back yet: shop-v1 has 0 ready endpoints and needs 10"


async def test_all_of_it_when_the_new_side_answers_nothing() -> None:
    run = await shifted("backward: {share: 100}")
    ready(run, V1, 1, wanted=20)
    ready(run, V2, 0)
    run.request(RequestVerb.ABORT)
    await run.turn()
    assert weights(run) == [100, 0]


async def test_a_part_that_does_not_grow_is_told_to_a_person_with_its_numbers() -> None:
    run = await shifted()
    ready(run, V1, 3, wanted=20)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert weights(run) == [30, 70]
    assert run.status.reason == "OldSideNotReady"
    assert "only 30% of the traffic is switched back: shop-v1 has 3 ready endpoints and needs 10" in run.status.message
    ready(run, V1, 4)
    await look(run, 1)
    assert (weights(run), run.phase) == ([40, 60], Phase.ROLLING_BACK), "it goes on by itself"
    await run.until(lambda: run.phase is Phase.STUCK)
    ready(run, V1, 10)
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs()[ROUTES] == run.specs_before()[ROUTES]


async def test_a_part_that_grows_is_not_stuck_however_long_it_takes() -> None:
    run = await shifted()
    ready(run, V1, 1, wanted=20)
    run.request(RequestVerb.ABORT)
    for pods in range(1, 10):
        ready(run, V1, pods)
        begin = run.clock.now()
        while (run.clock.now() - begin).total_seconds() < 50:
            await look(run, 1)
        assert (weights(run)[0], run.phase) == (pods * 10, Phase.ROLLING_BACK)


async def test_a_part_written_when_someone_has_just_given_more_takes_none_of_it_away() -> None:
    """Between the look and the write a person sets the old weights: the patch tests what was looked at."""
    run = await shifted()
    ready(run, V1, 3, wanted=20)
    real = run.cluster.patch
    seen: list[list[int]] = []

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        if ref == ROUTES and not seen and any("/weight" in op["path"] for op in operations):
            run.cluster.put(VIRTUAL_SERVICES, {**run.cluster.objects[ROUTES], "spec": virtual_service()["spec"]})
            seen.append(weights(run))
        return await real(ref, operations, account)

    run.cluster.patch = patch  # type: ignore[method-assign]
    run.request(RequestVerb.ABORT)
    await look(run)
    assert seen == [[100, 0]]
    assert weights(run) == [100, 0]


EARLY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 20}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}
  - {name: other, deploy: {workload: {name: other}, images: [{container: app, image: "other:2"}]}}
  - {name: ok, approve: {message: go}}
"""


def with_another(cluster: MemoryCluster) -> None:
    shop_of_twenty(cluster)
    other = copy.deepcopy(cluster.objects[V1])
    other["metadata"] = {"name": "other", "namespace": NAMESPACE}
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    cluster.put(DEPLOYMENTS, other)


async def test_a_part_goes_back_ahead_of_its_turn_and_keeps_nothing_waiting() -> None:
    """First as much as can go; then what comes before it in the order; the rest when all of it can go."""
    run = Simulation(plan(EARLY), put=with_another)
    await run.until(lambda: run.phase is Phase.WAITING)
    ready(run, V1, 2, wanted=20)
    run.request(RequestVerb.ABORT)
    await look(run, 1)
    assert weights(run) == [20, 80]
    await look(run, 2)
    assert run.status.current is not None
    assert run.status.current.step == "other"
    ready(run, V1, 3)
    await look(run, 2)
    assert weights(run) == [20, 80], "a pod more is not worth leaving the step that is undone now"
    ready(run, V1, 10)
    await look(run, 2)
    assert weights(run) == [100, 0]
    assert run.status.steps[1].state is StepState.UNDONE
    run.cluster.rollouts = True
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_the_undo_of_an_attempt_may_take_as_long_as_it_gets_on() -> None:
    """Before a retry as well, what goes back in parts is not over after a minute."""
    body = spec("dwell: 1m")
    gate = {"name": "g", "prometheus": {"query": "x"}, "pass": {"max": "5"}}
    body["spec"]["steps"][1] |= {"onFailure": "Pause", "gates": [gate]}
    run = Simulation(body, put=shop_of_twenty)
    run.metrics.answer = lambda _: Sample(9.0)
    await run.until(lambda: run.phase is Phase.PAUSED)
    ready(run, V1, 1, wanted=20)
    run.metrics.answer = lambda _: Sample(1.0)
    run.request(RequestVerb.RETRY)
    for pods in range(1, 10):
        ready(run, V1, pods)
        begin = run.clock.now()
        while (run.clock.now() - begin).total_seconds() < 50:
            await look(run, 1)
        assert (weights(run)[0], run.phase) == (pods * 10, Phase.RUNNING)
        assert run.status.steps[1].state is StepState.UNDOING


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_anywhere_while_it_goes_back_in_parts(after: bool) -> None:  # noqa: FBT001 -- a parameter
    """Whatever call of a port the process dies at, the weights never fall on the old side, and all of it is as it was."""
    for at in range(1, 100):
        run = await shifted()
        seen = [0]

        def told(verb: str, ref: Ref, content: Any, run: Simulation = run, seen: list[int] = seen) -> None:
            del content
            if verb == "patch" and ref == ROUTES:
                seen.append(weights(run)[0])

        ready(run, V1, 1, wanted=20)
        run.cluster.told = told
        begin = run.switch.calls
        run.switch.at, run.switch.after = begin + at, after
        run.request(RequestVerb.ABORT)
        for pods in (1, 4, 10):
            ready(run, V1, pods)
            await look(run, 3)
        run.cluster.rollouts = True
        assert await run.run() is Phase.ROLLED_BACK
        assert run.specs() == run.specs_before()
        assert seen == sorted(seen), f"at call {at}: {seen}"
        if run.switch.calls - begin < at:
            return
    raise AssertionError("it makes more calls than that")


# --- numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "had", "share", "goes"),
    [
        (0, 5, 20, 50, 0),
        (0, 0, 20, 50, 0),
        (1, 0, 20, 100, 100),
        (1, 5, 20, 50, 10),
        (9, 5, 20, 50, 90),
        (10, 5, 20, 50, 100),
        (1, 5, 3, 50, 66),
        (2, 5, 3, 50, 100),
        (1, 5, 1000, 100, 0),
        (55, 5, 100, 55, 100),
        (1, 5, 0, 50, 100),
    ],
)
def test_what_it_can_take_of_a_hundred(old: int, new: int, had: int, share: int, goes: int) -> None:
    assert Capacity(Count(old), Count(new), had * share).of(100) == goes


def snapshot(was: list[Any]) -> Snapshot:
    side = Side("shop-v1", {"app": "shop-v1"}, subset=False)
    paths = [("spec", "http", {"name": "primary"}, "route", at, "weight") for at in range(2)]
    return Snapshot("uid", tuple(zip(paths, was, strict=True)), {"from": asdict(side), "fromReady": 20})


@pytest.mark.parametrize(
    ("was", "now", "pods", "goes", "short"),
    [
        ([100, ABSENT], [0, 100], 10, [100, ABSENT], ""),
        (
            [100, ABSENT],
            [0, 100],
            4,
            [40, 60],
            "only 40% of the traffic is switched back: shop-v1 has 4 ready endpoints and needs 10",
        ),
        (
            [100, 0],
            [70, 30],
            1,
            [70, 30],
            "only 70% of the traffic is switched back: shop-v1 has 1 ready endpoint and needs 10",
        ),
        ([80, 20], [0, 100], 8, [80, 20], ""),
        (
            [80, 20],
            [0, 100],
            7,
            [70, 30],
            "only 70% of the traffic is switched back: shop-v1 has 7 ready endpoints and needs 8",
        ),
        ([0, 100], [0, 100], 0, [0, 100], ""),
        ([0, 100], [50, 50], 0, [0, 100], ""),
        (
            [1, 99],
            [0, 100],
            0,
            [0, 100],
            "traffic cannot be switched back yet: shop-v1 has 0 ready endpoints and needs 1",
        ),
        ([1, 0], [0, 1], 9, [0, 1], "traffic cannot be switched back yet: shop-v1 has 9 ready endpoints and needs 10"),
        ([1, 0], [0, 1], 10, [1, 0], ""),
    ],
)
def test_the_weights_it_gets(was: list[Any], now: list[int], pods: int, goes: list[Any], short: str) -> None:
    back = affordable(
        snapshot(was), virtual_service(*now), Capacity(Count(pods), Count(5), 20 * 50), Destination(host="shop-v1")
    )
    assert ([change.to for change in back.weights], back.short) == (goes, short)


def test_without_a_limit_all_is_as_it_was() -> None:
    changes = flat(weights_back(snapshot([100, ABSENT]), virtual_service(0, 100)))
    assert [(change.to, change.ours) for change in changes] == [(100, 0), (ABSENT, 100)]
