"""`approve`: waits for a person however long, and takes no approval of anything else."""

from __future__ import annotations

from datetime import timedelta

from cutover.plan.parsing import parse
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from support.fakes.shop import plan, shop
from support.fakes.simulation import Simulation

TWO = 'steps: [{name: look, approve: {message: "numbers fine?"}}, {name: go, approve: {message: "really?"}}]'


async def test_it_waits_for_days_and_no_timeout_ends_it() -> None:
    run = Simulation(plan(f"timeout: 1h\n{TWO}"), put=shop)
    begun = run.clock.now()
    await run.until(lambda: run.phase is Phase.WAITING)
    assert "numbers fine?" in run.status.message
    for _ in range(3):
        run.clock.pass_time(timedelta(days=1))
        await run.turn()
    assert (run.phase, run.clock.now() - begun >= timedelta(days=3)) == (Phase.WAITING, True)


async def test_each_approval_is_of_one_step_and_survives_the_process() -> None:
    run = Simulation(plan(TWO), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.request(RequestVerb.APPROVE, "look")
    await run.until(lambda: run.status.current is not None and run.status.current.step == "go")
    run.restart()
    await run.turn()
    assert run.phase is Phase.WAITING, "the approval of the first is none of the second"
    run.request(RequestVerb.APPROVE, "go")
    assert await run.run() is Phase.SUCCEEDED


def test_its_stage_shows_what_is_approved() -> None:
    (stage,) = parse(plan(TWO)["spec"]).steps[0].kind.stages()
    assert (stage.intent, stage.needs_approval, stage.dwell) == ('approval "numbers fine?"', True, timedelta())


async def test_a_pause_and_a_resume_after_days_do_not_end_it() -> None:
    """Resumed, the plan is Running for a moment: no timeout of a stage counts the days that a person took."""
    run = Simulation(plan(TWO), put=shop)
    await run.until(lambda: run.phase is Phase.WAITING)
    run.clock.pass_time(timedelta(days=3))
    run.request(RequestVerb.PAUSE)
    await run.until(lambda: run.phase is Phase.PAUSED)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: run.phase is not Phase.PAUSED)
    await run.until(lambda: run.phase is not Phase.RUNNING)
    assert run.phase is Phase.WAITING, run.status
