"""Requests that hang: how many of one plan and of one namespace are under way at once, and that all others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.shares import CONNECTIONS, OF_A_NAMESPACE, OF_A_PLAN, SHARED, Shares, acting_for
from cutover.ports import CONFIG_MAPS, PLANS, Ref
from support.fakes.http_api_server import serving


class Hanging:
    """An API server that answers no request about some namespaces until it is told to.

    Attributes:
        held: how many requests wait for an answer, by namespace.
    """

    def __init__(self) -> None:
        self.held: dict[str, int] = {}
        self.go = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        namespace, name = request.path.split("/")[4], request.path.rpartition("/")[2]
        if namespace != "calm":
            self.held[namespace] = self.held.get(namespace, 0) + 1
            await self.go.wait()
        metadata = {"namespace": namespace, "name": name, "uid": "u", "resourceVersion": "1"}
        return web.json_response({"apiVersion": "v1", "metadata": metadata})


@pytest.fixture
async def hanging() -> AsyncIterator[tuple[Kubernetes, Hanging]]:
    made = Hanging()
    async with serving(made.answer) as transport:
        yield Kubernetes(transport), made
        made.go.set()


def turn(cluster: Kubernetes, namespace: str, plan: str, requests: int) -> asyncio.Task[None]:
    """A plan whose turn makes some requests at once, each in a task of its own."""

    async def work() -> None:
        with acting_for(Ref(PLANS, namespace, plan)):
            refs = [Ref(CONFIG_MAPS, namespace, f"{plan}-{number}") for number in range(requests)]
            await asyncio.gather(*(asyncio.create_task(cluster.get(ref)) for ref in refs))

    return asyncio.create_task(work())


async def held(server: Hanging, **of: int) -> None:
    """So many requests of these namespaces wait, and in the next moments no more come."""
    async with asyncio.timeout(10):
        while server.held != of:
            await asyncio.sleep(0.01)
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert server.held == of


async def test_a_plan_has_a_few_connections(hanging: tuple[Kubernetes, Hanging]) -> None:
    cluster, server = hanging
    stuck = turn(cluster, "busy", "one", 3 * OF_A_PLAN)
    await held(server, busy=OF_A_PLAN)
    other = turn(cluster, "busy", "two", 1)
    await held(server, busy=OF_A_PLAN + 1)
    server.go.set()
    await asyncio.gather(stuck, other)
    assert server.held == {"busy": 3 * OF_A_PLAN + 1}, "all are sent once there is a place"


async def test_a_namespace_has_a_part_of_the_connections(hanging: tuple[Kubernetes, Hanging]) -> None:
    cluster, server = hanging
    stuck = [turn(cluster, "busy", f"plan-{number}", OF_A_PLAN) for number in range(2 * CONNECTIONS // OF_A_PLAN)]
    await held(server, busy=OF_A_NAMESPACE)
    async with asyncio.timeout(10):
        await turn(cluster, "calm", "plan", 2 * OF_A_PLAN)
        await cluster.get(Ref(CONFIG_MAPS, "calm", "of no plan"))
    server.go.set()
    await asyncio.gather(*stuck)


async def test_namespaces_that_have_many_leave_some_for_those_that_have_none(
    hanging: tuple[Kubernetes, Hanging],
) -> None:
    """One request at a time, as long as the others hang; all are sent once they do not."""
    cluster, server = hanging
    names = [f"busy-{number}" for number in range(CONNECTIONS // OF_A_NAMESPACE)]
    stuck = [turn(cluster, name, f"plan-{number}", OF_A_PLAN) for name in names[:3] for number in range(2)]
    of = dict.fromkeys(names[:3], OF_A_NAMESPACE)
    assert sum(of.values()) == SHARED
    await held(server, **of)
    stuck += [turn(cluster, name, "plan", OF_A_PLAN) for name in names[3:]]
    of |= dict.fromkeys(names[3:], 1)
    await held(server, **of)
    async with asyncio.timeout(10):
        await turn(cluster, "calm", "plan", 2 * OF_A_PLAN)
    waiting = turn(cluster, names[3], "other", 1)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    server.go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(*stuck)
    assert server.held == of | dict.fromkeys(names[3:], OF_A_PLAN)


async def test_a_request_that_is_given_up_gives_its_place_back(hanging: tuple[Kubernetes, Hanging]) -> None:
    cluster, server = hanging
    stuck = turn(cluster, "busy", "one", 2 * OF_A_PLAN)
    await held(server, busy=OF_A_PLAN)
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
    again = turn(cluster, "busy", "one", 1)
    await held(server, busy=OF_A_PLAN + 1)
    server.go.set()
    await again


async def test_a_place_that_gets_free_as_the_one_who_waits_for_it_gives_up_goes_to_the_next() -> None:
    shares, placed = Shares(), list[str]()
    go, go_first = asyncio.Event(), asyncio.Event()

    async def hold(namespace: str, until: asyncio.Event, plan: str = "plan") -> None:
        with acting_for(Ref(PLANS, namespace, plan)):
            async with shares.place():
                placed.append(namespace)
                await until.wait()

    first = asyncio.create_task(hold("first", go_first))
    tasks = [asyncio.create_task(hold(f"{number}", go)) for number in range(SHARED - 1)]
    await asyncio.sleep(0)
    gives_up, waits = (asyncio.create_task(hold("0", go, plan)) for plan in ("gives up", "waits"))
    await asyncio.sleep(0.01)
    assert len(placed) == SHARED
    go_first.set()
    gives_up.cancel()
    await first
    await asyncio.sleep(0.01)
    assert placed[SHARED:] == ["0"]
    go.set()
    async with asyncio.timeout(10):
        await asyncio.gather(waits, *tasks)
        await hold("0", go)
