"""Two operators over the same plan without a Lease: started and ended at random, and one paused in the middle of each write.

A paused process is woken when the other has ended the plan: its late write is answered by a no, and changes nothing. Only a new
object cannot be told to be late: a late snapshot does no harm, and the process takes it away when it is awake; should it never be,
the next one does (`engine/test_snapshots.py`).
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from cutover.ports import APPLIED_LABEL
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import PATIENCE, NotReady, until
from harness.proxy import Exchange, Fault, Pause, delayed, killing
from support.cluster.testbed import Baseline, Site, Testbed, side_by_side
from support.plans.on_cluster import BACK_AND_FORTH, CANARY, STORIES, Story

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
SEED = int(os.environ.get("SEED", "1"))
PROBE = "steps: [{name: tick, wait: {for: 10ms}}]"


# --- at random --------------------------------------------------------------------------------------------------------


@contextmanager
def _unrest(site: Site, chosen: random.Random, acts: int) -> Iterator[list[str]]:
    """Operators die, end, sleep and start at random, and their requests take their time; in the end both run."""
    told, ending = [], threading.Event()

    def slow(_: Exchange) -> Fault:
        return delayed(chosen.uniform(0, 0.04))

    def disturb() -> None:
        for _ in range(acts):
            if ending.wait(chosen.uniform(0.05, 0.4)):
                break
            at = chosen.randrange(len(site.runners))
            process = site.runners[at].process
            act = chosen.choice(("kill", "stop", "pause")) if process.alive else "start"
            told.append(f"{act} {at}")
            if act == "pause":
                process.signal(signal.SIGSTOP)
                ending.wait(chosen.uniform(0.1, 0.5))
                process.signal(signal.SIGCONT)
            else:
                getattr(process, act)()
        for runner in site.runners:
            if not runner.process.alive:
                runner.process.start()

    for runner in site.runners:
        runner.proxy.arm(slow)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        yield told
    finally:
        ending.set()
        thread.join()


def _at_random(testbed: Testbed, story: Story, baseline: Baseline, seed: int) -> str:
    """What went wrong; empty when nothing did."""
    chosen, told = random.Random(f"{story.name} {seed}"), list[str]()  # noqa: S311 -- repeatable on purpose
    try:
        with testbed.site(story.name, more=story.more, operators=2) as site, _unrest(site, chosen, acts=12) as told:
            site.play(story, deadline=90)
            problems = site.end().differs_from(baseline.end)
    except (AssertionError, NotReady) as error:
        problems = [str(error)]
    return f"{story.name} {seed}: {problems} after {told}" if problems else ""


def _all_at_random(testbed: Testbed, baseline: dict[str, Baseline], seeds: range) -> None:
    cases = [partial(_at_random, testbed, story, baseline[story.name], seed) for seed in seeds for story in STORIES]
    wrong = [told for told in side_by_side(cases) if told]
    assert wrong == [], f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong)


def test_two_started_and_ended_at_random(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    _all_at_random(testbed, baseline, range(SEED, SEED + 1))


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_started_and_ended_at_random_again_and_again(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    _all_at_random(testbed, baseline, range(SEED, SEED + 20))


# --- two at once, in the worst order ----------------------------------------------------------------------------------


def _patches(kind: str, number: int) -> Callable[[Exchange], bool]:
    """Picks the n-th patch of an object of the shop."""
    count = itertools.count(1)
    return lambda e: e.method == "PATCH" and e.path.endswith(f"/{kind}") and next(count) == number


def test_an_answer_is_taken_for_no_other_command(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    """The answer to the last weight comes when the other process releases its claims: nothing has been released by that."""
    with testbed.site(CANARY.name) as site:
        slow, other = site.runner, site.add_operator()
        answer, releasing = Pause(answer=True), Pause()
        last_weight, release = _patches("virtualservices/shop", 5), _patches("deployments/shop-v2", 1)
        slow.proxy.arm(lambda exchange: answer if last_weight(exchange) else None)
        site.shop.apply(CANARY.spec)
        assert answer.paused.wait(20)
        other.proxy.arm(lambda exchange: releasing if release(exchange) else None)
        other.start()
        assert releasing.paused.wait(20)
        answer.release()
        site.shop.until_ended()
        ended = site.end()
        releasing.release()
        assert ended.differs_from(baseline[CANARY.name].end) == []


def test_a_stale_view_is_not_a_snapshot(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    """The second process takes over while its stream of VirtualServices is behind by the weights of the first."""
    with testbed.site(BACK_AND_FORTH.name) as site:
        first, second = site.runner, site.add_operator()
        waiting = Pause()
        second.start()
        second.proxy.arm(lambda _: waiting)
        first_weight, died = _patches("virtualservices/shop", 2), threading.Event()

        def die() -> None:
            first.process.kill()
            died.set()

        weights = 0

        def rule(exchange: Exchange) -> Fault | None:
            nonlocal weights
            if first_weight(exchange):
                second.proxy.freeze_watches("virtualservices")
            weights += exchange.method == "PATCH" and exchange.path.endswith("virtualservices/shop")
            announces = exchange.method == "PUT" and weights == 3  # claim, 50, 100: now the step back begins
            return killing("after-commit", die) if announces and not died.is_set() else None

        first.proxy.arm(rule)
        site.shop.apply(BACK_AND_FORTH.spec)
        assert died.wait(20)
        waiting.release()
        second.proxy.disarm()
        site.shop.until_ended(deadline=60)
        second.proxy.thaw_watches()
        assert site.end().differs_from(baseline[BACK_AND_FORTH.name].end) == []


def test_a_stale_view_of_the_plan_claims_nothing_that_was_released(testbed: Testbed) -> None:
    """The second process still sees a plan that waits when the first has released the targets, and takes it for a lost label."""
    with testbed.site("released") as site:
        first, second = site.runner, site.add_operator()
        released, asked, last_save, claim = threading.Event(), threading.Event(), Pause(), Pause()
        second.start()
        site.shop.apply(_waits(1))
        site.shop.until_phase(Phase.WAITING)

        def of_first(exchange: Exchange) -> Fault | None:
            if exchange.method == "PATCH" and b"~1applied" in exchange.body:
                released.set()
            return last_save if exchange.method == "PUT" and released.is_set() else None

        def of_second(exchange: Exchange) -> Fault | None:
            if exchange.method == "GET" and exchange.path.endswith("/migrationplans/plan") and released.is_set():
                asked.set()
            return claim if exchange.method == "PATCH" else None

        second.proxy.freeze_watches("migrationplans")
        first.proxy.arm(of_first)
        second.proxy.arm(of_second)
        site.shop.request(RequestVerb.APPROVE, "ok")
        assert last_save.paused.wait(20)
        assert asked.wait(20)
        claims = claim.paused.wait(1)
        last_save.release()
        assert site.shop.until_ended().phase is Phase.SUCCEEDED
        if claims:
            claim.release()
        second.proxy.thaw_watches()
        assert site.claims() == []
        assert APPLIED_LABEL in site.objects()["deployments/shop-v2"][1]


def _waits(run: int) -> str:
    """Another spec each time, so that each is a run of its own."""
    deploy = f'{{workload: {{name: shop-v2}}, images: [{{container: app, image: "shop:2"}}], replicas: {run + 1}}}'
    return f"steps: [{{name: deploy, deploy: {deploy}}}, {{name: ok, approve: {{message: go}}}}]"


def test_a_late_deletion_takes_nothing_from_a_newer_run(testbed: Testbed) -> None:
    """The first operator sleeps where it clears away the snapshots of the first run, until the other is in the third."""
    with testbed.site("late-deletion", operators=1) as site:
        sleeper, other, shop = site.runner, site.add_operator(), site.shop

        def until_run(run: int, *phases: Phase) -> None:
            shop.until(lambda status: status.run is not None and status.run.number == run and status.phase in phases)

        shop.apply(_waits(1))
        until_run(1, Phase.WAITING)
        shop.request(RequestVerb.ABORT)
        shop.until_ended()
        pause = Pause(lambda: sleeper.process.signal(signal.SIGSTOP))
        sleeper.proxy.arm(lambda e: pause if e.method == "DELETE" and e.path.endswith("/controllerrevisions") else None)
        shop.apply(_waits(2))
        assert pause.paused.wait(20)
        other.start()
        shop.request(RequestVerb.ABORT)
        until_run(2, Phase.ROLLED_BACK)
        shop.until_ended()
        shop.apply(_waits(3))
        until_run(3, Phase.WAITING)
        (snapshot,) = site.snapshots()
        assert pause.release() == 200
        assert site.snapshots() == [snapshot]
        other.process.kill()
        sleeper.process.signal(signal.SIGCONT)
        shop.request(RequestVerb.ABORT)
        until_run(3, Phase.ROLLED_BACK)
        shop.until_ended()
        assert site.end().leftovers == ()
        assert site.objects() == site.before


# --- a late write -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Late:
    """One write that came late: which, how the API server answered it, and what was wrong afterwards."""

    what: str
    code: int
    problems: tuple[str, ...]


def _late_write(testbed: Testbed, story: Story, baseline: Baseline, number: int, *, abort: bool, done: bool) -> Late:
    """The first operator sleeps in its n-th write, or before its answer, until the second, started then, has ended the plan."""
    what = f"{story.name}{', aborted' if abort else ''}{', done' if done else ''} "
    code = 0
    try:
        with testbed.site(story.name, more=story.more, operators=1) as site:
            sleeper, other = site.runner, site.add_operator()
            pause = Pause(lambda: sleeper.process.signal(signal.SIGSTOP), answer=done)
            writes = 0

            def rule(exchange: Exchange) -> Fault | None:
                nonlocal writes
                writes += exchange.writes
                return pause if exchange.writes and writes == number else None

            sleeper.proxy.arm(rule)
            site.apply(story)
            people = threading.Thread(target=lambda: None)
            if not abort:
                people = threading.Thread(target=story.people, args=(site.shop,))
            people.start()
            if not pause.paused.wait(20 * PATIENCE):
                return Late("", 0, ())
            what += str(pause.exchange)
            other.start()
            if abort:
                site.shop.request(RequestVerb.ABORT)
            site.shop.until_ended(deadline=60)
            people.join()
            ended = site.end()
            code = pause.release()
            at_once = site.end()
            other.process.kill()
            sleeper.process.signal(signal.SIGCONT)
            site.shop.apply(PROBE, "probe")
            probed = site.shop.until_ended("probe")  # so it is awake, and has begun its turns
            assert probed.phase is Phase.SUCCEEDED
            until("no snapshot is late", lambda: len(site.snapshots()) == ended.snapshots, deadline=5)
            problems = [f"at once: {told}" for told in at_once.differs_from(ended) if "snapshot" not in told]
            problems += [f"when awake: {told}" for told in site.end().differs_from(ended)]
            if not abort or ended.phase == Phase.SUCCEEDED:  # nothing was left to abort
                problems += ended.differs_from(baseline.end)
            elif ended.objects != site.before:
                problems.append(f"not as before: {ended.objects} instead of {site.before}")
            return Late(what, code, tuple(problems))
    except (AssertionError, NotReady) as error:
        return Late(what, code, (str(error),))


_Case = tuple[Story, int, bool, bool]
"""Story, which write, whether a person aborts in that time, whether the API server has done it before the pause."""


def _all_late(testbed: Testbed, baseline: dict[str, Baseline], cases: list[_Case]) -> None:
    late = side_by_side(
        [
            partial(_late_write, testbed, story, baseline[story.name], number, abort=abort, done=done)
            for story, number, abort, done in cases
        ]
    )
    hit = [one for one in late if one.what]
    wrong = [f"{one.what} (answer {one.code}): {'; '.join(one.problems)}" for one in late if one.problems]
    answers = dict(Counter(one.code for one in hit))
    print(f"{len(hit)} late writes of {len(cases)}, answers {answers}, {len(wrong)} went wrong")  # noqa: T201 -- the table
    assert wrong == [], f"{len(wrong)} of {len(hit)}:\n" + "\n".join(wrong)
    assert len(hit) >= 0.9 * len(cases)


def _every_write(story: Story, baseline: dict[str, Baseline]) -> list[_Case]:
    aborts = (False, True) if story.end is Phase.SUCCEEDED else (False,)  # the others roll back by themselves
    numbers = range(1, baseline[story.name].writes + 1)
    return [(story, *rest) for rest in itertools.product(numbers, aborts, (False, True))]


def test_some_late_writes(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    every = [case for story in STORIES for case in _every_write(story, baseline)]
    chosen = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    _all_late(testbed, baseline, chosen.sample(every, 10))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_every_write_late(story: Story, testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    _all_late(testbed, baseline, _every_write(story, baseline))
