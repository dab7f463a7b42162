"""The process dies at its n-th call of a port, before and after the effect, or gets no answer to it, for every n: the end is the same.

`make test` takes a sample: at each call one of the four things happens; which one is drawn, by SEED (1 if it is not
set). In `make test-long` all four happen at each.
"""

from __future__ import annotations

import os
import random

import pytest

from cutover.ports import Ref
from cutover.status.report import SuccessCriterion
from cutover.status.status import Phase
from cutover.testing import CrashSwitch
from support.fakes.database_jobs import database_of
from support.fakes.shop import plan
from support.fakes.simulation import Simulation
from support.plans.simulated import STORIES, Story, play

pytestmark = pytest.mark.exhaustive


_SHARES = [pytest.param(False, id="sample"), pytest.param(True, id="whole", marks=pytest.mark.long)]
_WAYS = ("dies before", "dies after", "not done", "done")


def picked(story: str, way: str, calls: int, *, whole: bool, ways: tuple[str, ...] = _WAYS) -> range:
    """At which calls this happens: at all, or at those that are drawn for it among the ways."""
    if whole:
        return range(1, calls + 1)
    drawn = random.Random(f"{os.environ.get('SEED', '1')} {story}").sample(ways, len(ways))  # noqa: S311
    return range(1 + drawn.index(way), calls + 1, len(ways))


def test_the_sample_leaves_no_call_out() -> None:
    assert sorted(at for way in _WAYS for at in picked("canary", way, 50, whole=False)) == [*range(1, 51)]


def effects(run: Simulation) -> list[Ref]:
    """Writes that changed the spec of a target: each must happen once, whatever dies when."""
    return [ref for verb, ref in run.cluster.effects if verb == "spec"]


def in_database(run: Simulation) -> object:
    """What was done in the database of the plan, if it has one."""
    database = database_of(run.cluster)
    return None if database is None else (database.applied, database.rows)


def told(run: Simulation) -> list[object]:
    """The report, without the moments it names, and what it rests on."""
    timed = (SuccessCriterion.WINDOW, SuccessCriterion.ROLLBACK)
    lines = [(line.criterion, line.result, line.criterion in timed or line.evidence) for line in run.status.report]
    return [*lines, run.status.tally]


async def end(
    story: Story, at: int = 0, *, after: bool = False, lost: bool = False, crowded: bool = False
) -> tuple[Simulation, Phase]:
    switch = CrashSwitch(at, after, lost=lost)
    run = Simulation(plan(story.spec), switch=switch, put=story.put, crowded=crowded, owned=True)
    return run, await play(story, run)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_ends_as_told(story: Story) -> None:
    run, phase = await end(story)
    assert phase is story.end, run.status
    assert [line.criterion for line in run.status.report] == list(SuccessCriterion)
    assert run.leftovers() == []
    if phase is Phase.ROLLED_BACK:
        assert run.specs() == run.specs_before()


@pytest.mark.parametrize("whole", _SHARES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_dies_at_every_call(story: Story, after: bool, whole: bool) -> None:  # noqa: FBT001 -- parameters of the test
    peaceful, phase = await end(story)
    calls = peaceful.switch.calls
    assert calls > 20
    for at in picked(story.name, "dies after" if after else "dies before", calls, whole=whole):
        run, crashed = await end(story, at, after=after)
        assert run.crashes == 1, at
        assert crashed is phase, (at, run.status)
        assert run.specs() == peaceful.specs(), at
        assert run.jobs() == peaceful.jobs(), at
        assert in_database(run) == in_database(peaceful), at
        if not story.timed:
            assert effects(run) == effects(peaceful), at
        assert run.leftovers() == [], at
        if not story.timed:
            assert [step.state for step in run.status.steps] == [step.state for step in peaceful.status.steps], at
            assert told(run) == told(peaceful), at


@pytest.mark.parametrize("whole", _SHARES)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_dies_at_every_call_in_a_crowd(after: bool, whole: bool) -> None:  # noqa: FBT001 -- parameters of the test
    """Where others wait, a turn ends between saving a stage and doing it."""
    story = next(story for story in STORIES if story.name == "canary")
    peaceful, phase = await end(story, crowded=True)
    way = "dies after" if after else "dies before"
    for at in picked("crowd", way, peaceful.switch.calls, whole=whole, ways=_WAYS[:2]):
        run, crashed = await end(story, at, after=after, crowded=True)
        assert crashed is phase, (at, run.status)
        assert effects(run) == effects(peaceful), at
        assert run.leftovers() == [], at


@pytest.mark.parametrize("whole", _SHARES)
@pytest.mark.parametrize("after", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_gets_no_answer_at_every_call(story: Story, after: bool, whole: bool) -> None:  # noqa: FBT001 -- parameters of the test
    """The process lives, and does not know whether it has been done."""
    peaceful, phase = await end(story)
    for at in picked(story.name, "done" if after else "not done", peaceful.switch.calls, whole=whole):
        run, left = await end(story, at, after=after, lost=True)
        assert left is phase, (at, run.status)
        assert run.specs() == peaceful.specs(), at
        assert run.jobs() == peaceful.jobs(), at
        assert in_database(run) == in_database(peaceful), at
        assert run.leftovers() == [], at
        if not story.timed:
            assert effects(run) == effects(peaceful), at
            assert told(run) == told(peaceful), at
