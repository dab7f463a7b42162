"""Probes: alive while the event loop runs and keeps trying, ready when plans can be read; and the metrics."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from cutover.runtime.health import STREAM, ApiActivity, Health


async def _ask(port: int, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as answer:
        return answer.status, await answer.text()


async def test_probes() -> None:
    why, remark = "plans cannot be read yet", ""
    activity = ApiActivity()
    health = Health(
        0, lambda: (why, remark), activity, lambda _: (b"cutover_lease_held 1.0\n", "text/plain"), "127.0.0.1"
    )
    task = asyncio.create_task(health.run())
    while not health.port:
        await asyncio.sleep(0.01)
    assert await _ask(health.port, "/livez") == (200, "ok\n")
    assert await _ask(health.port, "/readyz") == (503, "plans cannot be read yet\n")
    why = ""
    assert await _ask(health.port, "/readyz") == (200, "ok\n")
    remark = "the CRD is outdated"
    assert await _ask(health.port, "/readyz") == (200, "ok\nthe CRD is outdated\n")
    assert await _ask(health.port, "/metrics") == (200, "cutover_lease_held 1.0\n")
    activity.request_sent()
    activity._tried = (activity._tried or 0) - 1000
    assert await _ask(health.port, "/livez") == (500, "no request was sent to the API server for 1000s\n")
    activity.request_sent()
    assert (await _ask(health.port, "/livez"))[0] == 200
    health._beat -= 60
    assert "loop" in (await _ask(health.port, "/livez"))[1]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_api_activity() -> None:
    """Dead is what does not try any more, never what gets no answer."""
    now = asyncio.get_running_loop().time()
    activity = ApiActivity()
    assert activity.hung_reason(now + 10_000) == "", "a standby has no streams"
    activity.request_sent()
    activity.request_ended(answered=True)
    assert activity.hung_reason(now + STREAM + 60) == "", "the streams live that long"
    assert activity.hung_reason(now + STREAM + 180)
    activity.request_sent()
    activity.request_ended(answered=False)
    assert activity.hung_reason(now + 60) == ""
    assert activity.hung_reason(now + 180), "what failed is tried again soon"
