"""An operator that is newer than its CRD: the API server drops what it does not know of each status, and says nothing.

Nobody else has written then. Every optional field of the status is dropped here once, because the next version may add any.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from cutover.plan.crd_gap import CrdGap, dropped
from cutover.ports import Sample
from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import OUTDATED_CRD, Phase
from cutover.testing import CrashSwitch
from engine.test_other_writers import edit
from support.fakes.older_crd import optional_fields, status_schema
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation
from support.plans.simulated import weight_of_new

SPEC = """
guards: [{name: budget, interval: 5s, failureThreshold: 2, prometheus: {query: burn}, pass: {max: "0.5"}}]
timeout: 30m
startDeadline: 1m
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [10, 100], dwell: 10m}
    gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""
FIELDS = optional_fields()
ESSENTIAL = [path for path in FIELDS if CrdGap.of([path]).essential]
HARMLESS = [path for path in FIELDS if path not in ESSENTIAL]
FRAME = (
    "status.observedGeneration", "status.phase", "status.run", "status.run.fence", "status.current", "status.current.stage",
    "status.steps", "status.steps[].state", "status.steps[].attempt",
)  # fmt: skip
"""As old as the resource itself: without these no process could take over from another one at all."""
LATER = [path for path in FIELDS if path not in FRAME]


async def at_weight_10(*missing: str, switch: CrashSwitch | None = None) -> Simulation:
    """A plan at its first weight; the operator has not been told what the CRD lacks."""
    run = Simulation(plan(SPEC), put=shop, switch=switch)
    run.cluster.status_schema = status_schema(*missing)
    run.metrics.answer = lambda _: Sample(0.1)
    await run.until(lambda: weight_of_new(run) == 10)
    for _ in range(3):
        await run.turn()
    return run


async def until_back(run: Simulation) -> timedelta:
    """How long it takes until all traffic is back."""
    begun = run.clock.now()
    await run.until(lambda: weight_of_new(run) == 0)
    return run.clock.now() - begun


async def aborted(run: Simulation) -> timedelta:
    run.request(RequestVerb.ABORT)
    return await until_back(run)


async def guard_fails(run: Simulation) -> timedelta:
    """Right after somebody has labelled the plan, as that is a new version of it."""
    edit(run, run.plan, lambda body: body["metadata"].update(labels={"team": "shop"}))
    run.metrics.answer = lambda query: Sample(0.9 if query == "burn" else 0.1)
    return await until_back(run)


async def times_out(run: Simulation) -> timedelta:
    run.clock.pass_time(timedelta(minutes=30))
    edit(run, run.plan, lambda body: body["metadata"].update(labels={"team": "shop"}))
    return await until_back(run)


@pytest.mark.parametrize("stop", [aborted, guard_fails, times_out])
async def test_what_the_server_dropped_was_not_written_by_somebody_else(stop: Callable[..., Any]) -> None:
    full = await stop(await at_weight_10())
    assert {missing: await stop(await at_weight_10(missing)) for missing in LATER} == dict.fromkeys(LATER, full)


async def test_a_save_whose_answer_is_lost_was_not_somebody_elses() -> None:
    """It is read back as the server has kept it."""

    async def elapsed(*gone: str) -> timedelta:
        run = await at_weight_10(*gone, switch=CrashSwitch(lost=True))
        saves = len(run.cluster.writes)
        run.switch.at, run.switch.after = run.switch.calls + 1, True
        taken = await aborted(run)
        assert run.crashes == 1
        assert run.cluster.writes[saves] == ("status", run.plan), "its answer was lost"
        return taken

    full = await elapsed()
    assert {missing: await elapsed(missing) for missing in LATER} == dict.fromkeys(LATER, full)


# --- once it is known what the CRD lacks ------------------------------------------------------------------------------


def tell(run: Simulation, *missing: str) -> None:
    """The CRD is one without these fields, and the operator has read that."""
    run.cluster.status_schema = status_schema(*missing)
    run.driver.crd_read(CrdGap.of(missing))


def condition(run: Simulation) -> str:
    return next((one.message for one in run.status.conditions if one.type == OUTDATED_CRD), "")


@pytest.mark.parametrize("missing", ESSENTIAL)
async def test_no_run_begins_while_something_essential_is_dropped(missing: str) -> None:
    run = Simulation(plan(SPEC), put=shop)
    run.metrics.answer = lambda _: Sample(0.1)
    before = run.specs()
    tell(run, missing)
    for _ in range(3):
        await run.turn()
        run.clock.pass_time(timedelta(minutes=1))
    assert run.specs() == before
    assert not run.bound
    if missing not in ("status.phase", "status.reason"):
        assert (run.phase, run.status.reason) == (Phase.PENDING, "OutdatedCRD")
    said = run.status.message or condition(run)  # the message itself may be what is missing
    assert missing in said
    assert "kubectl apply --server-side --force-conflicts -f crds/migrationplans.yaml" in said
    tell(run)
    assert await run.run() is Phase.SUCCEEDED, "its start deadline did not run either"
    assert condition(run) == ""


async def paused_at_weight_10(missing: str) -> Simulation:
    """A run of the former version, of which a new one has taken over; it has read that its CRD is as old as that."""
    run = await at_weight_10()
    run.restart()
    tell(run, missing)
    for _ in range(3):
        await run.turn()
    assert weight_of_new(run) == 10
    return run


ACTIVE = [path for path in ESSENTIAL if path in LATER]


@pytest.mark.parametrize("missing", ACTIVE)
async def test_a_run_that_was_under_way_is_paused_and_can_be_aborted_at_once(missing: str) -> None:
    paused, full = await paused_at_weight_10(missing), await at_weight_10()
    if missing != "status.reason":
        assert (paused.phase, paused.status.reason) == (Phase.PAUSED, "OutdatedCRD")
    paused.clock.pass_time(timedelta(hours=1))
    await paused.turn()
    assert weight_of_new(paused) == 10, "nothing goes forward, and no clock runs"
    assert await aborted(paused) == await aborted(full)
    assert await paused.run() is Phase.ROLLED_BACK
    assert paused.specs() == paused.specs_before()


@pytest.mark.parametrize("missing", ACTIVE[::6])
async def test_guards_fire_while_it_is_paused(missing: str) -> None:
    paused = await paused_at_weight_10(missing)
    paused.metrics.answer = lambda query: Sample(0.9 if query == "burn" else 0.1)
    assert await paused.run() is Phase.ROLLED_BACK


@pytest.mark.parametrize("missing", ACTIVE[::4])
async def test_it_continues_by_itself_after_the_upgrade(missing: str) -> None:
    paused = await paused_at_weight_10(missing)
    tell(paused)
    assert await paused.run() is Phase.SUCCEEDED


async def test_it_is_not_resumed_on_request_before_that() -> None:
    paused = await paused_at_weight_10("status.steps[].made")
    paused.request(RequestVerb.RESUME)
    await paused.turn()
    (record,) = paused.status.requests
    assert record.answer is Answer.REJECTED
    assert "status.steps[].made" in record.message
    assert paused.phase is Phase.PAUSED


@pytest.mark.parametrize("missing", ["status.conditions", *HARMLESS[::6]])
async def test_what_is_only_shown_stops_nothing(missing: str) -> None:
    run = await at_weight_10()
    tell(run, missing)
    for _ in range(3):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=10))
    if missing != "status.conditions":
        assert missing in condition(run)
    assert await run.run() is Phase.SUCCEEDED


@pytest.mark.parametrize(
    "missing", ["status.current.intent", "status.run.stepsDigest", "status.steps[].startedAt", "status.tally"]
)
async def test_what_was_dropped_is_saved_after_the_upgrade(missing: str) -> None:
    """Here the CRD is replaced by an older one under a running operator, and upgraded again."""
    run = await at_weight_10()
    complete = run.cluster.objects[run.plan]["status"]
    tell(run, missing)
    run.cluster.report(run.plan, run.cluster._pruned(complete))
    await run.turn()
    assert list(dropped(complete, run.cluster.objects[run.plan]["status"])) != []
    tell(run)
    await run.turn()
    assert list(dropped(complete, run.cluster.objects[run.plan]["status"])) == []


@pytest.mark.parametrize("missing", LATER)
async def test_a_plan_that_waits_costs_nothing_more(missing: str) -> None:
    """Whatever of its status the server has dropped, it is not saved once more with each event."""
    run = await at_weight_10()
    tell(run, missing)
    for _ in range(5):
        await run.turn()
        run.clock.pass_time(timedelta(seconds=11))
    writes = len(run.cluster.writes)
    for number in range(5):
        edit(run, run.plan, lambda body, n=number: body["metadata"].update(labels={"team": str(n)}))
        await run.turn()
    assert run.cluster.writes[writes:] == []


async def test_no_run_begins_while_the_crd_gives_no_answer_and_one_under_way_can_be_aborted() -> None:
    run = Simulation(plan(SPEC), put=shop)
    run.driver.crd_read(CrdGap(unread=True))
    await run.turn()
    assert (run.phase, run.status.reason) == (Phase.PENDING, "OutdatedCRD")
    assert "has not been read yet" in run.status.message
    run.driver.crd_read(CrdGap())
    await run.until(lambda: weight_of_new(run) == 10)
    run.restart()
    run.driver.crd_read(CrdGap(unread=True))
    await run.turn()
    assert run.phase is Phase.PAUSED
    await aborted(run)


async def test_what_is_dropped_is_saved_again_when_that_is_told_again() -> None:
    """Where the CRD may not be read, only that shows whether it was upgraded."""
    missing = "status.current.intent"
    run = await at_weight_10(missing)
    tell(run, missing)
    await run.turn()
    saves = run.cluster.writes.count(("status", run.plan))
    tell(run, missing)
    await run.turn()
    assert run.cluster.writes.count(("status", run.plan)) == saves + 1
    await run.turn()
    assert run.cluster.writes.count(("status", run.plan)) == saves + 1
