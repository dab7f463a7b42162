"""The process dies at its n-th call of a port, before and after the effect, for every n: the end is the same."""

from __future__ import annotations

import pytest

from cutover.ports import Ref
from cutover.status.report import SuccessCriterion
from cutover.status.status import Phase
from cutover.testing import CrashSwitch
from support.fakes.shop import plan
from support.fakes.simulation import Simulation
from support.plans.simulated import STORIES, Story, play

pytestmark = pytest.mark.exhaustive


def effects(run: Simulation) -> list[Ref]:
    """Writes that changed the spec of a target: each must happen once, whatever dies when."""
    return [ref for verb, ref in run.cluster.effects if verb == "spec"]


def told(run: Simulation) -> list[object]:
    """The report, without the moments it names, and what it rests on."""
    timed = (SuccessCriterion.WINDOW, SuccessCriterion.ROLLBACK)
    lines = [(line.criterion, line.result, line.criterion in timed or line.evidence) for line in run.status.report]
    return [*lines, run.status.tally]


async def end(
    story: Story, at: int = 0, *, after: bool = False, lost: bool = False, crowded: bool = False
) -> tuple[Simulation, Phase]:
    run = Simulation(plan(story.spec), switch=CrashSwitch(at, after, lost=lost), put=story.put, crowded=crowded)
    return run, await play(story, run)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_ends_as_told(story: Story) -> None:
    run, phase = await end(story)
    assert phase is story.end, run.status
    assert [line.criterion for line in run.status.report] == list(SuccessCriterion)
    assert run.leftovers() == []
    if phase is Phase.ROLLED_BACK:
        assert run.specs() == run.specs_before()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_dies_at_every_call(story: Story, after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    whole, phase = await end(story)
    calls = whole.switch.calls
    assert calls > 20
    for at in range(1, calls + 1):
        run, crashed = await end(story, at, after=after)
        assert run.crashes == 1, at
        assert crashed is phase, (at, run.status)
        assert run.specs() == whole.specs(), at
        assert run.jobs() == whole.jobs(), at
        if not story.timed:
            assert effects(run) == effects(whole), at
        assert run.leftovers() == [], at
        if not story.timed:
            assert [step.state for step in run.status.steps] == [step.state for step in whole.status.steps], at
            assert told(run) == told(whole), at


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_dies_at_every_call_in_a_crowd(after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """Where others wait, a turn ends between saving a stage and doing it."""
    story = next(story for story in STORIES if story.name == "canary")
    whole, phase = await end(story, crowded=True)
    for at in range(1, whole.switch.calls + 1):
        run, crashed = await end(story, at, after=after, crowded=True)
        assert crashed is phase, (at, run.status)
        assert effects(run) == effects(whole), at
        assert run.leftovers() == [], at


@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_gets_no_answer_at_every_call(story: Story, after: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    """The process lives, and does not know whether it has been done."""
    whole, phase = await end(story)
    for at in range(1, whole.switch.calls + 1):
        run, left = await end(story, at, after=after, lost=True)
        assert left is phase, (at, run.status)
        assert run.specs() == whole.specs(), at
        assert run.jobs() == whole.jobs(), at
        assert run.leftovers() == [], at
        if not story.timed:
            assert effects(run) == effects(whole), at
            assert told(run) == told(whole), at
