"""`reindex` in memory: the process dies at every call of a port, there and back, and the end is the same."""

from __future__ import annotations

import pytest

from cutover.status.status import Phase
from engine.test_crash import end
from support.plans.simulated import Story

_THERE = "steps:\n  - {name: search, reindex: {index: products}}\n"
_SOAK = '  - {name: soak, check: {for: 1m}, gates: [{name: errors, prometheus: {query: errors}, pass: {max: "0.5"}}]}\n'
STORIES = (Story("there", _THERE, Phase.SUCCEEDED), Story("back", _THERE + _SOAK, Phase.ROLLED_BACK, fails_in="soak"))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_dies_at_every_call(story: Story, after: bool) -> None:  # noqa: FBT001 -- parameters of the test
    peaceful, phase = await end(story)
    assert phase is story.end
    assert len(peaceful.jobs()) == (1 if phase is Phase.SUCCEEDED else 2)
    for at in range(1, peaceful.switch.calls + 1):
        run, crashed = await end(story, at, after=after)
        assert run.crashes == 1, at
        assert (crashed, run.jobs(), run.leftovers()) == (phase, peaceful.jobs(), []), at
