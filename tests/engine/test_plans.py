"""Whole plans in memory, forward and backward."""

from __future__ import annotations

from cutover.ports import Sample
from cutover.status.status import ENDED, Phase, StepState
from cutover.testing import react
from support.fakes.shop import CANARY, ROUTES, V2, plan, shop
from support.fakes.simulation import Simulation


async def test_a_good_version_gets_all_the_traffic() -> None:
    run = Simulation(plan(CANARY), put=shop)
    assert await run.run() is Phase.SUCCEEDED, run.status
    weights = [entry["weight"] for entry in run.cluster.objects[ROUTES]["spec"]["http"][0]["route"]]
    assert weights == [0, 100]
    assert run.cluster.objects[V2]["spec"]["template"]["spec"]["containers"][1]["image"] == "shop:2"
    assert run.leftovers() == []


async def test_a_failing_gate_brings_everything_back() -> None:
    run = Simulation(plan(CANARY), put=shop)

    def answer(_: str) -> Sample:
        weight = run.cluster.objects[ROUTES]["spec"]["http"][0]["route"][1]["weight"]
        return Sample(0.9 if weight >= 50 else 0.1)

    run.metrics.answer = answer
    assert await run.run() is Phase.ROLLED_BACK, run.status
    assert run.specs() == run.specs_before()
    assert run.status.failure is not None
    assert run.status.failure.reason == "GateFailed"
    assert [step.state for step in run.status.steps] == [StepState.UNDONE, StepState.UNDONE]
    assert run.leftovers() == []


async def test_where_others_wait_a_turn_writes_one_weight() -> None:
    run = Simulation(plan(CANARY.replace("dwell: 1m", "dwell: 0s")), put=shop, crowded=True)
    weights = [0]
    while run.phase not in ENDED:
        after = await run.turn()
        route = run.cluster.objects[ROUTES]["spec"]["http"][0]["route"]
        weights.append(route[1]["weight"])
        if not react(run.cluster) and not run.woken:
            assert after is not None
            run.clock.pass_time(after)
    assert [weight for weight, before in zip(weights[1:], weights, strict=False) if weight != before] == [10, 50, 100]
    assert [notice.message for notice in run.recorder.notices if notice.reason == "StageStarted"] == [
        "step deploy, stage 1/1: roll out app=shop:2, replicas 3",
        "step shift, stage 1/3: weight 10",
        "step shift, stage 2/3: weight 50",
        "step shift, stage 3/3: weight 100",
    ]
    assert run.leftovers() == []
