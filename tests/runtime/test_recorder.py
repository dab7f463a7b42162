"""Events are sent in the background, and never stop a plan."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from cutover.errors import Conflict, Denied, Unavailable
from cutover.runtime.recorder import EventRecorder
from cutover.saga.turn import Notice

PLAN = {"metadata": {"name": "p", "namespace": "shop", "uid": "u"}}


async def test_an_event() -> None:
    sent: list[tuple[str, Any]] = []

    async def send(namespace: str, event: Any) -> None:
        sent.append((namespace, event))

    recorded: list[str] = []
    recorder = EventRecorder(
        send, "pod-1", lambda notice: recorded.append(notice.reason), lambda: recorded.append("dropped")
    )
    recorder.record(PLAN, Notice("GateFailed", "ä" * 2000, warning=True))
    await recorder.flush()
    namespace, event = sent[0]
    assert namespace == "shop"
    assert (event["type"], event["reason"], event["regarding"]["uid"]) == ("Warning", "GateFailed", "u")
    assert len(event["note"].encode()) <= 1024
    assert recorded == ["GateFailed"]


@pytest.mark.parametrize("refused_by", ["shop", "all"])
async def test_what_a_terminating_namespace_does_not_take_is_reported_of_it(refused_by: str) -> None:
    sent: list[Any] = []

    async def send(namespace: str, event: Any) -> None:
        if refused_by in ("all", namespace):
            raise Denied("the namespace is being terminated")
        sent.append(event)

    recorded: list[str] = []
    recorder = EventRecorder(send, "pod-1", lambda _: None, lambda: recorded.append("dropped"))
    task = asyncio.create_task(recorder.run())
    recorder.record(PLAN, Notice("RolledBack", "ä" * 2000))
    await asyncio.sleep(0.01)
    task.cancel()
    if refused_by == "all":
        assert (sent, recorded) == ([], ["dropped"])
        return
    (event,) = sent
    assert recorded == []
    assert event["metadata"]["namespace"] == "default"
    assert event["regarding"] == {"apiVersion": "v1", "kind": "Namespace", "name": "shop"}
    assert event["note"].startswith("MigrationPlan p: ä")
    assert len(event["note"].encode()) <= 1024


async def test_one_that_cannot_be_sent_is_dropped() -> None:
    tries = 0

    async def send(_: str, __: Any) -> None:
        nonlocal tries
        tries += 1
        raise Unavailable("gone")

    recorded: list[str] = []
    recorder = EventRecorder(
        send,
        "pod-1",
        lambda notice: recorded.append(notice.reason),
        lambda: recorded.append("dropped"),
        pauses=(0.0, 0.0),
    )
    task = asyncio.create_task(recorder.run())
    recorder.record(PLAN, Notice("A", "a"))
    recorder.record(PLAN, Notice("B", "b"))
    await asyncio.sleep(0.05)
    assert tries == 6
    assert recorded == ["A", "B", "dropped", "dropped"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("taken", [True, False])
async def test_one_that_gets_no_answer_is_sent_again_and_comes_once(taken: bool) -> None:  # noqa: FBT001
    names: list[str] = []
    tries = 0

    async def send(_: str, event: Any) -> None:
        nonlocal tries
        tries += 1
        if event["metadata"]["name"] in names:
            raise Conflict("it is there")
        if tries > 1 or taken:
            names.append(event["metadata"]["name"])
        if tries == 1:
            raise Unavailable("no answer")

    recorded: list[str] = []
    recorder = EventRecorder(send, "pod-1", lambda _: None, lambda: recorded.append("dropped"), pauses=(0.0,))
    task = asyncio.create_task(recorder.run())
    recorder.record(PLAN, Notice("A", "a"))
    await asyncio.sleep(0.05)
    task.cancel()
    assert (tries, len(names), recorded) == (2, 1, [])


@pytest.mark.parametrize("taken", [True, False])
async def test_one_that_is_under_way_when_the_process_ends_is_not_lost(taken: bool) -> None:  # noqa: FBT001
    names: list[str] = []
    under_way = asyncio.Event()

    async def send(_: str, event: Any) -> None:
        name = event["metadata"]["name"]
        if name in names:
            raise Conflict("it is there")
        if not under_way.is_set():
            under_way.set()
            names.extend([name] if taken else [])
            await asyncio.Event().wait()
        names.append(name)

    recorder = EventRecorder(send, "pod-1", lambda _: None, lambda: None)
    task = asyncio.create_task(recorder.run())
    recorder.record(PLAN, Notice("A", "a"))
    await under_way.wait()
    task.cancel()
    await asyncio.wait({task})
    recorder.record(PLAN, Notice("B", "b"))
    await recorder.flush()
    assert len(names) == len(set(names)) == 2
