"""A plan that somebody else made it hold, and that a person has resumed: it watches the others again as it did before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cutover.status.requests import Answer, RequestVerb
from cutover.status.status import Phase
from engine.test_other_writers import SHIFT, at_weight, edit, held_for, set_weights, shifted, weights
from support.fakes.shop import ROUTES, plan, shop
from support.fakes.simulation import Simulation


async def test_a_weight_lowered_again_after_a_resume_pauses_again() -> None:
    """To bring the stage about once more was allowed once, not for as long as it lasts."""
    run = await shifted()
    for lowered in (10, 20):
        set_weights(run, 100 - lowered, lowered)
        await run.turn()
        assert held_for(run, "LoweredByHand")
        run.request(RequestVerb.RESUME)
        await at_weight(run, 50)
        assert run.phase is Phase.RUNNING


async def test_a_writer_that_raises_gets_tries_again_after_a_resume() -> None:
    run = await shifted()
    for tries in (5, 4):  # what the resume itself puts back counts too
        for _ in range(tries):
            set_weights(run, 20, 80)
            await run.turn()
            assert weights(run) == [50, 50]
        set_weights(run, 20, 80)
        await run.turn()
        assert held_for(run, "ForeignWriter")
        run.request(RequestVerb.RESUME)
        await at_weight(run, 50)
        assert run.phase is Phase.RUNNING


HEADER = "match: [{headers: {canary: {exact: 'true'}}}], dwell: 10m"


def names(run: Simulation) -> list[str]:
    return [route["name"] for route in run.cluster.objects[ROUTES]["spec"]["http"]]


def split(run: Simulation) -> list[int]:
    return [entry.get("weight", 0) for entry in run.cluster.objects[ROUTES]["spec"]["http"][-1]["route"]]


async def beside_a_header_route() -> Simulation:
    """At 50 percent, with a header route beside it."""
    run = Simulation(plan(SHIFT.replace("dwell: 10m", HEADER)), put=shop)
    await run.until(lambda: split(run) == [50, 50])
    await run.turn()
    return run


def suspend(run: Simulation, on: bool) -> None:  # noqa: FBT001 -- as it stands in the spec
    edit(run, run.plan, lambda body: body["spec"].update(suspend=on))


async def some_turns(run: Simulation) -> None:
    for _ in range(3):
        await run.turn()
        run.clock.pass_time(timedelta(minutes=1))


@pytest.mark.parametrize("suspended_before", [True, False])
@pytest.mark.parametrize("dies", [True, False])
async def test_what_was_taken_away_is_put_back_by_a_resume_only_when_no_suspend_is_in_its_way(
    suspended_before: bool,  # noqa: FBT001 -- parameters of the test
    dies: bool,  # noqa: FBT001
) -> None:
    """The resume is not lost, whichever came first; and a plan that is suspended begins nothing, what it was asked for included."""
    run = await beside_a_header_route()
    if suspended_before:
        suspend(run, on=True)
        await run.until(lambda: held_for(run, "Suspended"))
    edit(run, ROUTES, lambda body: body["spec"]["http"].pop(0))
    await run.until(lambda: held_for(run, "TakenAway"))
    suspend(run, on=True)
    await some_turns(run)
    assert held_for(run, "TakenAway"), "who only suspends has settled nothing"
    run.request(RequestVerb.RESUME)
    await some_turns(run)
    assert run.status.requests[-1].answer is Answer.ACCEPTED
    assert held_for(run, "Suspended")
    assert (names(run), split(run)) == (["primary"], [50, 50])
    if dies:
        run.restart()
        await some_turns(run)
        assert names(run) == ["primary"]
    suspend(run, on=False)
    await run.until(lambda: names(run) == ["cutover-shift-primary", "primary"])
    assert run.phase is Phase.RUNNING
    assert split(run) == [50, 50]
    assert await run.run() is Phase.SUCCEEDED
    assert names(run) == ["primary"]


async def test_who_ends_the_suspension_alone_does_not_put_back_what_was_taken_away() -> None:
    run = await beside_a_header_route()
    suspend(run, on=True)
    await run.until(lambda: held_for(run, "Suspended"))
    edit(run, ROUTES, lambda body: body["spec"]["http"].pop(0))
    await run.until(lambda: held_for(run, "TakenAway"))
    suspend(run, on=False)
    await some_turns(run)
    assert held_for(run, "TakenAway")
    assert names(run) == ["primary"]


async def test_a_weight_lowered_while_suspended_is_raised_by_a_resume_and_not_before_the_plan_continues() -> None:
    run = await shifted()
    suspend(run, on=True)
    await run.until(lambda: held_for(run, "Suspended"))
    set_weights(run, 80, 20)
    await run.until(lambda: held_for(run, "LoweredByHand"))
    run.request(RequestVerb.RESUME)
    await some_turns(run)
    assert held_for(run, "Suspended")
    assert weights(run) == [80, 20]
    suspend(run, on=False)
    await at_weight(run, 50)
    assert await run.run() is Phase.SUCCEEDED
