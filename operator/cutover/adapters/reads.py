"""What is read of the API server, and what several plans have in common of it. Used by `kubernetes.py`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from cutover.adapters.api_client import ApiClient
from cutover.adapters.joint_reads import JointReads
from cutover.adapters.object_cache import ObjectCache
from cutover.adapters.shared_reads import SharedReads
from cutover.errors import NotFound, Unavailable
from cutover.field_path import Json
from cutover.names import Selector
from cutover.objects.listed import NAMES_ONLY, listed
from cutover.ports import ENDPOINT_SLICES, PLANS, SERVICE_ACCOUNTS, SERVICES, WORKLOAD_ENTRIES, Ref, Resource

METADATA_ONLY: Final = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}


class Reads:
    """Reads of one process.

    Args:
        client: makes the requests.
        cache: is told what reads of one object bring.

    Attributes:
        shared: what several plans ask at the same moment.
    """

    def __init__(self, client: ApiClient, cache: ObjectCache) -> None:
        self._client, self._cache, self.shared = client, cache, SharedReads()
        self._joint = JointReads(self.shared, partial(self._list, ENDPOINT_SLICES), self._get, self._services)

    async def get(self, ref: Ref) -> Json:
        """Read one object now; of an account, which all plans of a namespace may have in common, at most two seconds ago."""
        if ref.resource == SERVICES:
            return await self._joint.service(ref)
        return await self.shared.read(ref, partial(self._get, ref), fresh=ref.resource != SERVICE_ACCOUNTS)

    async def list(self, resource: Resource, namespace: str, labels: Selector, *, fresh: bool) -> Sequence[Json]:
        """List what a selector picks, as the port has it."""
        if resource == ENDPOINT_SLICES:
            return await self._joint.slices(namespace, labels, fresh=fresh)
        question = resource, namespace, labels
        if fresh and resource == WORKLOAD_ENTRIES:  # there are hardly any, and each plan of a crowd asks as it ends

            async def ask(_: frozenset[str]) -> Sequence[Json]:
                return await self._list(*question, fresh=True)

            return await self.shared.read_jointly((*question, True), (), ask)
        return await self.shared.read((*question, fresh), partial(self._list, *question, fresh=fresh), fresh=fresh)

    async def _get(self, ref: Ref) -> Json:
        try:
            return self._cache.keep(ref, await self._client.request("GET", ref.path()))
        except NotFound:
            self._cache.drop(ref)
            raise

    async def _services(self, namespace: str) -> Sequence[Json]:
        """All of a namespace, each as a read of it would bring it."""
        found = [body async for page in self._client.pages(SERVICES.path(namespace), {}, {}) for body in page]
        return [self._cache.keep(Ref(SERVICES, namespace, body["metadata"]["name"]), body) for body in found]

    async def _list(self, resource: Resource, namespace: str, labels: Selector, *, fresh: bool) -> Sequence[Json]:
        params: dict[str, str] = {"labelSelector": labels} if labels else {}
        if not fresh:
            params["resourceVersion"] = "0"
        headers = METADATA_ONLY if resource in NAMES_ONLY else {}
        found = list[Json]()
        try:
            async for page in self._client.pages(resource.path(namespace), headers, params):
                found += [listed(resource, body) for body in page]
        except NotFound as gone:
            if resource == PLANS:
                raise Unavailable(str(gone)) from gone
            return []
        return found
