"""`check`: its gates are watched for a while and must pass at its end; it changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cutover.errors import PlanError
from cutover.plan.parsing import parse
from cutover.ports import Sample
from cutover.status.status import Phase
from support.fakes.shop import V2, plan, shop
from support.fakes.simulation import Simulation

GATE = 'gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]'
DEPLOY = "{name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}"
SOAK = f"steps: [{DEPLOY}, {{name: soak, check: {{for: 5m}}, {GATE}}}]"


async def test_it_watches_to_its_end() -> None:
    run = Simulation(plan(SOAK), put=shop)
    asked: list[str] = []

    def answer(query: str) -> Sample:
        asked.append(query)
        return Sample(0.1)

    run.metrics.answer = answer
    begun = run.clock.now()
    assert await run.run() is Phase.SUCCEEDED
    assert run.clock.now() - begun >= timedelta(minutes=5)
    assert len(asked) >= 5 * 6, "every ten seconds"


async def test_a_gate_that_fails_in_the_middle_takes_everything_back() -> None:
    run = Simulation(plan(SOAK), put=shop)
    begun = run.clock.now()
    run.metrics.answer = lambda _: Sample(0.1 if run.clock.now() - begun < timedelta(minutes=3) else 0.9)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.clock.now() - begun < timedelta(minutes=4), "not only at its end"
    assert run.cluster.objects[V2]["spec"] == run.before[V2]["spec"]
    assert run.leftovers() == []


async def test_no_data_at_its_end_is_not_a_pass() -> None:
    run = Simulation(plan(SOAK), put=shop)
    run.metrics.answer = lambda _: Sample(None, note="no data")
    begun = run.clock.now()
    await run.until(lambda: run.clock.now() - begun > timedelta(minutes=20))
    assert run.phase is Phase.RUNNING


def test_without_gates_it_would_watch_nothing() -> None:
    with pytest.raises(PlanError, match="gates"):
        parse(plan("steps: [{name: soak, check: {for: 5m}}]")["spec"])
