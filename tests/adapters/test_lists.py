"""Lists are read page by page, and no answer may be as large as it likes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from cutover.adapters import api_client, transport
from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.transport import TooLarge
from cutover.errors import Unavailable
from cutover.names import matching
from cutover.ports import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    HTTP_ROUTES,
    JOBS,
    PLAN_LABEL,
    PLANS,
    PODS,
    SNAPSHOTS,
    Ref,
    Resource,
)
from support.fakes.http_api_server import serving

PAGE, LARGEST_PAGE, LARGEST = 250, 40_000, 100_000
"""The limits in these tests; a page as in production."""


@dataclass
class Server:
    """An API server that has some objects.

    Attributes:
        items: how they look.
        cached: it takes no notice of a limit where it may answer from its cache, as kube-apiserver.
        asked: the queries so far.
    """

    items: list[Any] = field(default_factory=list)
    cached: bool = True
    asked: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        self.asked.append(query)
        first = int(query.get("continue", 0))
        ignored = self.cached and query.get("resourceVersion") == "0"
        last = len(self.items) if ignored or "limit" not in query else first + int(query["limit"])
        more = {"continue": str(last)} if last < len(self.items) else {}
        return web.json_response({"apiVersion": "v1", "metadata": more, "items": self.items[first:last]})


@pytest.fixture
async def listing(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Kubernetes, Server]]:
    monkeypatch.setattr(api_client, "_LARGEST_PAGE", LARGEST_PAGE)
    monkeypatch.setattr(api_client, "LARGEST", LARGEST)
    made = Server()
    async with serving(made.answer) as to_server:
        yield Kubernetes(to_server), made


def objects(number: int, size: int = 10) -> list[Any]:
    return [
        {"metadata": {"name": f"it-{at}", "namespace": "shop"}, "spec": {"text": "x" * size}} for at in range(number)
    ]


async def test_a_list_is_all_of_its_pages(listing: tuple[Kubernetes, Server]) -> None:
    cluster, server = listing
    server.items = objects(2 * PAGE + 1)
    found = await cluster.list(HTTP_ROUTES, "shop", matching({"app": "web"}))
    assert [body["metadata"]["name"] for body in found] == [body["metadata"]["name"] for body in server.items]
    assert [query.get("continue") for query in server.asked] == [None, "250", "500"]
    assert all((query["limit"], query["labelSelector"]) == ("250", "app=web") for query in server.asked)
    assert len(await cluster.there(DEPLOYMENTS, "")) == len(server.items)


async def test_of_large_objects_there_are_fewer_to_a_page(listing: tuple[Kubernetes, Server]) -> None:
    cluster, server = listing
    server.items = objects(20, LARGEST_PAGE // 10)
    assert len(await cluster.list(HTTP_ROUTES, "shop")) == 20
    server.items = objects(3, LARGEST_PAGE)
    assert len(await cluster.list(HTTP_ROUTES, "shop")) == 3, "one object to a page may be larger than a page"


async def test_what_a_server_would_send_at_once_from_its_cache_is_read_in_pages(
    listing: tuple[Kubernetes, Server],
) -> None:
    cluster, server = listing
    server.items = objects(2 * PAGE, 40)
    assert len(await cluster.list(HTTP_ROUTES, "shop", fresh=False)) == 2 * PAGE
    assert server.asked == [
        {"limit": "250", "resourceVersion": "0"},
        {"limit": "250"},
        {"limit": "250", "continue": "250"},
    ]


@pytest.mark.parametrize("number", [1, 40], ids=["one object", "a server without pages"])
async def test_an_answer_that_is_too_large_is_not_read(listing: tuple[Kubernetes, Server], number: int) -> None:
    cluster, server = listing
    server.items = [{"apiVersion": "v1", "metadata": {}, "text": "x" * (2 * LARGEST // number)} for _ in range(number)]
    if number > 1:
        server.asked = _Unlimited()
    with pytest.raises(TooLarge, match="is larger than"):
        await cluster.list(HTTP_ROUTES, "shop")


class _Unlimited(list[dict[str, str]]):
    """Takes the limit out of each query."""

    def append(self, query: dict[str, str], /) -> None:
        query.pop("limit", None)
        super().append(query)


async def test_one_object_that_is_too_large_is_not_read() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"apiVersion": "v1", "text": "x" * transport.LARGEST})

    async with serving(answer) as to_server:
        with pytest.raises(Unavailable, match="configmaps/it: the answer is larger than 16 MiB"):
            await Kubernetes(to_server).get(Ref(CONFIG_MAPS, "shop", "it"))


LONG = "x" * 5_000
META = {"name": "it", "namespace": "shop", "uid": "u", "labels": {PLAN_LABEL: "uid-a"}, "resourceVersion": "7"}
NOISE = {
    "managedFields": [{"manager": LONG}],
    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": LONG},
}
CONTAINER = {"name": "app", "image": "web:1", "args": [LONG], "ports": [{"name": "http"}]}
POD = {
    "spec": {"containers": [CONTAINER], "volumes": [{"name": "v", "hostPath": {"path": LONG}}]},
    "status": {
        "phase": "Running",
        "message": LONG,
        "conditions": [{"type": "Ready", "status": "True", "message": LONG}],
        "containerStatuses": [{"name": "app", "imageID": LONG, "restartCount": 1}],
    },
}
KEPT: dict[str, tuple[Resource, Any, Any]] = {
    "pod": (
        PODS,
        POD,
        {
            "spec": {"containers": [{"name": "app", "image": "web:1", "ports": [{"name": "http"}]}]},
            "status": {
                "phase": "Running",
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "app", "restartCount": 1}],
            },
        },
    ),
    "workload": (
        DEPLOYMENTS,
        {"spec": {"replicas": 2, "template": {"metadata": {"labels": {"app": "web"}}, "spec": POD["spec"]}}},
        {
            "spec": {
                "replicas": 2,
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {
                        "containers": [{"name": "app", "ports": [{"name": "http"}]}],
                        "volumes": [{"name": "v"}],
                    },
                },
            }
        },
    ),
    "job": (
        JOBS,
        {"spec": {"suspend": True, "template": {"spec": POD["spec"]}}, "status": {"active": 1}},
        {"spec": {"suspend": True}, "status": {"active": 1}},
    ),
    "slice": (
        ENDPOINT_SLICES,
        {
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "appProtocol": LONG}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "hints": {"forZones": [LONG]}}],
        },
        {
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": True}, "targetRef": {}}],
        },
    ),
    "snapshot": (SNAPSHOTS, {"data": {"fields": [LONG]}}, {}),
    "config map": (CONFIG_MAPS, {"data": {"key": LONG}}, {}),
}


@pytest.mark.parametrize("kind", KEPT)
async def test_of_each_object_is_kept_what_is_read_of_it(listing: tuple[Kubernetes, Server], kind: str) -> None:
    cluster, server = listing
    resource, body, kept = KEPT[kind]
    server.items = [{"metadata": META | NOISE, **body}]
    assert await cluster.list(resource, "shop") == [{"metadata": META, **kept}]
    assert LONG not in json.dumps(kept)


async def test_of_a_plan_is_kept_who_it_is_and_where_it_stands(listing: tuple[Kubernetes, Server]) -> None:
    cluster, server = listing
    status = {"phase": "Running", "run": {"number": 1}, "steps": [LONG]}
    server.items = [{"metadata": META | NOISE, "spec": {"steps": [LONG]}, "status": status}]
    assert await cluster.list(PLANS, "shop") == [
        {
            "metadata": {"name": "it", "namespace": "shop", "uid": "u"},
            "status": {"phase": "Running", "run": {"number": 1}},
        }
    ]
