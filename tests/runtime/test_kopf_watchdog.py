"""Kopf ends, fails, is ended, or hangs after a failure that only its log tells of."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cutover.runtime.kopf_watchdog import GivenUp, until_it_ends

LOGGER = logging.getLogger("kopf._core.reactor.running")


async def test_what_it_raises_is_raised() -> None:
    async def fails() -> None:
        LOGGER.error("Namespace observer has failed")
        await asyncio.sleep(0.01)
        raise RuntimeError("a stream")

    with pytest.raises(RuntimeError, match="a stream"):
        await until_it_ends(fails())


async def test_it_may_take_long_while_nothing_has_failed() -> None:
    async def works() -> None:
        await asyncio.sleep(0.2)

    await until_it_ends(works(), patience=0.01)


async def test_one_that_hangs_is_left() -> None:
    ends = asyncio.Event()

    async def hangs() -> None:
        LOGGER.error("Multidimensional multitasker has failed")
        await ends.wait()

    with pytest.raises(GivenUp, match="did not end within"):
        await until_it_ends(hangs(), patience=0.05)
    assert LOGGER.handlers == []
    ends.set()


async def test_it_is_ended_with_the_process() -> None:
    ended = asyncio.Event()

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(until_it_ends(works()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
