"""The port `Cluster` against a real API server: what is asked of it, and as whom.

Writes to targets carry the plan's service account by impersonation. What a read or a write of our own returns goes into the
cache of streamed objects (`streamed.py`); errors are those of `api_client.py`. `app.py` makes the one there is.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from typing import Final

from cutover import names
from cutover.adapters.access_review import review, user_of
from cutover.adapters.api_client import ApiClient
from cutover.adapters.endpoint_streams import EndpointStreams
from cutover.adapters.outline_streams import OutlineStreams
from cutover.adapters.reads import METADATA_ONLY, Reads
from cutover.adapters.shares import acting_plan
from cutover.adapters.streamed import Streamed
from cutover.adapters.transport import Transport
from cutover.errors import Conflict, Denied, NotFound
from cutover.field_path import Json, Operation
from cutover.names import EVERYTHING, Selector
from cutover.ports import (
    ACCESS_REVIEWS,
    CRDS,
    ENDPOINT_SLICES,
    EVENTS,
    FIELD_MANAGER,
    PLAN_LABEL,
    PLANS,
    STREAMED,
    Outlines,
    Ref,
    Resource,
)

_JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}
_METADATA_ONLY_EVENTS: Final = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
_STRATEGIC: Final = {"Content-Type": "application/strategic-merge-patch+json"}


class Kubernetes(Streamed):
    """The port `Cluster`, against a real API server.

    Args:
        transport: carries the requests.
        wake: adds a plan to the queue when what it follows has changed; without it nothing is followed.
        everywhere: whether it may see objects of all namespaces.
    """

    def __init__(
        self, transport: Transport, wake: Callable[[Ref], None] | None = None, *, everywhere: bool = True
    ) -> None:
        super().__init__()
        self._client = ApiClient(transport)
        self._reads = Reads(self._client, self._cache)
        self._endpoints = EndpointStreams(self._watch_endpoints, wake) if wake else None
        self._outlines = OutlineStreams(self._client, everywhere=everywhere)

    async def close(self) -> None:
        """Close all connections."""
        if self._endpoints:
            self._endpoints.close()
        self._outlines.close()
        await self._reads.shared.close()
        await self._client.close()

    # --- what is streamed ---------------------------------------------------------------------------------------------

    async def there(self, resource: Resource, namespace: str) -> set[Ref]:
        """All objects that are there now of a kind that is streamed, and as they are streamed; only what names them is sent.

        Raises:
            NotFound: the kind is not installed, or the API server does not serve it yet.
        """
        params = {} if resource == PLANS else {"labelSelector": names.matching({}, (PLAN_LABEL, "Exists", ()))}
        found = set[Ref]()
        async for page in self._client.pages(resource.path(namespace), METADATA_ONLY, params):
            found |= {Ref(resource, one["metadata"]["namespace"], one["metadata"]["name"]) for one in page}
        return found

    async def crd(self) -> Json:
        """The CustomResourceDefinition of plans, by the permission to list them that watching needs.

        Raises:
            NotFound: it is not installed.
        """
        params = {"fieldSelector": names.named(f"{PLANS.plural}.{PLANS.group}")}
        answer = await self._client.request("GET", CRDS.path(""), params=params)
        for body in answer.get("items") or []:
            return body
        raise NotFound(f"there is no CustomResourceDefinition {PLANS.plural}.{PLANS.group}")

    # --- the port -----------------------------------------------------------------------------------------------------

    def follow(self, plan: Ref, services: frozenset[str]) -> int | None:
        """Stream the EndpointSlices of some Services for a plan."""
        return self._endpoints.follow(plan, services) if self._endpoints else None

    def turn_ended(self, plan: Ref) -> None:
        """A plan follows what it has asked for in this turn, and nothing else."""
        if self._endpoints:
            self._endpoints.turn_ended(plan)

    def _watch_endpoints(self, namespace: str, labels: Selector, seconds: int) -> AsyncGenerator[Json, None]:
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "timeoutSeconds": str(seconds),
        }
        return self._client.events(ENDPOINT_SLICES.path(namespace), params, _METADATA_ONLY_EVENTS)

    async def get(self, ref: Ref) -> Json:
        """Read one object now; of an account, which all plans of a namespace may have in common, at most two seconds ago."""
        return await self._reads.get(ref)

    async def read_as(self, ref: Ref, account: str) -> Json:
        """Read one object now, as a service account of its namespace."""
        return await self._client.request("GET", ref.path(), headers=_as(ref.namespace, account))

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        """All objects of a kind in a namespace, or in all; none when the kind is not installed.

        Plans always are: an API server that has just started may say for a moment that they are not.
        """
        ask, plan = partial(self._reads.list, resource, namespace, labels), acting_plan()
        if resource == ENDPOINT_SLICES and self._endpoints and plan and not fresh:
            return await self._endpoints.answer(plan, labels, ask)
        return await ask(fresh=fresh)

    async def outlines(self, resource: Resource, namespace: str, *, wait: bool = False) -> Outlines:
        """What is streamed of all objects of a kind."""
        return await self._outlines.known(resource, namespace, wait=wait)

    async def events_of(self, ref: Ref, uid: str, reason: str) -> Sequence[Json]:
        """The events about one object that have this reason."""
        params = {"fieldSelector": names.regarding(uid, reason)}
        answer = await self._client.request("GET", EVENTS.path(ref.namespace), params=params)
        return answer.get("items") or []

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch."""
        headers = _JSON_PATCH | (_as(ref.namespace, account) if account else {})
        params = {"fieldManager": FIELD_MANAGER}
        try:
            body = await self._client.request(
                "PATCH", ref.written_at(), headers=headers, params=params, body=list(operations)
            )
        except NotFound:
            self._cache.drop(ref)
            raise
        return self._cache.keep(ref, body, ours=True)

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """Ask what a JSON patch would make of an object; the answer is not remembered."""
        headers, params = _JSON_PATCH | _as(ref.namespace, account), {"fieldManager": FIELD_MANAGER, "dryRun": "All"}
        path = ref.written_at()
        return await self._client.request("PATCH", path, headers=headers, params=params, body=list(operations))

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """Ask what a strategic merge patch would make of an object; the answer is not remembered."""
        headers = _STRATEGIC | _as(ref.namespace, account)
        params = {"fieldManager": FIELD_MANAGER, "dryRun": "All", "fieldValidation": "Strict"}
        return await self._client.request("PATCH", ref.written_at(), headers=headers, params=params, body=patch)

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        """Create an object."""
        params = {"fieldManager": FIELD_MANAGER}
        if account:
            params["fieldValidation"] = "Strict"
        if dry_run:
            params["dryRun"] = "All"
        headers = _as(namespace, account) if account else None
        made = await self._client.request("POST", resource.path(namespace), headers=headers, params=params, body=body)
        if resource not in STREAMED or dry_run:
            return made
        return self._cache.keep(Ref(resource, namespace, made["metadata"]["name"]), made, ours=True)

    async def remove(self, ref: Ref, uid: str, account: str) -> None:
        """Delete one object; another of the same name is a Conflict, and stays."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        with contextlib.suppress(NotFound, Conflict):
            await self._client.request("DELETE", ref.path(), headers=_as(ref.namespace, account), body=options)

    async def replace(self, ref: Ref, body: Json) -> Json:
        """Write a whole object as the operator, if it is still at the version that the body names. Raises Conflict."""
        return await self._client.request("PUT", ref.written_at(), params={"fieldManager": FIELD_MANAGER}, body=body)

    async def watch(self, ref: Ref, version: str) -> AsyncGenerator[Json, None]:
        """Bodies of one object as it changes after a version.

        Ends without an error when the server ends the stream, contact is lost or the object is gone: read it again.
        """
        params = {"watch": "true", "fieldSelector": names.named(ref.name), "resourceVersion": version}
        async with contextlib.aclosing(self._client.events(ref.resource.path(ref.namespace), params)) as events:
            async for event in events:
                if event.get("type") not in ("ADDED", "MODIFIED"):
                    return
                yield event["object"]

    async def delete_all(self, resource: Resource, namespace: str, labels: Selector) -> None:
        """Delete what a selector picks."""
        params = {"labelSelector": labels, "propagationPolicy": "Background"}
        await self._client.request("DELETE", resource.path(namespace), params=params)

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace `.status` at a version: the server takes nothing else from this PUT."""
        metadata = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": resource_version}
        known = self._cache.get(ref)
        if known is not None:
            metadata["uid"] = known["metadata"]["uid"]
        body = {
            "apiVersion": ref.resource.api_version,
            "kind": ref.resource.kind,
            "metadata": metadata,
            "spec": known["spec"] if known else {},
            "status": status,
        }
        params = {"fieldManager": FIELD_MANAGER}
        return self._cache.keep(
            ref, await self._client.request("PUT", ref.written_at("status"), params=params, body=body), ours=True
        )

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Ask the API server's authorizer."""
        return await self._reviewed(review(account, namespace, verb, Ref(resource, namespace, name)))

    async def may_get(self, account: str, namespace: str, ref: Ref) -> bool:
        """Ask it about an object of another namespace."""
        return await self._reviewed(review(account, namespace, "get", ref))

    async def _reviewed(self, question: Json) -> bool:
        async def ask() -> bool:
            answer = await self._client.request("POST", ACCESS_REVIEWS.path(""), body=question)
            return bool(answer.get("status", {}).get("allowed"))

        return await self._reads.shared.read(json.dumps(question), ask, fresh=False)

    async def record(self, namespace: str, event: Json) -> None:
        """Create one event of events.k8s.io/v1."""
        await self._client.request("POST", EVENTS.path(namespace), body=event)


def _as(namespace: str, account: str) -> dict[str, str]:
    if not names.is_name(account):
        raise Denied(f"{account!r} cannot be the name of a ServiceAccount; use {names.NAME_RULE}")
    return {"Impersonate-User": user_of(namespace, account)}
