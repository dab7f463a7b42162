"""When the samples of a gate are taken, and what becomes of a measurement that takes long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import yaml

from cutover.gates import Gate
from cutover.gates.base import GateContext
from cutover.gates.pace import Pace
from cutover.gates.watch import Watch
from cutover.ports import Sample
from cutover.testing import MemoryCluster, MemoryMetrics, Spawner


class Eye:
    """A watch over one gate, looked at as the driver does it."""

    def __init__(self, text: str) -> None:
        self.cluster, self.metrics, self.spawner = MemoryCluster(), MemoryMetrics(), Spawner()
        self.asked: list[float] = []
        self.woken = 0
        self.begun = self.cluster.clock.now()
        self.metrics.answer = self.answer
        self.watch = Watch(self.spawner, self.wake, Pace())
        self.gate: Any = Gate.model_validate(yaml.safe_load(text))
        self.watch.turn_to("stage", [self.gate], self.begun)

    def wake(self) -> None:
        self.woken += 1

    def answer(self, _: str) -> Sample:
        self.asked.append((self.cluster.clock.now() - self.begun).total_seconds())
        return Sample(0.1)

    async def look(self, after: float = 0) -> str:
        clock = self.cluster.clock
        clock.pass_time(timedelta(seconds=after))
        around = GateContext(self.cluster, self.metrics, clock, "shop", "step", None)
        await self.watch.look(around)
        await self.spawner.run()
        return (await self.watch.look(around))[0].message

    def due(self) -> float:
        after = self.watch.next_look(self.cluster.clock.now())
        assert after is not None
        return after.total_seconds()


RATE = "{name: a, interval: 20s, initialDelay: 30s, prometheus: {query: 'x[$(window)]'}, pass: {max: '0.5'}}"


async def test_the_first_sample_waits_for_the_window_and_the_delay_and_each_other_for_the_interval() -> None:
    eye = Eye(RATE)
    await eye.look()
    assert eye.due() == 90
    await eye.look(89)
    assert eye.asked == []
    assert await eye.look(1) == "0.1 is <= 0.5"
    assert (eye.asked, eye.woken, eye.due()) == ([90], 1, 20)
    await eye.look(19)
    assert eye.asked == [90]
    await eye.look(1)
    assert eye.asked == [90, 110]


async def test_a_source_that_breaks_is_missing_data_and_is_asked_again() -> None:
    eye = Eye(RATE)
    eye.metrics.answer = lambda _: Sample(1 / 0)
    assert await eye.look(90) == "the measurement failed unexpectedly"
    eye.metrics.answer = eye.answer
    assert await eye.look(20) == "0.1 is <= 0.5"


async def test_the_gates_of_a_namespace_share_a_pace_and_none_is_left_out() -> None:
    """300 gates that want a sample each second: 50 at once, then 25 a second."""
    pace, eyes = Pace(), [Eye(RATE.replace("20s", "1s").replace("30s", "0s")) for _ in range(300)]
    taken = list[int]()
    for eye in eyes:
        eye.watch._pace = pace
        eye.cluster.clock.pass_time(timedelta(minutes=2))
    for _ in range(14):
        for eye in eyes:
            await eye.look()
            eye.cluster.clock.pass_time(timedelta(seconds=1))
        taken.append(sum(len(eye.asked) for eye in eyes))
    assert taken == [50 + 25 * second for second in range(14)]
    assert {len(eye.asked) for eye in eyes} == {1, 2}


async def test_gates_that_are_gone_keep_nobody_waiting() -> None:
    """Five runs a second, each with 32 gates that want their first sample at once, are over before most have got it."""
    eye, gates = Eye(RATE.replace("30s", "0s")), 5 * 32
    pace = eye.watch._pace = Pace()
    clock = eye.cluster.clock
    clock.pass_time(timedelta(minutes=2))
    for _ in range(20):
        gone = Watch(eye.spawner, eye.wake, pace)
        gone.turn_to("stage", [eye.gate] * gates, eye.begun)
        await gone.look(GateContext(eye.cluster, eye.metrics, clock, "shop", "step", None))
        await eye.spawner.run()
        gone.stop()
        clock.pass_time(timedelta(seconds=1))
    before = len(eye.asked)
    await eye.look()
    await eye.look(gates / 25)
    assert len(eye.asked) > before


def test_a_moment_that_is_given_back_is_handed_out_once_and_none_that_is_over() -> None:
    pace, now = Pace(), datetime(2026, 1, 1, tzinfo=UTC)
    moments = [pace.book(now) for _ in range(60)]
    assert [moment for moment in moments if moment > now] == sorted(set(moments) - {now})
    pace.give_back(moments[58])
    pace.give_back(moments[55])
    assert [pace.book(now) for _ in range(3)] == [moments[55], moments[58], moments[59] + timedelta(milliseconds=40)]
    pace.give_back(moments[55])
    later = now + timedelta(minutes=1)
    assert [pace.book(later) for _ in range(50)] == [later] * 50
    assert pace.book(later) > later
