"""Weights are kept not only in the stage in hand: after their step is done, and while the plan is paused for whatever cause of its own."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cutover.ports import SNAPSHOTS, Sample
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, StepState
from engine.test_other_writers import SHIFT, edit, held_for, set_weights, shifted, weights
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation

IN_TWO_STEPS = """
onFailure: Pause
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: some
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [10, 50]}
  - {name: ok, approve: {message: go}}
  - name: rest
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [70, 100], dwell: 1m}
"""


async def asked() -> Simulation:
    """Half of the traffic is shifted, that step is done, and a person is asked."""
    run = Simulation(plan(IN_TWO_STEPS), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert weights(run) == [50, 50]
    return run


async def test_weights_of_a_done_step_that_are_lowered_pause_the_plan() -> None:
    run = await asked()
    for lowered in (0, 10):  # after a resume once more
        set_weights(run, 100 - lowered, lowered)
        await run.turn()
        assert held_for(run, "LoweredByHand")
        assert f"another writer has lowered shop-v2 to weight {lowered}" in run.status.message
        for _ in range(3):
            await run.turn()
        assert weights(run) == [100 - lowered, lowered], "it is not fought"
        run.request(RequestVerb.RESUME)
        await run.until(lambda: run.phase is Phase.WAITING)
        assert weights(run) == [50, 50]
        assert not any(step.reapply for step in run.status.steps)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert weights(run) == [0, 100]


async def test_a_claim_that_a_new_process_has_not_read_is_not_taken_for_lost() -> None:
    """Of what it has neither read nor written it knows no body, although the label is there."""
    run = await asked()
    assert run.cluster.seen(V2) is not None
    run.restart()
    assert (run.cluster.seen(V2), run.cluster.seen(run.plan)) == (None, run.cluster.objects[run.plan])
    edit(run, V2, lambda body: body["spec"].update(minReadySeconds=7))
    await run.turn()
    assert run.phase is Phase.WAITING, run.status


async def test_a_resume_is_remembered_until_the_weights_are_back() -> None:
    run = await asked()
    set_weights(run, 100, 0)
    await run.turn()
    run.cluster.rollouts = False
    run.request(RequestVerb.RESUME)
    run.switch.at, run.switch.after = run.switch.calls + 1, True  # the status that says so is saved, then it dies
    await run.turn()
    assert run.crashes == 1
    assert weights(run) == [100, 0]
    assert [step.reapply for step in run.status.steps] == [True, True, False, False]
    await run.until(lambda: weights(run) == [50, 50])
    await run.until(lambda: run.phase is Phase.WAITING)
    set_weights(run, 100, 0)
    run.restart()
    await run.turn()
    assert held_for(run, "LoweredByHand"), "it was allowed once"


async def test_weights_of_a_done_step_that_are_raised_are_put_back() -> None:
    run = await asked()
    for _ in range(5):
        set_weights(run, 0, 100)
        await run.turn()
        assert weights(run) == [50, 50]
        assert run.phase is Phase.WAITING
    set_weights(run, 0, 100)
    await run.turn()
    assert held_for(run, "ForeignWriter")


async def test_a_new_process_raises_the_fence_before_it_puts_them_back() -> None:
    run = await asked()
    assert run.status.run is not None
    fence = run.status.run.fence
    run.restart()
    set_weights(run, 0, 100)
    await run.turn()
    assert weights(run) == [50, 50]
    assert run.status.run is not None
    assert run.status.run.fence == fence + 1


async def test_an_unchanged_weight_of_a_done_step_costs_nothing() -> None:
    run = await asked()
    await run.turn()
    before = run.switch.calls
    await run.turn()
    assert run.switch.calls == before


async def test_weights_of_a_done_step_are_kept_while_a_user_pauses_the_plan() -> None:
    run = await asked()
    run.request(RequestVerb.PAUSE)
    await run.turn()
    set_weights(run, 0, 100)
    await run.turn()
    assert weights(run) == [50, 50]
    assert held_for(run, "PausedByPerson")
    set_weights(run, 100, 0)
    await run.turn()
    assert held_for(run, "LoweredByHand")
    assert weights(run) == [100, 0]


async def test_fields_that_no_step_has_written_are_for_others_to_change() -> None:
    run = await asked()
    edit(run, V2, lambda body: body["spec"].update(minReadySeconds=4))
    await run.turn()
    assert run.phase is Phase.WAITING
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.SUCCEEDED
    assert run.cluster.objects[V2]["spec"]["minReadySeconds"] == 4


async def test_without_its_snapshot_nothing_is_written_and_none_is_taken() -> None:
    """A new one would be of who knows what, and be brought back one day."""
    run = await asked()
    kept = {ref: body for ref, body in run.cluster.objects.items() if ref.resource == SNAPSHOTS}
    (ours,) = (ref for ref, body in kept.items() if body["data"]["object"]["kind"] == "VirtualService")
    run.cluster.delete(ours)
    run.restart()
    set_weights(run, 20, 80)
    await run.turn()
    assert weights(run) == [20, 80]
    assert ours not in run.cluster.objects
    assert run.phase is Phase.WAITING


async def test_a_later_step_takes_them_over() -> None:
    run = await asked()
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: weights(run) == [30, 70])
    set_weights(run, 50, 50)
    await run.turn()
    assert held_for(run, "LoweredByHand")
    assert "where this plan has 70" in run.status.message


async def test_what_a_later_step_has_taken_over_stays_where_its_snapshot_is_lost() -> None:
    """Else the first thing a new process does would be to send the traffic back to what the earlier step had."""
    run = await asked()
    there = {ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS}
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: weights(run) == [30, 70] and run.status.steps[-1].snapshot_taken)
    (lost,) = (ref for ref in run.cluster.objects if ref.resource == SNAPSHOTS and ref not in there)
    run.cluster.delete(lost)
    run.restart()
    await run.turn()
    assert weights(run) == [30, 70]
    assert held_for(run, "SnapshotLost")


async def test_weights_are_kept_while_a_stage_that_waits_for_its_window_is_paused() -> None:
    spec = 'windows: [{from: "12:00", to: "12:01"}]' + SHIFT.replace("dwell: 10m", "dwell: 2m")
    run = Simulation(plan(spec), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    assert run.status.reason == "OutsideWindow"
    assert weights(run) == [90, 10]
    run.request(RequestVerb.PAUSE)
    await run.turn()
    set_weights(run, 20, 80)
    await run.turn()
    assert weights(run) == [90, 10]
    assert held_for(run, "PausedByPerson")


GATED = (
    SHIFT.replace("  - name: shift\n", "  - name: shift\n    onFailure: Pause\n").rstrip()
    + """
    gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""
)


async def held_by_a_gate() -> Simulation:
    run = await shifted(GATED)
    run.metrics.answer = lambda _: Sample(0.9)
    await run.until(lambda: held_for(run, "GateFailed"))
    assert weights(run) == [50, 50]
    return run


async def test_weights_are_kept_while_a_failed_gate_pauses_the_plan() -> None:
    run = await held_by_a_gate()
    set_weights(run, 20, 80)
    await run.turn()
    assert weights(run) == [50, 50]
    set_weights(run, 90, 10)
    await run.turn()
    assert weights(run) == [90, 10], "lowered is not fought"
    assert held_for(run, "GateFailed"), "and what failed is still what is to be settled"
    assert run.status.steps[1].state is StepState.FAILED


@pytest.mark.parametrize("reason", ["LoweredByHand", "ForeignWriter"])
async def test_paused_because_of_another_writer_nothing_is_written(reason: str) -> None:
    run = await shifted()
    if reason == "LoweredByHand":
        set_weights(run, 70, 30)
        await run.turn()
    for _ in range(0 if run.phase is Phase.PAUSED else 6):
        set_weights(run, 20, 80)
        await run.turn()
    assert held_for(run, reason)
    run.clock.pass_time(timedelta(minutes=2))
    set_weights(run, 5, 95)
    await run.turn()
    assert weights(run) == [5, 95]


async def test_a_guard_rolls_the_traffic_back_also_where_the_step_is_paused_for_its_own_failure() -> None:
    """The guard is the plan's, and the plan says Rollback."""
    guard = 'guards: [{name: budget, interval: 5s, prometheus: {query: burn}, pass: {max: "0.5"}}]\n'
    run = await shifted(guard + GATED)
    run.metrics.answer = lambda query: Sample(0.9 if query == "errors" else 0.1)
    await run.until(lambda: held_for(run, "GateFailed"))
    run.metrics.answer = lambda _: Sample(0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.status.failure is not None
    assert run.status.failure.reason == "GuardFailed"
    assert weights(run) == [100, 0]
