"""Many parts of a plan look at the same objects; at one look the API server is asked for each only once."""

from __future__ import annotations

import asyncio
from typing import Any

from cutover.ports import PODS, Resource
from cutover.preflight.preflight import cached
from cutover.testing import MemoryCluster
from support.fakes.shop import V2, shop


class _Counted(MemoryCluster):
    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def get(self, ref: Any) -> Any:
        self.asked.append(str(ref))
        return await super().get(ref)

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Any:
        self.asked.append(f"{resource.plural} {labels}")
        return await super().list(resource, namespace, labels, fresh=fresh)


async def test_each_object_and_each_list_is_read_once() -> None:
    cluster = _Counted()
    shop(cluster)
    for name in ("one", "other"):
        cluster.put(PODS, {"metadata": {"name": name, "namespace": "shop", "labels": {"app": name}}})
    look = cached(cluster)
    lists = await asyncio.gather(*(look.list(PODS, "shop", f"app={name}") for name in ("one", "other", "one")))
    assert [[pod["metadata"]["name"] for pod in pods] for pods in lists] == [["one"], ["other"], ["one"]]
    assert await look.get(V2) == await look.get(V2) == cluster.objects[V2]
    assert cluster.asked == ["pods app=one", "pods app=other", "Deployment shop-v2"]
