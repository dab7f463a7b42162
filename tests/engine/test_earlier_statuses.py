"""What an earlier version has saved, or a CRD of it has dropped, has no `status.state`: each process continues where the last one was."""

from __future__ import annotations

import pytest

from cutover.status.state import State
from cutover.status.status import Phase
from cutover.testing import CrashSwitch
from support.fakes.older_crd import status_schema
from support.fakes.shop import plan
from support.fakes.simulation import Simulation
from support.plans.simulated import STORIES, Story, play

NAMES = ("canary", "canary-gate-fails", "approved", "approved-aborted")


async def end(story: Story, seen: set[State], at: int = 0) -> tuple[Simulation, Phase]:
    """The plan at its end, after a process has died at its n-th call; no save has a state."""
    run = Simulation(plan(story.spec), switch=CrashSwitch(at, after=True), put=story.put)
    run.cluster.status_schema = status_schema("status.state")
    start = run._start_process

    def start_process() -> None:
        saved = run.cluster.objects[run.plan]["status"]
        assert "state" not in saved
        if run.status.state is not None:
            seen.add(run.status.state)
        start()

    run._start_process = start_process  # type: ignore[method-assign]
    return run, await play(story, run)


@pytest.mark.parametrize("name", NAMES)
async def test_a_process_continues_where_the_last_one_was(name: str) -> None:
    story, seen = next(story for story in STORIES if story.name == name), set[State]()
    peaceful, phase = await end(story, seen)
    assert phase is story.end
    for at in range(1, peaceful.switch.calls + 1, 2):
        run, crashed = await end(story, seen, at)
        assert run.crashes == 1, at
        assert crashed is phase, (at, run.status)
        assert (run.specs(), run.leftovers()) == (peaceful.specs(), []), at
    assert {State.CLAIMING, State.PROGRESSING} <= seen
    assert seen & {State.RELEASING, State.RELEASING_ROLLED_BACK}
