"""Questions about Services of their own that many plans ask at once: how few requests they are, and that each gets its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from cutover.adapters import shared_reads
from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.shares import acting_for
from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.names import matching
from cutover.objects.endpoints import SERVICE_LABEL
from cutover.ports import ENDPOINT_SLICES, PLANS, SERVICES, Ref
from support.fakes.http_api_server import serving

CROWD = 40


@dataclass
class Server:
    """An API server whose namespace has a Service and an EndpointSlice for each name that it is asked for, but for those that are gone.

    Attributes:
        asked: the requests so far: the names that each was about; none for one about all.
        hangs: names for which no answer comes until `go`.
    """

    asked: list[frozenset[str]] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        what, _, name = request.path.partition("/namespaces/shop/")[2].partition("/")
        selected = request.query.get("labelSelector", "").partition("(")[2].rstrip(")").split(",")
        names = [name] if name else [one for one in selected if one]
        self.asked.append(frozenset(names))
        if self.hangs & {*names}:
            await self.go.wait()
        await asyncio.sleep(0.01)
        if name in self.gone:
            return web.json_response({"kind": "Status", "code": 404, "message": "gone"}, status=404)
        if name:
            return web.json_response({"apiVersion": "v1", **_service(name)})
        there = names or [f"{number}-{side}" for number in range(CROWD) for side in ("old", "new")]
        make = _slice if what == "endpointslices" else _service
        items = [make(one) for one in there if one not in self.gone]
        return web.json_response({"apiVersion": "v1", "metadata": {}, "items": items})


def _service(name: str) -> Json:
    return {"metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1"}, "spec": {"of": name}}


def _slice(service: str) -> Json:
    metadata = {"namespace": "shop", "name": f"{service}-a", "labels": {SERVICE_LABEL: service}}
    return {"metadata": {**metadata, "uid": service, "resourceVersion": "1"}, "endpoints": []}


@pytest.fixture
async def served() -> AsyncIterator[tuple[Kubernetes, Server]]:
    made = Server()
    async with serving(made.answer) as transport:
        cluster = Kubernetes(transport)
        yield cluster, made
        made.go.set()
        await cluster.close()


async def slices(cluster: Kubernetes, number: int, *, fresh: bool = False) -> list[str]:
    """Of which Services a plan is told, where it asks for both of its own."""
    with acting_for(Ref(PLANS, "shop", f"plan-{number}")):
        picked = matching({}, (SERVICE_LABEL, "In", [f"{number}-new", f"{number}-old"]))
        found = await cluster.list(ENDPOINT_SLICES, "shop", picked, fresh=fresh)
        return sorted(body["metadata"]["labels"][SERVICE_LABEL] for body in found)


async def service(cluster: Kubernetes, number: int, side: str) -> Any:
    with acting_for(Ref(PLANS, "shop", f"plan-{number}")):
        return (await cluster.get(Ref(SERVICES, "shop", f"{number}-{side}")))["spec"]["of"]


@pytest.mark.parametrize("fresh", [False, True])
async def test_plans_that_ask_at_once_have_a_few_requests_for_their_endpoints(
    served: tuple[Kubernetes, Server],
    fresh: bool,  # noqa: FBT001
) -> None:
    cluster, server = served
    found = await asyncio.gather(*(slices(cluster, number, fresh=fresh) for number in range(CROWD)))
    assert found == [[f"{number}-new", f"{number}-old"] for number in range(CROWD)]
    assert len(server.asked) < CROWD / 4
    assert all(server.asked), "nothing is read that nobody asks for"


async def test_many_services_are_one_list_and_a_few_are_read_by_name(served: tuple[Kubernetes, Server]) -> None:
    cluster, server = served
    assert [await service(cluster, 1, side) for side in ("old", "new")] == ["1-old", "1-new"]
    assert server.asked == [{"1-old"}, {"1-new"}]
    server.asked.clear()
    found = await asyncio.gather(*(service(cluster, number, "old") for number in range(CROWD)))
    assert found == [f"{number}-old" for number in range(CROWD)]
    assert len(server.asked) < CROWD / 4


@pytest.mark.parametrize("others", [3, CROWD])
async def test_one_that_is_gone_is_so_for_who_asks_for_it_alone(served: tuple[Kubernetes, Server], others: int) -> None:
    cluster, server = served
    server.gone = {f"{number}-new" for number in range(others)}
    asked = [service(cluster, number, side) for number in range(others) for side in ("old", "new")]
    found: list[Any] = await asyncio.gather(*asked, return_exceptions=True)
    assert found[::2] == [f"{number}-old" for number in range(others)]
    assert {type(one) for one in found[1::2]} == {NotFound}


async def test_an_answer_that_hangs_keeps_nobody_waiting(
    served: tuple[Kubernetes, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "_PATIENCE", 0.05)
    cluster, server = served
    server.hangs = {"0-new"}
    hanging = await begun(server, slices(cluster, 0))
    async with asyncio.timeout(20):
        assert await asyncio.gather(*(slices(cluster, number) for number in (1, 2))) == [
            ["1-new", "1-old"],
            ["2-new", "2-old"],
        ]
    assert not hanging.done()
    server.go.set()
    assert await hanging == ["0-new", "0-old"]


async def begun(server: Server, ask: Awaitable[list[str]]) -> asyncio.Task[list[str]]:
    """A question that is at the server."""
    before, task = len(server.asked), asyncio.ensure_future(ask)
    async with asyncio.timeout(20):
        while len(server.asked) == before:
            await asyncio.sleep(0.01)
    return task


async def test_a_plan_that_is_alone_waits_for_nobody(
    served: tuple[Kubernetes, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_reads, "_APART", 1000.0)
    monkeypatch.setattr(shared_reads, "_FURTHEST", 1000.0)
    cluster, server = served
    async with asyncio.timeout(20):
        for _ in range(3):
            await slices(cluster, 1)
    assert server.asked == [{"1-new", "1-old"}] * 3


async def test_a_fresh_answer_is_of_a_request_that_began_after_the_question(served: tuple[Kubernetes, Server]) -> None:
    cluster, server = served
    first = await begun(server, slices(cluster, 1, fresh=True))
    server.gone = {"1-old"}
    assert await slices(cluster, 1, fresh=True) == ["1-new"]
    await first
    assert len(server.asked) == 2


@pytest.mark.parametrize(("each", "most"), [(1000.0, 0.01), (0.001, 1000.0)])
async def test_a_crowd_waits_for_so_long_at_most_and_two_plans_for_a_moment(
    served: tuple[Kubernetes, Server], monkeypatch: pytest.MonkeyPatch, each: float, most: float
) -> None:
    monkeypatch.setattr(shared_reads, "_APART", each)
    monkeypatch.setattr(shared_reads, "_FURTHEST", most)
    cluster, server = served
    async with asyncio.timeout(20):
        for number in (1, 2, 1, 2):
            await slices(cluster, number)
    assert [len(names) for names in server.asked] == [2] * 4
