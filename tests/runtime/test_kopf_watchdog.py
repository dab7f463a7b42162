"""Kopf ends, fails, is cancelled, or hangs after a failure that shows only in its log."""

from __future__ import annotations

import asyncio
import logging

import pytest

from cutover.runtime.kopf_watchdog import KopfHung, run_kopf

LOGGER = logging.getLogger("kopf._core.reactor.running")


async def test_what_it_raises_is_raised() -> None:
    async def fails() -> None:
        LOGGER.error("Namespace observer has failed")
        await asyncio.sleep(0.01)
        raise RuntimeError("a stream")

    with pytest.raises(RuntimeError, match="a stream"):
        await run_kopf(fails())


async def test_it_may_take_long_while_nothing_has_failed() -> None:
    async def works() -> None:
        await asyncio.sleep(0.2)

    await run_kopf(works(), patience=0.01)


async def test_one_that_hangs_is_left() -> None:
    ends = asyncio.Event()

    async def hangs() -> None:
        LOGGER.error("Multidimensional multitasker has failed")
        await ends.wait()

    with pytest.raises(KopfHung, match="did not end within"):
        await run_kopf(hangs(), patience=0.05)
    assert LOGGER.handlers == []
    ends.set()


async def test_it_is_ended_with_the_process() -> None:
    ended = asyncio.Event()

    async def works() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    task = asyncio.create_task(run_kopf(works()))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
