"""Probes: alive while the loop turns, ready when plans can be read."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cutover.runtime.health import Health


async def _ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_probes() -> None:
    why = "plans cannot be read yet"
    health = Health(0, lambda: why, "127.0.0.1")
    task = asyncio.create_task(health.run())
    while not health.port:
        await asyncio.sleep(0.01)
    assert await _ask(health.port, "/livez") == (200, "ok\n")
    assert await _ask(health.port, "/readyz") == (503, "plans cannot be read yet\n")
    why = ""
    assert await _ask(health.port, "/readyz") == (200, "ok\n")
    health._beat -= 60
    assert (await _ask(health.port, "/livez"))[0] == 500
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
