"""Outlines of all objects of a kind: one stream for all plans, what counts as news, and what is said while nothing is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from cutover.adapters import outline_streams
from cutover.adapters.outline_streams import OutlineStreams
from cutover.errors import Denied, NotInstalled
from cutover.ports import VIRTUAL_SERVICES


def body(name: str, version: int, weight: int = 0, host: str = "a.example", namespace: str = "shop") -> Any:
    route = {"route": [{"destination": {"host": "x"}, "weight": weight}]}
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": {"a": "b"}}
    return {"metadata": metadata, "spec": {"hosts": [host], "http": [route]}}


class Server:
    """A list, and events that a test adds; what was asked."""

    def __init__(self, *items: Any, error: Exception | None = None) -> None:
        self.items, self.error = items, error
        self.asked: list[tuple[str, str]] = []
        self.queue: asyncio.Queue[Any] = asyncio.Queue()

    async def versioned_pages(
        self, path: str, _: Mapping[str, str], params: Mapping[str, str]
    ) -> AsyncGenerator[tuple[Any, str], None]:
        self.asked.append(("list", str(path)))
        del params
        if self.error:
            raise self.error
        yield self.items, "10"

    async def events(self, _: str, params: Mapping[str, str]) -> AsyncGenerator[Any, None]:
        self.asked.append(("watch", params["resourceVersion"]))
        while (event := await self.queue.get()) is not None:
            yield event


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline_streams, "_PAUSE", 0.0)
    monkeypatch.setattr(outline_streams, "_FIRST", 0.05)


async def test_all_plans_share_one_stream_and_a_weight_is_no_news() -> None:
    server = Server(body("one", 5), body("two", 6, namespace="other"))
    streams = OutlineStreams(server, everywhere=True)  # type: ignore[arg-type]
    first, same = await asyncio.gather(
        *(streams.known(VIRTUAL_SERVICES, name, wait=True) for name in ("shop", "other"))
    )
    assert [one["metadata"]["name"] for one in first.bodies] == ["one", "two"]
    assert first == same
    assert first.complete
    server.queue.put_nowait({"type": "MODIFIED", "object": body("one", 11, weight=50)})
    await settled()
    assert (await streams.known(VIRTUAL_SERVICES, "shop", wait=False)).number == first.number
    server.queue.put_nowait({"type": "MODIFIED", "object": body("one", 12, host="b.example")})
    server.queue.put_nowait({"type": "DELETED", "object": body("two", 13, namespace="other")})
    await settled()
    later = await streams.known(VIRTUAL_SERVICES, "shop", wait=False)
    assert later.number > first.number
    assert [one["spec"]["hosts"] for one in later.bodies] == [["b.example"]]
    assert server.asked == [("list", VIRTUAL_SERVICES.path("")), ("watch", "10")]
    streams.close()


async def test_a_watch_that_ends_goes_on_where_it_was_or_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline_streams, "_PAUSE", -1.0)  # so that each watch counts as one that has lasted
    server = Server(body("one", 5))
    streams = OutlineStreams(server, everywhere=True)  # type: ignore[arg-type]
    await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    server.queue.put_nowait({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}})
    server.queue.put_nowait(None)
    await settled()
    assert server.asked[1:] == [("watch", "10"), ("watch", "20")]
    server.queue.put_nowait({"type": "ERROR", "object": {"code": 410}})
    server.items = ()
    await settled()
    assert server.asked[3][0] == "list"
    assert (await streams.known(VIRTUAL_SERVICES, "shop", wait=False)).bodies == ()
    streams.close()


async def test_an_operator_of_some_namespaces_asks_for_that_of_the_plan() -> None:
    server = Server(body("one", 5))
    streams = OutlineStreams(server, everywhere=False)  # type: ignore[arg-type]
    assert not (await streams.known(VIRTUAL_SERVICES, "shop", wait=True)).complete
    assert server.asked[0] == ("list", VIRTUAL_SERVICES.path("shop"))
    streams.close()


@pytest.mark.parametrize(
    ("error", "known"), [(NotInstalled("no"), True), (Denied("no"), False), (RuntimeError("no"), False)]
)
async def test_where_nothing_can_be_read(error: Exception, known: bool) -> None:  # noqa: FBT001 -- a parameter
    """A kind that is not installed has no objects; what may not be seen is not known."""
    streams = OutlineStreams(Server(error=error), everywhere=True)  # type: ignore[arg-type]
    found = await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    assert (bool(found.number), found.complete, found.bodies) == (known, known, ())
    streams.close()


async def test_an_object_that_cannot_be_read_takes_nothing_away_from_what_is_known() -> None:
    """Anybody who may create one in a namespace would do so for all others."""
    broken = {**body("broken", 6), "spec": {"http": [7]}}
    without = {key: part for key, part in body("without", 7).items() if key != "spec"}
    server = Server(body("one", 5), broken, without)
    streams = OutlineStreams(server, everywhere=True)  # type: ignore[arg-type]
    found = await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    assert [one["metadata"]["name"] for one in found.bodies] == ["one", "without"]
    server.queue.put_nowait({"type": "MODIFIED", "object": {**body("one", 11), "spec": {"http": [7]}}})
    server.queue.put_nowait({"type": "ADDED", "object": body("two", 12)})
    await settled()
    later = await streams.known(VIRTUAL_SERVICES, "shop", wait=False)
    assert sorted(one["metadata"]["name"] for one in later.bodies) == ["two", "without"]
    assert [kind for kind, _ in server.asked] == ["list", "watch"]
    streams.close()


async def test_a_stream_that_nobody_asks_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outline_streams, "_IDLE", -1.0)
    server = Server(body("one", 5))
    streams = OutlineStreams(server, everywhere=True)  # type: ignore[arg-type]
    await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    await settled()
    assert not streams._streams


async def test_a_number_means_the_same_after_a_stream_was_opened_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(body("one", 5))
    streams = OutlineStreams(server, everywhere=True)  # type: ignore[arg-type]
    before = await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    with monkeypatch.context() as nobody_asks:
        nobody_asks.setattr(outline_streams, "_IDLE", -1.0)
        server.queue.put_nowait(None)
        await settled()
    assert not streams._streams
    server.items = (body("one", 5), body("two", 6))
    after = await streams.known(VIRTUAL_SERVICES, "shop", wait=True)
    assert len(after.bodies) > len(before.bodies)
    assert after.number != before.number, "a plan that remembers what it made of that number asks nothing more"
    streams.close()
