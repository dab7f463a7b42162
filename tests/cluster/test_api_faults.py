"""An API server that fails, forward and backward: every plan ends as it does without, by the same process."""

from __future__ import annotations

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import pytest

from cutover.status.status import Phase
from harness.process import NotReady
from harness.proxy import Exchange, Fault, answering, hang_after, reset_after, reset_before, unknown_page
from support.cluster.testbed import Baseline, ProxiedOperator, Testbed, side_by_side, until_met
from support.faults.phases import DwellingLong
from support.plans.on_cluster import CANARY, FAILING, Story

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
SEED = int(os.environ.get("SEED", "1"))
Injector = Callable[[ProxiedOperator, Story], AbstractContextManager[list[str]]]
"""Injects faults for as long as it is entered; gives the list of what was met."""
MISSED = "it met no fault"
PATIENCE = 90.0
"""Seconds; the operator waits between tries, and a plan meets several troubles."""

ON_REQUESTS: dict[str, Fault] = {
    "conflict": answering(409, "Conflict"),
    "throttled": answering(429, "TooManyRequests", **{"Retry-After": "1"}),
    "internal": answering(500, "InternalError"),
    "unavailable": answering(503, "ServiceUnavailable"),
    "unknown-page": unknown_page,
    "reset-before": reset_before,
    "reset-after": reset_after,
    "hang": hang_after,
}
HITS = {"hang": 1}
"""How many requests of a plan meet a fault in the ordinary run; three where nothing stands here."""


def _run(testbed: Testbed, story: Story, baseline: Baseline, name: str, inject: Injector) -> str:
    """What went wrong; empty when nothing did."""
    problems: list[str]
    met: list[str] = []
    runner: ProxiedOperator | None = None  # while the operator has not begun
    try:
        with testbed.site(story.name, more=story.more) as site:
            runner = site.runner
            pid = runner.process.pid
            with inject(runner, story) as met:
                site.play(story, deadline=PATIENCE)
            problems = site.end().differs_from(baseline.end)
            if not runner.process.alive or runner.process.pid != pid:
                problems.append(f"the operator has ended\n{runner.process.tail()}")
            if not met:
                problems.append(MISSED)
    except (AssertionError, NotReady) as error:
        problems = [f"{error}\n{runner.process.tail() if runner else ''}"]
    return f"{story.name} {name}: {'; '.join(problems)} after {met}" if problems else ""


def _all(testbed: Testbed, baseline: dict[str, Baseline], cases: list[tuple[Story, str, Injector]]) -> None:
    _table([partial(_run, testbed, story, baseline[story.name], name, inject) for story, name, inject in cases])


def _table(runs: Sequence[Callable[[], str]]) -> None:
    wrong = [told for told in side_by_side(runs, 8) if told]
    print(f"{len(runs)} plans with faults, {len(wrong)} went wrong")  # noqa: T201 -- the table
    assert wrong == [], f"{len(wrong)} of {len(runs)}:\n" + "\n".join(wrong)


# --- on single requests -----------------------------------------------------------------------------------------------


def _on_requests(fault: Fault, numbers: set[int], *, writes_only: bool = False) -> Injector:
    """These requests meet the fault; where only writes can, the next write does."""

    @contextmanager
    def inject(runner: ProxiedOperator, story: Story) -> Iterator[list[str]]:
        del story
        left, met = set(numbers), list[str]()

        def rule(exchange: Exchange) -> Fault | None:
            due = {number for number in left if number <= exchange.number}
            if not due or (writes_only and not exchange.writes):
                return None
            left.difference_update(due)
            met.append(str(exchange))
            return fault

        runner.proxy.arm(rule)
        yield met
        runner.proxy.disarm()

    return inject


def _half(story: Story, baseline: dict[str, Baseline]) -> range:
    """The requests of the way forward of a plan that succeeds, and those of the rollback of one that does not."""
    count = baseline[story.name].requests
    return range(1, count + 1) if story is CANARY else range(count * 2 // 3, count + 1)


def _surely(half: range) -> range:
    """Those that most runs make too: how many there are differs from run to run."""
    return half[: len(half) * 3 // 4]


def _somewhere(testbed: Testbed, story: Story, baseline: Baseline, name: str, numbers: list[int]) -> str:
    def attempt(share: float) -> str:
        drawn = {max(1, int(share * number)) for number in numbers}
        inject = _on_requests(ON_REQUESTS[name], drawn, writes_only=name == "conflict")
        return _run(testbed, story, baseline, name, inject)

    return until_met(attempt, lambda told: f": {MISSED} after" not in told)


def test_some_requests_meet_a_fault(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    chosen = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    runs = []
    for name, story in itertools.product(ON_REQUESTS, (CANARY, FAILING)):
        numbers = chosen.sample(_surely(_half(story, baseline)), HITS.get(name, 3))
        runs.append(partial(_somewhere, testbed, story, baseline[story.name], name, numbers))
    _table(runs)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [name for name in ON_REQUESTS if name != "hang"])
def test_every_request_meets_a_fault(name: str, testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    runs = list[Callable[[], str]]()
    for story in (CANARY, FAILING):
        half = _half(story, baseline)
        for number in half:
            inject = _on_requests(ON_REQUESTS[name], {number}, writes_only=name == "conflict")
            run = partial(_run, testbed, story, baseline[story.name], f"{name} at {number}", inject)
            runs.append(run if number in _surely(half) else partial(_perhaps, run))
    _table(runs)


def _perhaps(run: Callable[[], str]) -> str:
    """A run that may be over before its fault comes; all else must be right."""
    told = run()
    return "" if f": {MISSED} after" in told else told


# --- on streams, and on everything ------------------------------------------------------------------------------------


def _again_and_again(act: Callable[[ProxiedOperator], None], every: float) -> Injector:
    """Something is done to all streams every few moments, as long as the plan runs."""

    @contextmanager
    def inject(runner: ProxiedOperator, story: Story) -> Iterator[list[str]]:
        del story
        ending, met = threading.Event(), list[str]()

        def work() -> None:
            pause = 0.1  # soon for the first time: on a quick machine a plan takes less than a second
            while not ending.wait(pause):
                act(runner)
                met.append("once more")
                pause = every

        thread = threading.Thread(target=work)
        runner.proxy.arm(lambda _: None)
        thread.start()
        try:
            yield met
        finally:
            ending.set()
            thread.join()

    return inject


def _for_a_while(
    begin: Callable[[ProxiedOperator], None], end: Callable[[ProxiedOperator], None], seconds: float
) -> Injector:
    """The fault begins as the Deployment is rolled out, or as it is brought back, and ends some time later."""

    @contextmanager
    def inject(runner: ProxiedOperator, story: Story) -> Iterator[list[str]]:
        over, met = threading.Event(), list[str]()

        def work() -> None:
            begin(runner)
            over.wait(seconds)
            end(runner)

        thread = threading.Thread(target=work)
        patches = itertools.count(1)
        wanted = 2 if story.end is Phase.SUCCEEDED else 3  # its patches: claim, roll out, bring back

        def rule(exchange: Exchange) -> Fault | None:
            patch = exchange.method == "PATCH" and exchange.path.endswith("deployments/shop-v2")
            if patch and next(patches) == wanted:
                met.append(str(exchange))
                thread.start()
            return None

        runner.proxy.arm(rule)
        try:
            yield met
        finally:
            over.set()
            if thread.ident is not None:
                thread.join()

    return inject


ON_STREAMS: dict[str, Injector] = {
    "gone": _again_and_again(lambda runner: runner.proxy.end_watches(410, "Expired"), 0.2),
    "frozen": _for_a_while(lambda r: r.proxy.freeze_watches(), lambda r: r.proxy.thaw_watches(), 3),
    "away": _for_a_while(lambda r: r.proxy.go_away(), lambda r: r.proxy.come_back(), 3),
    "all-503": _for_a_while(
        lambda r: r.proxy.answer_all(answering(503, "ServiceUnavailable")), lambda r: r.proxy.answer_all(None), 3
    ),
    "all-404": _for_a_while(lambda r: r.proxy.answer_all(unknown_page), lambda r: r.proxy.answer_all(None), 3),
}
LONG_STREAMS: dict[str, Injector] = {
    "frozen for good": _for_a_while(lambda r: r.proxy.freeze_watches(), lambda _: None, 0),
    "away for a minute": _for_a_while(lambda r: r.proxy.go_away(), lambda r: r.proxy.come_back(), 60),
    "all-503 for a minute and a half": _for_a_while(
        lambda r: r.proxy.answer_all(answering(503, "ServiceUnavailable")), lambda r: r.proxy.answer_all(None), 90
    ),
}


def test_streams_break_and_stand_still(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    _all(
        testbed,
        baseline,
        [(story, name, inject) for (name, inject), story in itertools.product(ON_STREAMS.items(), (CANARY, FAILING))],
    )


def test_streams_end_with_an_error(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    """Which an API server sends that has lost its etcd for a moment."""
    inject = _again_and_again(lambda runner: runner.proxy.end_watches(500, "InternalError"), 0.5)
    _all(testbed, baseline, [(story, "error", inject) for story in (CANARY, FAILING)])


def test_what_was_deleted_in_a_gap_of_a_stream_is_found(testbed: Testbed) -> None:
    """Its history is gone when the stream starts again, and the list that it begins with is empty."""
    with testbed.site("gap") as site:
        shop, proxy = site.shop, site.runner.proxy
        case = DwellingLong(shop)
        shop.apply(case.spec)
        case.enter()
        proxy.freeze_watches("deployments")
        shop.api.delete(f"{shop.deployments}/shop-v2")
        proxy.end_watches(410, "Expired")
        status = shop.until_ended()
        assert status.failure is not None
        assert (status.phase, status.failure.reason) == (Phase.ROLLED_BACK, "TargetGone")
        assert shop.weights() == [100, 0]


@pytest.mark.long
def test_streams_stand_still_for_long(testbed: Testbed, baseline: dict[str, Baseline]) -> None:
    _all(
        testbed,
        baseline,
        [(story, name, inject) for (name, inject), story in itertools.product(LONG_STREAMS.items(), (CANARY, FAILING))],
    )
