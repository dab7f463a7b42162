"""The queue: once each, events first, nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from cutover.errors import Unavailable
from cutover.runtime.queue import Queue

Turn = Callable[[str], Awaitable[timedelta | None]]


@asynccontextmanager
async def running(turn: Turn, workers: int = 4) -> AsyncIterator[Queue[str]]:
    queue = Queue(turn, lambda key: key.startswith("new"), workers=workers, arrival_workers=1)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_key_is_in_it_once() -> None:
    seen: list[str] = []

    async def turn(key: str) -> None:
        seen.append(key)

    async with running(turn) as queue:
        for _ in range(5):
            queue.add("a")
        await asyncio.sleep(0.01)
    assert seen == ["a"]


async def test_what_is_added_during_a_turn_is_not_lost_and_never_runs_twice_at_once() -> None:
    now, most, turns = 0, 0, 0
    go = asyncio.Event()

    async def turn(_: str) -> None:
        nonlocal now, most, turns
        now, turns = now + 1, turns + 1
        most = max(most, now)
        await go.wait()
        now -= 1

    async with running(turn) as queue:
        queue.add("a")
        await asyncio.sleep(0.01)
        queue.add("a")
        queue.add("a")
        go.set()
        await asyncio.sleep(0.01)
    assert (most, turns) == (1, 2)


async def test_timers_and_their_soonest_time() -> None:
    seen: list[float] = []
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def turn(_: str) -> None:
        seen.append(loop.time() - begun)

    async with running(turn) as queue:
        queue.add_after("a", 5)
        queue.add_after("a", 0.05)
        queue.add_after("a", 2)
        await asyncio.sleep(0.15)
    assert len(seen) == 1
    assert seen[0] >= 0.05


async def test_an_event_goes_before_a_timer() -> None:
    seen: list[str] = []
    hold = asyncio.Event()

    async def turn(key: str) -> None:
        if key == "first":
            await hold.wait()
        seen.append(key)

    async with running(turn, workers=1) as queue:
        queue.add("first")
        await asyncio.sleep(0.01)
        queue.add_after("timer", 0)
        await asyncio.sleep(0.01)
        queue.add("event")
        hold.set()
        await asyncio.sleep(0.01)
    assert seen == ["first", "event", "timer"]


async def test_a_failure_comes_back_and_an_event_does_not_wait_for_that() -> None:
    tries = 0

    async def turn(_: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no answer")

    async with running(turn) as queue:
        queue.add("a")
        await asyncio.sleep(0.01)
        assert tries == 1
        queue.add("a")
        await asyncio.sleep(0.01)
        assert tries == 2
        await asyncio.sleep(1.5)
    assert tries == 3


async def test_it_comes_back_no_sooner_than_the_server_wants() -> None:
    seen: list[float] = []
    loop = asyncio.get_running_loop()
    twice = asyncio.Event()

    async def turn(_: str) -> None:
        seen.append(loop.time())
        if len(seen) == 1:
            raise Unavailable("HTTP 429", 1.2)
        twice.set()

    async with running(turn) as queue:
        queue.add("a")
        await asyncio.wait_for(twice.wait(), 10)
    assert seen[1] - seen[0] >= 1.2


async def test_its_own_request_to_be_checked_again() -> None:
    turns = 0

    async def turn(_: str) -> timedelta | None:
        nonlocal turns
        turns += 1
        return timedelta(milliseconds=10) if turns < 4 else None

    async with running(turn) as queue:
        queue.add("a")
        await asyncio.sleep(0.2)
    assert turns == 4


class Paused:
    """Turns that begin, and wait for a sign to go on."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.go = asyncio.Event()

    async def __call__(self, key: str) -> None:
        self.begun.append(key)
        await self.go.wait()


async def test_a_crowd_that_arrives_leaves_room_for_what_is_under_way() -> None:
    turn = Paused()
    async with running(turn, workers=2) as queue:
        for number in range(3):
            queue.add(f"new {number}")
        queue.add("old")
        await asyncio.sleep(0.01)
        assert turn.begun == ["new 0", "old"]
        turn.go.set()
        await asyncio.sleep(0.01)
    assert turn.begun == ["new 0", "old", "new 1", "new 2"]


async def test_who_takes_arrivals_does_other_work_when_there_are_none() -> None:
    turn = Paused()
    async with running(turn, workers=2) as queue:
        queue.add("old 0")
        queue.add("old 1")
        await asyncio.sleep(0.01)
        assert turn.begun == ["old 0", "old 1"]
        turn.go.set()
