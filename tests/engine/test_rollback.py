"""The way back of a real driver: the calls it costs while it waits, and how long a deletion waits for it."""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Denied, OutsideError, Unavailable
from cutover.field_path import Operation
from cutover.ports import DEPLOYMENTS, Ref, Sample
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing.controllers import react
from engine.test_other_writers import edit
from support.fakes.shop import NAMESPACE, V1, V2, plan, shop
from support.fakes.simulation import Simulation

DEPLOY_AND_ASK = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - {name: ok, approve: {message: go}}
"""

BEHIND_A_WALL = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}
  - {name: wall, deploy: {workload: {name: other}, replicas: 2}, irreversible: true}
  - {name: after, deploy: {workload: {name: other}, images: [{container: app, image: "other:2"}]}}
  - {name: ok, approve: {message: go}}
"""

SLOW = """
steps:
  - {name: many, deploy: {workload: {name: shop-v2}, replicas: 20}}
  - {name: image, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}]}}
  - {name: ok, approve: {message: go}}
"""


def with_another(cluster: Any) -> None:
    """The shop, and a Deployment that no traffic rests on."""
    shop(cluster)
    other = copy.deepcopy(cluster.objects[V1])
    other["metadata"] = {"name": "other", "namespace": NAMESPACE}
    other["spec"]["selector"] = {"matchLabels": {"app": "other"}}
    other["spec"]["template"]["metadata"]["labels"] = {"app": "other"}
    cluster.put(DEPLOYMENTS, other)


async def test_an_undo_that_waits_behind_a_wall_costs_a_look_now_and_then() -> None:
    run = Simulation(plan(BEHIND_A_WALL), put=with_another)
    run.metrics.answer = lambda _: Sample(0.1)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.rollouts = False
    run.request(RequestVerb.ABORT)
    before = run.switch.calls
    after = await run.turn()
    assert run.phase is Phase.ROLLING_BACK
    assert run.status.current is not None
    assert run.status.current.step == "after"
    assert after is not None
    assert after > timedelta(seconds=1)
    assert run.switch.calls - before < 30


# --- a deletion that finds no way back ----------------------------------------------------------------------------------


def spoil(run: Simulation) -> None:
    """A CRD upgraded first: the spec is not what this process can read, and no event tells it."""
    body = run.cluster.objects[run.plan]
    run.cluster.objects[run.plan] = body | {"spec": body["spec"] | {"unknown": 1}}
    run.restart()


async def gone_after(run: Simulation) -> timedelta:
    """Delete the plan; how long it stays."""
    begin = run.clock.now()
    run.cluster.delete(run.plan)
    for _ in range(1_000):
        after = await run.turn()
        if run.plan not in run.cluster.objects:
            return run.clock.now() - begin
        assert after is not None, "nothing will ever happen again"
        run.clock.pass_time(after)
    raise AssertionError(f"it stays: {run.status}")


def never(run: Simulation, error: OutsideError, wanted: Callable[[Operation], bool]) -> None:
    """The server refuses writes of V2 in which such an operation is."""
    patch = run.cluster.patch

    async def refusing(ref: Ref, operations: Sequence[Operation], account: str = "") -> Any:
        if ref == V2 and any(map(wanted, operations)):
            raise error
        return await patch(ref, operations, account)

    run.cluster.patch = refusing  # type: ignore[method-assign]


async def _stuck(run: Simulation) -> None:
    await run.until(lambda: run.phase is Phase.WAITING)
    edit(run, V2, lambda body: body["spec"].update(replicas=9))
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)


async def _claiming(run: Simulation) -> None:
    never(run, Unavailable("no"), lambda _: True)
    await run.until(lambda: run.status.reason == "Claiming")


async def _releasing(run: Simulation) -> None:
    await run.until(lambda: run.phase is Phase.WAITING)
    never(run, Denied("no"), lambda operation: operation["op"] == "remove")
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.status.reason == "Releasing")


async def _reclaiming(run: Simulation) -> None:
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    never(run, Unavailable("no"), lambda _: True)
    run.request(RequestVerb.ROLLBACK)
    await run.until(lambda: run.status.reason == "Reclaiming" and run.bound)


async def _held(run: Simulation) -> None:
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.PAUSE)
    await run.turn()
    run.clock.pass_time(timedelta(hours=1))
    assert run.phase is Phase.PAUSED


@pytest.mark.parametrize("place", [_stuck, _claiming, _releasing, _reclaiming, _held])
async def test_a_deleted_plan_whose_spec_cannot_be_read_is_abandoned_after_ten_minutes(
    place: Callable[[Simulation], Awaitable[None]],
) -> None:
    run = Simulation(plan(DEPLOY_AND_ASK), put=shop)
    await place(run)
    spoil(run)
    await run.turn()
    assert timedelta(minutes=10) <= await gone_after(run) <= timedelta(minutes=11)


async def test_a_slow_rollout_back_is_waited_for_as_long_as_it_gets_on() -> None:
    """One pod a minute, twenty pods, and the plan is deleted: the kind is as patient as the saga."""
    run = Simulation(plan(SLOW), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.rollouts = False
    run.cluster.delete(run.plan)
    await run.turn()
    for pods in range(1, 20):
        told = {"observedGeneration": run.cluster.objects[V2]["metadata"]["generation"], "replicas": 20}
        run.cluster.report(V2, told | dict.fromkeys(("updatedReplicas", "readyReplicas", "availableReplicas"), pods))
        run.clock.pass_time(timedelta(minutes=1))
        await run.turn()
        assert run.plan in run.cluster.objects, f"given up at {pods} pods"
        assert run.phase is Phase.ROLLING_BACK
    run.cluster.rollouts = True
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert run.recorder.notices[-1].reason == "RolledBack"
    assert run.specs() == run.specs_before()


async def _at_half() -> Simulation:
    """Half of the traffic is moved, then the old side loses its pods for some time."""
    shift = "traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50]}"
    run = Simulation(
        plan(DEPLOY_AND_ASK.replace("  - {name: ok", f"  - {{name: shift, {shift}}}\n  - {{name: ok")), put=shop
    )
    await run.until(lambda: run.phase is Phase.WAITING)
    run.cluster.rollouts = False
    figures = dict.fromkeys(("updatedReplicas", "readyReplicas", "availableReplicas"), 0)
    run.cluster.report(V1, run.cluster.objects[V1]["status"] | figures)
    while react(run.cluster):
        pass
    run.cluster.delete(run.plan)
    await run.until(lambda: run.phase is Phase.STUCK)
    return run


async def test_a_deleted_plan_waits_ten_minutes_for_the_old_side_and_then_says_what_it_leaves() -> None:
    run = await _at_half()
    begin = run.clock.now()
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert timedelta(minutes=8) < run.clock.now() - begin <= timedelta(minutes=11)
    notice = run.recorder.notices[-1]
    assert (notice.reason, notice.warning) == ("Abandoned", True)
    assert notice.message.startswith("undo of step shift is stuck (OldSideNotReady: ")
    assert notice.message.endswith("; not undone: deploy, shift")


@pytest.mark.parametrize("away", [0, 60])
async def test_a_deleted_plan_is_undone_once_the_old_side_is_back(away: int) -> None:
    """Also where the operator was away for longer than that, and is back before the old side."""
    run = await _at_half()
    run.clock.pass_time(timedelta(minutes=away))
    run.restart()
    for _ in range(2):
        after = await run.turn()
        assert after is not None
        run.clock.pass_time(min(after, timedelta(minutes=1)))
    run.cluster.rollouts = True
    await run.until(lambda: run.plan not in run.cluster.objects)
    assert run.recorder.notices[-1].reason == "RolledBack"
    assert run.specs() == run.specs_before()


# --- beside what others have set ----------------------------------------------------------------------------------------

NOTED = """
steps:
  - name: roll
    deploy:
      workload: {name: shop-v1}
      images: [{container: app, image: "shop:2"}]
      patch: '{template: {metadata: {annotations: {config-version: "42"}}}}'
  - {name: ok, approve: {message: go}}
"""


@pytest.mark.parametrize("after_success", [False, True])
async def test_a_restart_by_hand_stays_and_all_that_is_ours_goes_back(after_success: bool) -> None:  # noqa: FBT001
    """`kubectl rollout restart` adds its annotation to the map that the plan has filled."""
    run = Simulation(plan(f"keepSnapshots: 1h\n{NOTED}" if after_success else NOTED), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    edit(run, V1, lambda body: body["spec"]["template"]["metadata"]["annotations"].update(restarted="now"))
    if after_success:
        run.request(RequestVerb.APPROVE, "ok")
        assert await run.run() is Phase.SUCCEEDED
        run.request(RequestVerb.ROLLBACK)
        await run.until(lambda: run.phase is not Phase.SUCCEEDED)
    else:
        run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    template, before = (each[V1]["spec"]["template"] for each in (run.cluster.objects, run.before))
    assert template["metadata"].pop("annotations") == {"restarted": "now"}
    assert template == before


EVERYTHING = """
steps:
  - name: roll
    deploy:
      workload: {name: shop-v2}
      replicas: 3
      images: [{container: app, image: "shop:2"}]
      patch: '{template: {metadata: {annotations: {config-version: "42"}}}}'
  - {name: flip, flags: {configMap: flags, set: {COLOUR: green, MORE: "1"}, reload: [{name: shop-v1}, {name: shop-v2}]}}
  - {name: front, switch: {service: front, selector: {app: shop-v2}}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
  - {name: again, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:3"}]}}
  - {name: ok, approve: {message: go}}
"""


async def test_after_a_rollback_every_field_belongs_to_who_owned_it() -> None:
    run = Simulation(plan(EVERYTHING), put=shop, owned=True)
    await run.until(lambda: run.phase is Phase.WAITING)
    ours = [ref for ref, body in run.cluster.objects.items() if "cutover" in str(body["metadata"].get("managedFields"))]
    assert {ref.name for ref in ours} >= {"shop-v2", "shop-v1", "flags", "front", "shop"}
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
