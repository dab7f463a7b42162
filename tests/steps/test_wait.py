"""`wait`: time passes, and nothing else happens; a process that dies in between waits no longer than the step says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from cutover.plan.parsing import parse
from cutover.ports import Ref
from cutover.status.status import Phase
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

FIVE = "steps: [{name: rest, wait: {for: 5m}}]"


def others(run: Simulation) -> dict[Ref, Any]:
    """Of every object but the plan and what its pods and endpoints are to the controllers, what tells that it was written."""
    return {ref: body["metadata"] for ref, body in run.cluster.objects.items() if ref in run.before and ref != run.plan}


async def test_it_lasts_as_long_as_it_says_and_writes_nothing_but_the_plan() -> None:
    run = Simulation(plan(FIVE), put=shop)
    begun = run.clock.now()
    assert await run.run() is Phase.SUCCEEDED
    assert timedelta(minutes=5) <= run.clock.now() - begun < timedelta(minutes=5, seconds=2)
    assert others(run) == {ref: body["metadata"] for ref, body in run.before.items() if ref != run.plan}


async def test_a_process_that_takes_over_waits_for_the_rest_only() -> None:
    run = Simulation(plan(FIVE), put=shop)
    begun = run.clock.now()
    await run.until(lambda: run.status.current is not None and run.status.current.applied_at is not None)
    run.clock.pass_time(timedelta(minutes=3))
    run.restart()
    assert await run.run() is Phase.SUCCEEDED
    assert run.clock.now() - begun < timedelta(minutes=5, seconds=2)


def test_its_stage_is_reported_with_its_time() -> None:
    (stage,) = parse(plan(FIVE)["spec"]).steps[0].kind.stages()
    assert (stage.intent, stage.dwell) == ("wait for 5m", timedelta(minutes=5))
