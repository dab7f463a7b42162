"""Streams of EndpointSlices: opened only for plans that stay with moved traffic, closed with them, and never believed once they end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from cutover.adapters import endpoint_streams
from cutover.adapters.endpoint_streams import MOST, EndpointStreams
from cutover.names import Selector, matching
from cutover.objects.endpoints import SERVICE_LABEL
from cutover.ports import PLANS, Ref

PLAN, OTHER, ELSEWHERE = Ref(PLANS, "shop", "a"), Ref(PLANS, "shop", "b"), Ref(PLANS, "bar", "a")
BOTH = frozenset({"v1", "v2"})
PICKED = matching({}, (SERVICE_LABEL, "In", sorted(BOTH)))


class Server:
    """Watches that a test feeds."""

    def __init__(self) -> None:
        self.opened: list[tuple[str, str]] = []
        self.open: list[asyncio.Queue[Any]] = []
        self.woken: list[Ref] = []
        self.streams = EndpointStreams(self.watch, self.woken.append)

    async def watch(self, namespace: str, labels: str, seconds: int) -> AsyncGenerator[Any, None]:
        assert 200 < seconds < 400
        self.opened.append((namespace, labels))
        events: asyncio.Queue[Any] = asyncio.Queue()
        self.open.append(events)
        try:
            while (event := await events.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.open.remove(events)

    async def tell(self, *services: str, kind: str = "ADDED") -> None:
        for service in services:
            labels = {"kubernetes.io/service-name": service}
            self.open[-1].put_nowait({"type": kind, "object": {"metadata": {"labels": labels}}})
        await asyncio.sleep(0.01)

    def ask(self, plan: Ref = PLAN, services: frozenset[str] = BOTH) -> int | None:
        """What one turn does."""
        number = self.streams.follow(plan, services)
        self.streams.turn_ended(plan)
        return number


@asynccontextmanager
async def serving(monkeypatch: pytest.MonkeyPatch, delay: float = 0.02) -> AsyncIterator[Server]:
    monkeypatch.setattr(endpoint_streams, "_DELAY", delay)
    monkeypatch.setattr(endpoint_streams, "_PAUSE", delay)
    server = Server()
    try:
        yield server
    finally:
        server.streams.close()
        await asyncio.sleep(0.01)
        assert server.open == []


async def test_it_is_live_once_all_services_were_told_and_grows_with_each_event(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving(monkeypatch) as server:
        assert server.ask() is None
        await asyncio.sleep(0.05)
        assert server.opened == [("shop", "kubernetes.io/service-name in (v1,v2)")]
        await server.tell("v1")
        assert server.ask() is None
        await server.tell("v2")
        first = server.ask()
        assert first is not None
        server.woken.clear()
        await server.tell("v1", kind="MODIFIED")
        assert set(server.woken) == {PLAN}
        second = server.ask()
        await server.tell("v2", kind="DELETED")
        third = server.ask()
        assert second is not None
        assert third is not None
        assert first < second < third
        await server.tell("v9", kind="MODIFIED")
        assert server.ask() == third


async def test_a_shift_that_does_not_stay_opens_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as server:
        server.ask()
        server.streams.turn_ended(PLAN)
        await asyncio.sleep(0.05)
        assert server.opened == []


async def test_it_ends_with_the_last_plan_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as server:
        server.ask()
        server.ask(OTHER)
        await asyncio.sleep(0.05)
        server.streams.turn_ended(PLAN)
        await asyncio.sleep(0.01)
        assert len(server.open) == 1
        server.streams.turn_ended(OTHER)
        await asyncio.sleep(0.01)
        assert server.open == []


async def test_other_services_of_a_namespace_make_it_one_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as server:
        server.ask()
        await asyncio.sleep(0.05)
        for name in ("w1", "w2", "w3"):
            assert server.ask(OTHER, frozenset({name})) is None
            await asyncio.sleep(0.05)
        assert PLAN in server.woken, "its stream was interrupted for that"
        assert server.opened == [
            ("shop", "kubernetes.io/service-name in (v1,v2)"),
            ("shop", "kubernetes.io/service-name"),
        ]
        await server.tell("v1", "v2", "w3")
        assert server.ask() is not None
        assert server.ask(OTHER, frozenset({"w3"})) is not None


@pytest.mark.parametrize(
    "end", [None, {"type": "ERROR", "object": {"code": 410}}, {"kind": "Status", "code": 403}, KeyError("x")]
)
async def test_one_that_ends_is_not_believed_and_opened_again(monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    async with serving(monkeypatch) as server:
        server.ask()
        await asyncio.sleep(0.05)
        await server.tell("v1", "v2")
        first = server.ask()
        server.woken.clear()
        server.open[0].put_nowait(end)
        await asyncio.sleep(0.005)
        assert server.woken == [PLAN], "it may not be opened again for long"
        assert server.ask() is None
        await asyncio.sleep(0.05)
        assert len(server.opened) == 2
        await server.tell("v1", "v2")
        second = server.ask()
        assert first is not None
        assert second is not None
        assert second > first, "what happened in between is news"


async def test_one_that_is_silent_for_too_long_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_streams, "_SILENCE", 0.2)
    async with serving(monkeypatch) as server:
        server.ask()
        await asyncio.sleep(0.05)
        await server.tell("v1", "v2")
        for _ in range(4):
            await asyncio.sleep(0.1)
            server.open[0].put_nowait({"type": "BOOKMARK", "object": {"metadata": {}}})
        assert server.ask() is not None
        assert len(server.opened) == 1
        await asyncio.sleep(0.3)
        assert len(server.opened) == 2
        assert server.ask() is None


DENIED = {"kind": "Status", "code": "403", "message": "cannot watch resource endpointslices"}


async def test_a_server_that_refuses_it_is_asked_less_and_less_and_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(endpoint_streams, "_LONGEST_PAUSE", 0.16)
    async with serving(monkeypatch) as server:
        loop, opened = asyncio.get_running_loop(), []
        server.ask()
        for number in range(8):
            while len(server.opened) <= number:
                await asyncio.sleep(0.002)
            opened.append(loop.time())
            server.open[0].put_nowait(DENIED)
        pauses = [after - before for before, after in pairwise(opened)]
        assert all(
            pause >= least for pause, least in zip(pauses, (0.02, 0.04, 0.08, 0.16, 0.16, 0.16, 0.16), strict=True)
        )
        (said,) = caplog.messages
        assert "a stream of EndpointSlices failed" in said
        assert DENIED["message"] in said
        while len(server.opened) == 8:
            await asyncio.sleep(0.002)
        await server.tell("v1", "v2")
        assert server.ask() is not None
        assert caplog.messages[1:] == ["a stream of EndpointSlices works again"]
        server.open[0].put_nowait(DENIED)
        while len(server.opened) == 9:
            await asyncio.sleep(0.002)
        assert len(caplog.messages) == 3


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as server:
        for number in range(MOST + 3):
            server.ask(Ref(PLANS, f"n{number}", "a"))
        await asyncio.sleep(0.05)
        assert len(server.open) == MOST
        server.streams.turn_ended(Ref(PLANS, "n0", "a"))
        server.ask(ELSEWHERE)
        await asyncio.sleep(0.05)
        assert len(server.open) == MOST


class Slices:
    """Answers with the number of the request, and notes whether a fresh answer was asked for."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def answer(self, *, fresh: bool) -> list[Any]:
        self.asked.append(fresh)
        return [len(self.asked)]


async def test_what_was_read_is_answered_until_the_stream_tells_of_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each weight of a plan asks for the same EndpointSlices."""
    async with serving(monkeypatch) as server:
        slices, ask = Slices(), server.ask

        async def read(plan: Ref = PLAN, labels: Selector = PICKED) -> Any:
            return (await server.streams.answer(plan, labels, slices.answer))[0]

        assert await read() == 1
        ask()
        assert await read() == 2, "nothing tells of changes yet"
        await asyncio.sleep(0.05)
        await server.tell("v1", "v2")
        ask()
        assert [await read() for _ in range(3)] == [3, 3, 3]
        assert slices.asked == [False, False, True], "no older than what the stream has told"
        await server.tell("v2", kind="MODIFIED")
        assert [await read() for _ in range(2)] == [4, 4]
        assert await read(labels=matching({}, (SERVICE_LABEL, "In", ["v1"]))) == 5
        assert await read(plan=OTHER) == 6, "it follows nothing"
        server.streams.turn_ended(PLAN)
        assert await read() == 7, "nobody follows them any more"


async def test_a_change_while_it_is_read_is_no_part_of_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(monkeypatch) as server:
        server.ask()
        await asyncio.sleep(0.05)
        await server.tell("v1", "v2")
        server.ask()
        told = asyncio.Event()

        async def answer(*, fresh: bool) -> list[Any]:
            del fresh
            await told.wait()
            return ["old"]

        reading = asyncio.create_task(server.streams.answer(PLAN, PICKED, answer))
        await server.tell("v1", kind="MODIFIED")
        told.set()
        assert await reading == ["old"]
        slices = Slices()
        assert await server.streams.answer(PLAN, PICKED, slices.answer) == [1]


async def test_of_a_stream_that_ended_nothing_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = Slices()
    async with serving(monkeypatch) as server:
        server.ask()
        await asyncio.sleep(0.05)
        await server.tell("v1", "v2")
        server.ask()
        assert await server.streams.answer(PLAN, PICKED, slices.answer) == [1]
        server.open[-1].put_nowait(None)
        await asyncio.sleep(0.05)
        server.ask()
        assert await server.streams.answer(PLAN, PICKED, slices.answer) == [2]
