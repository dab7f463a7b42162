"""A plan that somebody else made it hold, and that a person has resumed: it watches the others again as it did before."""

from __future__ import annotations

from cutover.requests import RequestVerb
from cutover.status import Phase
from engine.test_others import at_weight, held_for, set_weights, shifted, weights


async def test_a_weight_lowered_again_after_a_resume_holds_again() -> None:
    """To bring the stage about once more was allowed once, not for as long as it lasts."""
    run = await shifted()
    for lowered in (10, 20):
        set_weights(run, 100 - lowered, lowered)
        await run.turn()
        assert held_for(run, "LoweredByHand")
        run.request(RequestVerb.RESUME)
        await at_weight(run, 50)
        assert run.phase is Phase.RUNNING


async def test_somebody_who_raises_gets_tries_after_a_resume() -> None:
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
