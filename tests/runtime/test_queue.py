"""The queue: once each, events first, nothing lost, and a fair share for each namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from cutover.errors import Unavailable
from cutover.runtime.queue import Queue, Urgency

Turn = Callable[[str], Awaitable[timedelta | None]]
_URGENCIES = {"back": Urgency.BACKWARD, "new": Urgency.ARRIVED}


def urgency(key: str) -> Urgency:
    """By the first word of a key, such as "new 1"."""
    return _URGENCIES.get(key.partition(" ")[0], Urgency.UNDER_WAY)


def namespace(key: str) -> str:
    """What comes before a slash, such as "many" in "many/1"."""
    return key.rpartition("/")[0]


@asynccontextmanager
async def running(turn: Turn, places: int = 4) -> AsyncIterator[Queue[str]]:
    of_each = {Urgency.BACKWARD: places, Urgency.UNDER_WAY: places, Urgency.ARRIVED: 1}
    queue = Queue(turn, urgency, namespace, of_each)
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

    async with running(turn, places=1) as queue:
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
    async with running(turn) as queue:
        for number in range(3):
            queue.add(f"new {number}")
        queue.add("old")
        await asyncio.sleep(0.01)
        assert sorted(turn.begun) == ["new 0", "old"]
        turn.go.set()
        await asyncio.sleep(0.01)
    assert turn.begun[2:] == ["new 1", "new 2"]


async def test_what_goes_back_goes_before_all_that_waits() -> None:
    turn = Paused()
    async with running(turn, places=1) as queue:
        queue.add("back 0")
        queue.add("old 0")
        queue.add("new 0")
        await asyncio.sleep(0.01)
        for key in ("old 1", "new 1", "back 1"):
            queue.add(key)
        turn.go.set()
        await asyncio.sleep(0.01)
    assert turn.begun[3] == "back 1"


async def test_what_goes_back_needs_no_place_of_the_others() -> None:
    turn = Paused()
    async with running(turn, places=2) as queue:
        for number in range(5):
            queue.add(f"{number}/busy")
            queue.add(f"new {number}")
        await asyncio.sleep(0.01)
        queue.add("back 0")
        await asyncio.sleep(0.01)
        assert "back 0" in turn.begun


async def test_a_key_that_is_queued_and_becomes_urgent_goes_first() -> None:
    seen, now_back = list[str](), set[str]()
    hold = asyncio.Event()

    async def turn(key: str) -> None:
        if key == "first":
            await hold.wait()
        seen.append(key)

    def urgency_now(key: str) -> Urgency:
        return Urgency.BACKWARD if key in now_back else Urgency.UNDER_WAY

    queue = Queue(turn, urgency_now, places=dict.fromkeys(Urgency, 1))
    task = asyncio.create_task(queue.run())
    for key in ("first", "second", "third"):
        queue.add(key)
    await asyncio.sleep(0.01)
    now_back.add("third")
    queue.add("third")
    await asyncio.sleep(0.01)
    assert seen == ["third"]
    hold.set()
    await asyncio.sleep(0.01)
    assert seen == ["third", "first", "second"]
    task.cancel()


async def test_namespaces_take_turns() -> None:
    turn = Paused()
    async with running(turn, places=1) as queue:
        queue.add("first")
        await asyncio.sleep(0.01)
        for number in range(1000):
            queue.add(f"many/{number}")
        for key in ("few/0", "few/1", "one/0"):
            queue.add(key)
        turn.go.set()
        await asyncio.sleep(0.05)
    assert turn.begun[1:7] == ["many/0", "few/0", "one/0", "many/1", "few/1", "many/2"]


async def test_one_namespace_has_at_most_half_of_the_places() -> None:
    turn = Paused()
    async with running(turn, places=4) as queue:
        for number in range(10):
            queue.add(f"many/{number}")
        await asyncio.sleep(0.01)
        assert turn.begun == ["many/0", "many/1"]
        queue.add("few/0")
        await asyncio.sleep(0.01)
        assert turn.begun[2:] == ["few/0"]


async def test_namespaces_that_have_places_leave_some_for_those_that_have_none() -> None:
    turn = Paused()
    async with running(turn, places=6) as queue:
        for name in ("one", "two"):
            for number in range(10):
                queue.add(f"back {name}/{number}")
        await asyncio.sleep(0.01)
        for name in ("three", "four"):
            queue.add(f"back {name}/0")
        await asyncio.sleep(0.01)
        assert sorted(map(namespace, turn.begun)) == ["back four", "back one", "back one", "back three", "back two"]


async def test_a_turn_replaces_the_delayed_one() -> None:
    turns = 0

    async def turn(_: str) -> None:
        nonlocal turns
        turns += 1

    async with running(turn) as queue:
        queue.add_after("a", 0.2)
        queue.add("a")
        await asyncio.sleep(0.5)
    assert turns == 1


async def test_a_namespace_that_never_rests_starves_nobody() -> None:
    """Neither its events the timer of another one, nor its plans under way the arrival of another one."""
    seen: list[str] = []

    async def turn(key: str) -> None:
        seen.append(key)
        if namespace(key) == "many":
            queue.add(key)

    async with running(turn, places=2) as queue:
        for number in range(10):
            queue.add(f"many/{number}")
        queue.add_after("few/timer", 0.001)
        queue.add("new few/0")
        await asyncio.sleep(0.05)
        assert {"few/timer", "new few/0"} <= set(seen)


async def test_turns_that_need_no_answer_let_others_go_on() -> None:
    """A hundred of them, one after the other, would be one long pause for whoever waits for an answer."""
    turns = 0

    async def turn(_: str) -> None:
        nonlocal turns
        turns += 1

    async with running(turn, places=32) as queue:
        for number in range(100):
            queue.add(f"many/{number}")
        before, most = 0, 0
        while turns < 100:
            await asyncio.sleep(0)
            before, most = turns, max(most, turns - before)
    assert most == 1


async def test_one_delayed_turn_a_key_however_often_one_is_asked_for() -> None:
    loop = asyncio.get_running_loop()
    queue = Queue[str](Paused(), urgency, namespace)
    for number in range(10_000, 0, -1):
        queue.add_after("a", number)
    await asyncio.sleep(0)
    assert len(queue._delayed) == 1
    assert len(loop._scheduled) < 1000  # type: ignore[attr-defined]  # asyncio's heap, cancelled ones included


async def test_whether_others_wait_for_the_place_of_a_turn() -> None:
    turn = Paused()
    async with running(turn, places=4) as queue:
        queue.add("many/0")
        queue.add("many/1")
        await asyncio.sleep(0.01)
        assert not queue.crowded("many/0")
        queue.add("many/2")
        await asyncio.sleep(0.01)
        assert queue.crowded("many/0")  # its namespace has no place left
        queue.add("few/0")
        await asyncio.sleep(0.01)
        assert not queue.crowded("few/0")
        queue.add("few/1")
        queue.add("one/0")
        await asyncio.sleep(0.01)
        assert queue.crowded("few/0")  # nobody has
