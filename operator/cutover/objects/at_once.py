"""The cluster for one question about many objects of a namespace: what there is many of is read by one list, and once.

Used where each of many destinations is resolved, so that the objects of others cost no request each. Read-only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, cast

from cutover.errors import NotFound
from cutover.field_path import Json
from cutover.names import EVERYTHING, Selector
from cutover.ports import SERVICES, Cluster, Ref, Resource


def at_once(cluster: Cluster, namespace: str, *, fresh: bool = True) -> Cluster:
    """The same cluster, whose Services of a namespace come from one list; each of its lists is asked once.

    Args:
        cluster: the API server.
        namespace: all that is read is in it.
        fresh: the Services are not older than the first question. Otherwise one that the list lacks is looked for by its name.
    """
    return cast("Cluster", _AtOnce(cluster, namespace, fresh=fresh))


class _AtOnce:
    def __init__(self, cluster: Cluster, namespace: str, *, fresh: bool) -> None:
        self._cluster, self._namespace, self._fresh = cluster, namespace, fresh
        self._lists: dict[object, Sequence[Json]] = {}
        self._services: Mapping[str, Json] | None = None
        self._asking = asyncio.Lock()

    async def get(self, ref: Ref) -> Json:
        if ref.resource != SERVICES:
            return await self._cluster.get(ref)
        if self._services is None:
            found = await self.list(SERVICES, self._namespace, fresh=self._fresh)
            self._services = {body["metadata"]["name"]: body for body in found}
        if ref.name in self._services:
            return self._services[ref.name]
        if self._fresh:
            raise NotFound(f"{ref} not found")
        return await self._cluster.get(ref)  # it may have been created just now

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        question = resource, namespace, labels, fresh
        async with self._asking:
            if question not in self._lists:
                self._lists[question] = await self._cluster.list(resource, namespace, labels, fresh=fresh)
        return self._lists[question]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)
