"""Reads that several plans have in common: how few are made, and that no answer is older than was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from cutover.adapters import shared_reads
from cutover.adapters.shared_reads import SharedReads
from cutover.adapters.shares import acting_for
from cutover.errors import Unavailable
from cutover.ports import PLANS, Ref


class Server:
    """Answers with the number of the request, once it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.let = asyncio.Semaphore(0)
        self.broken = False

    async def answer(self) -> int:
        self.asked += 1
        number = self.asked
        await self.let.acquire()
        if self.broken:
            raise Unavailable("no answer")
        return number


@pytest.fixture
async def reads() -> AsyncIterator[SharedReads]:
    made = SharedReads()
    yield made
    await made.close()


def plan(number: int) -> Ref:
    return Ref(PLANS, "shop", f"plan-{number}")


async def begun(reads: SharedReads, server: Server, *, fresh: bool, number: int = 0) -> asyncio.Task[int]:
    """A read for a plan, of which everything has happened that can happen without an answer."""
    with acting_for(plan(number)):
        task = asyncio.create_task(reads.read("what", server.answer, fresh=fresh))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_fresh_answer_is_of_a_request_that_began_after_the_question(reads: SharedReads) -> None:
    """All that ask while one is under way have the next one in common."""
    server = Server()
    first = await begun(reads, server, fresh=True)
    later = [await begun(reads, server, fresh=True, number=number) for number in range(1, 9)]
    assert server.asked == 1
    server.let.release()
    assert await first == 1
    server.let.release()
    assert await asyncio.gather(*later) == [2] * 8
    assert server.asked == 2


async def test_who_takes_any_answer_joins_the_one_under_way(reads: SharedReads) -> None:
    server = Server()
    tasks = [await begun(reads, server, fresh=False, number=number) for number in range(9)]
    server.let.release()
    assert await asyncio.gather(*tasks) == [1] * 9
    assert server.asked == 1


async def test_an_answer_is_kept_for_a_moment_and_for_others(
    reads: SharedReads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that looks again wants to know what is there now."""
    monkeypatch.setattr(shared_reads, "_KEPT", 0.1)
    server = Server()
    server.let = asyncio.Semaphore(10)
    assert await (await begun(reads, server, fresh=False)) == 1
    assert await (await begun(reads, server, fresh=False, number=1)) == 1
    assert await (await begun(reads, server, fresh=False)) == 2
    assert await (await begun(reads, server, fresh=True, number=1)) == 3
    await asyncio.sleep(0.15)
    assert await (await begun(reads, server, fresh=False, number=1)) == 4


async def test_who_gives_up_takes_the_answer_from_nobody(reads: SharedReads) -> None:
    server = Server()
    first = await begun(reads, server, fresh=False)
    other = await begun(reads, server, fresh=False, number=1)
    first.cancel()
    server.let.release()
    assert await other == 1
    with suppress(asyncio.CancelledError):
        await first


async def test_an_error_is_that_of_all_who_wait_and_of_nobody_after_them(reads: SharedReads) -> None:
    server = Server()
    server.broken = True
    tasks = [await begun(reads, server, fresh=False, number=number) for number in range(3)]
    server.let.release()
    for task in tasks:
        with pytest.raises(Unavailable):
            await task
    server.broken, server.let = False, asyncio.Semaphore(10)
    assert await (await begun(reads, server, fresh=False)) == 2


async def test_what_nobody_waits_for_any_more_is_given_up(reads: SharedReads) -> None:
    """It has one of the few places of its plan. Who comes later has a request of its own."""
    server = Server()
    tasks = [await begun(reads, server, fresh=True, number=number) for number in range(3)]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    later = await begun(reads, server, fresh=True)
    server.let.release()
    assert await later == server.asked == 2


async def test_nothing_is_left_of_what_was_asked(reads: SharedReads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_reads, "_KEPT", 0.1)
    server = Server()
    server.let = asyncio.Semaphore(100)
    for number in range(20):
        await reads.read(number, server.answer, fresh=bool(number % 2))
    await asyncio.sleep(0.15)
    assert reads._questions == {}
