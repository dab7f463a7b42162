"""Whole plans in memory, forward and backward."""

from __future__ import annotations

from cutover.ports import Sample
from cutover.status import Phase, StepState
from support.shop import CANARY, ROUTES, V2, plan, shop
from support.simulation import Simulation


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
