"""The operator dies at each request it makes, before it is sent, after it is done, and after it was answered: same end as without.

Seven plans, two of them with every kind and one with an HTTPRoute, forward and backward, each first run once baseline to count
its requests. `make test` takes one request of each plan and moment, `make test-long` all of them.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from harness.process import NotReady
from harness.proxy import Exchange, Fault, killing
from support.cluster.testbed import Baseline, End, Testbed, side_by_side, until_met
from support.plans.on_cluster import STORIES, Story

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
SEED = int(os.environ.get("SEED", "1"))
MOMENTS = ("before-send", "after-commit", "after-answer")


@dataclass(frozen=True)
class Case:
    """One crash, and what was wrong after it. A run may take a request less than the baseline one: then nothing was hit."""

    hit: str
    problems: tuple[str, ...]


def _crash(testbed: Testbed, story: Story, expected: End, number: int, moment: str) -> Case:
    hit = f"{story.name} {moment} "
    try:
        with testbed.site(story.name, more=story.more) as site:
            runner, struck = site.runner, threading.Event()
            watches = 0

            def die() -> None:
                nonlocal watches
                watches = len(runner.proxy.opened)
                runner.process.restart()
                struck.set()

            def rule(exchange: Exchange) -> Fault | None:
                nonlocal hit
                if exchange.number != number or struck.is_set():
                    return None
                hit += str(exchange)
                return killing(moment, die)

            runner.proxy.arm(rule)
            site.play(story)
            if not struck.wait(1):  # the last events are sent after the end
                return Case("", tuple(site.end().differs_from(expected)))
            runner.wait_watching(watches)
            return Case(hit, tuple(site.end().differs_from(expected)))
    except (AssertionError, NotReady) as error:
        return Case(hit, (f"{error}\n{runner.process.tail()}",))


def _crash_within(testbed: Testbed, story: Story, expected: End, number: int, moment: str) -> Case:
    """A drawn crash."""
    return until_met(
        lambda share: _crash(testbed, story, expected, max(1, int(share * number)), moment),
        lambda case: bool(case.hit or case.problems),
    )


def _campaign(crashes: Sequence[Callable[[], Case]]) -> None:
    done = side_by_side(crashes)
    reached = [case for case in done if case.hit]
    failed = [f"{case.hit or 'baseline'}: {'; '.join(case.problems)}" for case in done if case.problems]
    print(f"{len(reached)} crashes of {len(crashes)}, {len(failed)} went wrong")  # noqa: T201 -- the table of the campaign
    assert failed == [], f"{len(failed)} of {len(reached)} crashes:\n" + "\n".join(failed)
    assert len(reached) >= 0.9 * len(crashes), "too few requests were hit; are there fewer than in the baseline run?"


@pytest.mark.timeout(300)
def test_killed_at_a_dozen_calls(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    chosen = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    crashes = []
    for story, moment in itertools.product(STORIES, MOMENTS):
        calm = baseline[story.name]
        crashes.append(partial(_crash_within, testbed, story, calm.end, chosen.randint(1, calm.requests), moment))
    _campaign(crashes)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_killed_at_every_call(story: Story, testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    calm = baseline[story.name]
    cases = itertools.product(range(1, calm.requests + 1), MOMENTS)
    _campaign([partial(_crash, testbed, story, calm.end, number, moment) for number, moment in cases])
