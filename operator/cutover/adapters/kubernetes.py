"""The API server over one HTTP session, with the newest body of every streamed object.

Errors of HTTP become those of `errors.py`. Writes to targets carry the plan's service account by impersonation. Nothing
here tries a request again but after a 401: the driver knows what a repeat would mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Final

import aiohttp

from cutover.adapters.connection import Credentials, connect
from cutover.errors import Conflict, Denied, NotFound, NotInstalled, OutsideError, Rejected, Unavailable
from cutover.field_path import Json, Operation, as_go_writes
from cutover.ports import FIELD_MANAGER, PLAN_LABEL, PLANS, STREAMED, Ref, Resource

_JSON_PATCH: Final = {"Content-Type": "application/json-patch+json"}
_METADATA_ONLY: Final = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
_STRATEGIC: Final = {"Content-Type": "application/strategic-merge-patch+json"}
_LONGEST_TEXT: Final = 600
_TOO_LARGE: Final = ("etcdserver: request is too large", "trying to send message larger than max")
"""What etcd, and the API server's client of it, say of an object beyond their limits; the API server hands it on as its own error (500)."""
_DEEPEST: Final = 20_000
"""How deep Python may recurse. The API server takes objects nested 10,000 deep, below what a plan's `patch` says for one, and
where Python ends at its default of 1,000, one such object would end the streams of all (tried on 3.11).
"""


class Kubernetes:
    """The port `Cluster`, against a real API server.

    Args:
        login: finds the credentials anew; called at the start and after a 401, because tokens are rotated.
        traces: see every request.
    """

    def __init__(self, login: Callable[[], Credentials], traces: Sequence[aiohttp.TraceConfig] = ()) -> None:
        self._login, self._traces = login, list(traces)
        self._session: aiohttp.ClientSession | None = None
        self._former: aiohttp.ClientSession | None = None
        self._logging_in = asyncio.Lock()
        self._server = ""
        self._bodies: dict[Ref, Json] = {}
        self._written: dict[Ref, str] = {}

    async def open(self, instead_of: aiohttp.ClientSession | None = None) -> aiohttp.ClientSession:
        """Connect with fresh credentials, unless another request has done so meanwhile.

        The session that is given up stays open until the next time, because other requests may still be under way on it.
        """
        async with self._logging_in:
            if self._session is not None and self._session is not instead_of:
                return self._session
            if self._former is not None:
                await self._former.close()
            sys.setrecursionlimit(max(_DEEPEST, sys.getrecursionlimit()))
            credentials = self._login()
            self._server = credentials.server.rstrip("/")
            self._former, self._session = self._session, connect(credentials, self._traces, 64)
            return self._session

    async def close(self) -> None:
        """Let go of all connections."""
        for session in (self._session, self._former):
            if session is not None:
                await session.close()
        self._session = self._former = None

    # --- what is streamed ---------------------------------------------------------------------------------------------

    def note(self, ref: Ref, body: Json, *, deleted: bool = False) -> bool:
        """Take in an event of a stream.

        Returns:
            Whether it is news: false for the echo of our own write, and for what is older than what we know.
        """
        known = self._bodies.get(ref)
        if known is not None:
            newer = _version(body) - _version(known)
            if newer < 0:  # or of one that is gone: Kopf may tell its end after the beginning of its successor
                return False
            if not newer and not deleted and known["metadata"]["uid"] == body["metadata"]["uid"]:
                return bool(self._written.get(ref) != body["metadata"]["resourceVersion"])  # what was only read is news
        if deleted:
            self._drop(ref)
        else:
            self._bodies[ref] = body
        return True

    def seen(self, ref: Ref) -> Json | None:
        """The newest body of a streamed object."""
        return self._bodies.get(ref)

    def plans(self) -> Sequence[Ref]:
        """All plans that are known."""
        return [ref for ref in self._bodies if ref.resource == PLANS]

    def known(self, resource: Resource) -> Mapping[Ref, Json]:
        """All that is known of one kind, as of now."""
        return {ref: body for ref, body in self._bodies.items() if ref.resource == resource}

    async def there(self, resource: Resource, namespace: str) -> set[Ref]:
        """All objects that are there now of a kind that is streamed, and as they are streamed; only what names them is sent.

        Raises:
            NotFound: the kind is not installed, or the API server does not serve it yet.
        """
        params = {} if resource == PLANS else {"labelSelector": PLAN_LABEL}
        answer = await self._request("GET", resource.path(namespace), headers=_METADATA_ONLY, params=params)
        found = [body["metadata"] for body in answer.get("items") or []]
        return {Ref(resource, metadata["namespace"], metadata["name"]) for metadata in found}

    def _drop(self, ref: Ref) -> None:
        self._bodies.pop(ref, None)
        self._written.pop(ref, None)

    def _keep(self, ref: Ref, body: Json, *, ours: bool = False) -> Json:
        """Remember what a read or our own write brought, when it is of a kind and a state that is streamed."""
        labels = body["metadata"].get("labels") or {}
        gone = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if not gone and (ref.resource == PLANS or PLAN_LABEL in labels):
            known = self._bodies.get(ref)
            if (
                known is None
                or _version(body) >= _version(known)
                or known["metadata"]["uid"] != body["metadata"]["uid"]
            ):
                self._bodies[ref] = body
                if ours:
                    self._written[ref] = body["metadata"]["resourceVersion"]
        else:
            self._drop(ref)
        return body

    # --- the port -----------------------------------------------------------------------------------------------------

    async def get(self, ref: Ref) -> Json:
        """Read one object now."""
        try:
            return self._keep(ref, await self._request("GET", _path(ref)))
        except NotFound:
            self._drop(ref)
            raise

    async def list(self, resource: Resource, namespace: str, labels: str = "", *, fresh: bool = True) -> Sequence[Json]:
        """All objects of a kind in a namespace, or in all; none when the kind is not installed.

        Plans always are: an API server that has just started may say for a moment that they are not.
        """
        params = {"labelSelector": labels} if labels else {}
        if not fresh:
            params["resourceVersion"] = "0"
        try:
            answer = await self._request("GET", resource.path(namespace), params=params)
        except NotFound as gone:
            if resource == PLANS:
                raise Unavailable(str(gone)) from gone
            return []
        items: Sequence[Json] = answer.get("items") or []
        return items

    async def patch(self, ref: Ref, operations: Sequence[Operation], account: str = "") -> Json:
        """Apply a JSON patch."""
        headers = _JSON_PATCH | (_as(ref.namespace, account) if account else {})
        params = {"fieldManager": FIELD_MANAGER}
        try:
            body = await self._request("PATCH", _path(ref), headers=headers, params=params, body=list(operations))
        except NotFound:
            self._drop(ref)
            raise
        return self._keep(ref, body, ours=True)

    async def try_out(self, ref: Ref, operations: Sequence[Operation], account: str) -> Json:
        """Ask what a JSON patch would make of an object; the answer is not remembered."""
        headers, params = _JSON_PATCH | _as(ref.namespace, account), {"fieldManager": FIELD_MANAGER, "dryRun": "All"}
        return await self._request("PATCH", _path(ref), headers=headers, params=params, body=list(operations))

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        """Ask what a strategic merge patch would make of an object; the answer is not remembered."""
        headers = _STRATEGIC | _as(ref.namespace, account)
        params = {"fieldManager": FIELD_MANAGER, "dryRun": "All", "fieldValidation": "Strict"}
        return await self._request("PATCH", _path(ref), headers=headers, params=params, body=patch)

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
        made = await self._request("POST", resource.path(namespace), headers=headers, params=params, body=body)
        if resource not in STREAMED or dry_run:
            return made
        return self._keep(Ref(resource, namespace, made["metadata"]["name"]), made, ours=True)

    async def remove(self, ref: Ref, uid: str, account: str) -> None:
        """Delete one object; another of the same name is a Conflict, and stays."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        with contextlib.suppress(NotFound, Conflict):
            await self._request("DELETE", _path(ref), headers=_as(ref.namespace, account), body=options)

    async def replace(self, ref: Ref, body: Json) -> Json:
        """Write a whole object as the operator, if it is still at the version that the body names. Raises Conflict."""
        return await self._request("PUT", _path(ref), params={"fieldManager": FIELD_MANAGER}, body=body)

    async def watch(self, ref: Ref, version: str) -> AsyncGenerator[Json, None]:
        """Bodies of one object as it changes after a version.

        Ends without an error when the server ends the stream, contact is lost or the object is gone: read it again.
        """
        session = self._session or await self.open()
        params = {"watch": "true", "fieldSelector": f"metadata.name={ref.name}", "resourceVersion": version}
        url, timeout = self._server + ref.resource.path(ref.namespace), aiohttp.ClientTimeout(sock_connect=5)
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with session.get(url, params=params, timeout=timeout) as response:
                async for line in response.content:
                    event = _document(line)
                    if event.get("type") not in ("ADDED", "MODIFIED"):
                        return
                    yield event["object"]

    async def delete_all(self, resource: Resource, namespace: str, labels: str) -> None:
        """Delete what a selector picks."""
        params = {"labelSelector": labels, "propagationPolicy": "Background"}
        await self._request("DELETE", resource.path(namespace), params=params)

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        """Replace `.status` at a version: the server takes nothing else from this PUT."""
        metadata = {"name": ref.name, "namespace": ref.namespace, "resourceVersion": resource_version}
        known = self._bodies.get(ref)
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
        return self._keep(ref, await self._request("PUT", f"{_path(ref)}/status", params=params, body=body), ours=True)

    async def may(self, account: str, namespace: str, verb: str, resource: Resource, name: str) -> bool:
        """Ask the API server's authorizer."""
        attributes = {
            "namespace": namespace,
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "name": name,
        }
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
        user = _user(namespace, account)
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "groups": groups, "resourceAttributes": attributes},
        }
        answer = await self._request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body=review)
        return bool(answer.get("status", {}).get("allowed"))

    async def record(self, namespace: str, event: Json) -> None:
        """Create one event of events.k8s.io/v1."""
        await self._request("POST", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events", body=event)

    # --- HTTP ---------------------------------------------------------------------------------------------------------

    async def _request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Json = None,
    ) -> Json:
        content: dict[str, Any] = {"headers": headers, "params": params}
        if body is not None:
            content["data"] = as_go_writes(body).encode()
            content["headers"] = {"Content-Type": "application/json", **(headers or {})}
        for again in range(2):
            session = self._session or await self.open()
            status, retry_after, answer = await self._send(session, method, path, content)
            if status == 401:  # noqa: PLR2004 -- the token was rotated
                await self.open(instead_of=session)
                continue
            if status < 300 and isinstance(answer, dict) and "apiVersion" in answer:  # noqa: PLR2004 -- its own success
                return answer
            own = _is_a(answer, "Status")
            if not own and (status != 404 or await self._serves(session, path)):  # noqa: PLR2004
                raise Unavailable(f"{method} {path}: HTTP {status}, and not from the API server", retry_after)
            if own and status == 403:  # noqa: PLR2004
                if not await self._ready(session):
                    raise Unavailable(f"{method} {path}: HTTP 403 of an API server that is not ready")
                if not again:  # it may have become so just now
                    continue
            raise _error(status, retry_after, answer if own else {})
        raise Unavailable(f"{method} {path}: the API server does not take our credentials (401)")

    async def _ready(self, session: aiohttp.ClientSession) -> bool:
        """Whether the API server does not say that it is not: one that starts refuses all until it has read who may do what."""
        status, _, _ = await self._send(session, "GET", "/readyz", {})
        return status < 500  # noqa: PLR2004

    async def _serves(self, session: aiohttp.ClientSession, path: str) -> bool:
        """Whether the API server has the kind that is addressed, or does not say that it has not.

        A 404 that is no Status comes where a kind is not installed, and also from a proxy or an API server that starts. To take
        that for an object that is gone would pass over what has to be undone. The core kinds are always there.
        """
        if path.startswith("/api/"):
            return True
        parts = path.split("/")
        version, below = "/".join(parts[:4]), parts[4:]
        plural = below[2] if below[0] == "namespaces" and len(below) > 2 else below[0]  # noqa: PLR2004 -- /namespaces/x/plural
        status, _, answer = await self._send(session, "GET", version, {})
        if status == 200 and _is_a(answer, "APIResourceList"):  # noqa: PLR2004
            return any(one["name"] == plural for one in answer["resources"])
        status, _, answer = await self._send(session, "GET", "/apis", {})
        if not _is_a(answer, "APIGroupList"):
            return True
        return version.removeprefix("/apis/") in [
            of["groupVersion"] for group in answer["groups"] for of in group["versions"]
        ]

    async def _send(
        self, session: aiohttp.ClientSession, method: str, path: str, content: Mapping[str, Any]
    ) -> tuple[int, float, Json]:
        try:
            async with session.request(method, self._server + path, **content) as response:
                text = await response.read()
                return response.status, _seconds(response.headers.get("Retry-After")), _document(text)
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:  # RuntimeError: closed while in use
            raise Unavailable(f"{method} {path}: {type(error).__name__}") from error


def _seconds(header: str | None) -> float:
    return float(header) if header and header.isdigit() else 0.0


def _document(text: bytes) -> Json:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _is_a(answer: Json, kind: str) -> bool:
    """Whether it is a document of the API server; proxies answer in JSON too."""
    return isinstance(answer, dict) and answer.get("kind") == kind


def _error(status: int, retry_after: float, answer: Json) -> OutsideError:
    """What a Status means; without one the server knows no such kind."""
    message = _shortened(str(answer.get("message") or f"HTTP {status}"))
    known: Mapping[int, Callable[[str], OutsideError]] = {
        400: Rejected,
        403: Denied,
        404: NotFound,
        409: Conflict,
        413: Rejected,
        422: Rejected,
    }
    make = known.get(status) if answer else NotInstalled
    if status == 500 and any(words in message for words in _TOO_LARGE):  # noqa: PLR2004
        make = Rejected
    return make(message) if make else Unavailable(f"HTTP {status}: {message}", retry_after)


def _shortened(text: str) -> str:
    """Both ends of a long text: what it is about stands first, what is wrong last."""
    half = _LONGEST_TEXT // 2
    return text if len(text) <= _LONGEST_TEXT else f"{text[:half]} ... {text[-half:]}"


def _user(namespace: str, account: str) -> str:
    return f"system:serviceaccount:{namespace}:{account}"


def _as(namespace: str, account: str) -> dict[str, str]:
    return {"Impersonate-User": _user(namespace, account)}


def _path(ref: Ref) -> str:
    return f"{ref.resource.path(ref.namespace)}/{ref.name}"


def _version(body: Json) -> int:
    """Comparable as a number (Kubernetes 1.35 made that a promise; every etcd-backed server kept it before)."""
    version: Any = body["metadata"]["resourceVersion"]
    return int(version)
