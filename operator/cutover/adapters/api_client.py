"""Requests to the API server: what counts as its answer, and which error of `errors.py` an answer means.

Nothing here tries a request again but after a 401, and after a 403 of a server that has just become ready: the driver knows
what a repeat would mean. `kubernetes.py` decides what is asked; `transport.py` carries it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

from cutover import names
from cutover.adapters.transport import LARGEST, Request, Response, TooLarge, Transport
from cutover.errors import Conflict, Denied, NotFound, NotInstalled, OutsideError, Rejected, Unavailable
from cutover.field_path import Json
from cutover.go_json import as_go_writes
from cutover.names import ApiPath

_LONGEST_TEXT: Final = 600
_PAGE: Final = 250
"""Objects of a list that are asked for at once."""
_LARGEST_PAGE: Final = 4 * 2**20
"""Bytes of them, at most, unless it is one object. Parsed they take up to five times as much for a moment."""
_TOO_LARGE: Final = ("etcdserver: request is too large", "trying to send message larger than max")
"""What etcd, and the API server's client of it, say of an object beyond their limits; the API server hands it on as its own error (500)."""


class ApiClient:
    """Documents in, documents out."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def request(
        self,
        method: str,
        path: ApiPath,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Json = None,
    ) -> Json:
        """Send one document and return the one that comes back. Raises every OutsideError."""
        return await self._answer(_request(method, path, headers or {}, params or {}, body))

    async def _answer(self, asked: Request) -> Json:
        for again in range(2):
            response = await self._transport.send(asked)
            status, answer = response.status, _document(response.body)
            if status == 401:  # noqa: PLR2004 -- the token was rotated
                await self._transport.log_in_again(response.login)
                continue
            if status < 300 and isinstance(answer, dict) and "apiVersion" in answer:  # noqa: PLR2004 -- its own success
                return answer
            error = await self._error(asked, response, answer)
            if again or not isinstance(error, Denied):  # a server that has become ready just now is asked once more
                raise error
        raise Unavailable(f"{asked.method} {asked.path}: the API server does not take our credentials (401)")

    async def pages(
        self, path: ApiPath, headers: Mapping[str, str], params: Mapping[str, str]
    ) -> AsyncGenerator[Sequence[Json], None]:
        """The objects of a list, page by page; of large objects fewer to a page. Raises every OutsideError."""
        async for items, _ in self.versioned_pages(path, headers, params):
            yield items

    async def versioned_pages(
        self, path: ApiPath, headers: Mapping[str, str], params: Mapping[str, str]
    ) -> AsyncGenerator[tuple[Sequence[Json], str], None]:
        """The same, each with the version of the list, from which a watch goes on."""
        limit, given = _PAGE, dict(params)
        while True:
            largest = _LARGEST_PAGE if limit > 1 else LARGEST
            try:
                page = await self._answer(
                    Request("GET", path, headers, {**given, "limit": str(limit)}, largest=largest)
                )
            except TooLarge:
                # Where an API server may answer from its cache, it takes no notice of a limit.
                cached = given.pop("resourceVersion", None) is not None
                if limit == 1 and not cached:
                    raise
                limit = limit if cached else max(1, limit // 8)
                continue
            metadata = page.get("metadata") or {}
            items, token = _items_of(page), metadata.get("continue")
            del page
            yield items, metadata.get("resourceVersion", "")
            if not token:
                return
            given = {name: value for name, value in given.items() if name != "resourceVersion"} | {"continue": token}

    async def events(
        self, path: ApiPath, params: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Json, None]:
        """The documents of a watch, one per line, until it ends; the end of one gives no reason."""
        asked = Request("GET", path, headers or {}, params)
        async with contextlib.aclosing(self._transport.lines(asked)) as lines:
            async for line in lines:
                yield _document(line)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def _error(self, asked: Request, response: Response, answer: Json) -> OutsideError:
        """What an answer that is not a success means; a proxy may have given it, or a server that is not ready."""
        status, where = response.status, f"{asked.method} {asked.path}"
        own = _is_a(answer, "Status")
        if not own and (status != 404 or await self._serves(asked.path)):  # noqa: PLR2004
            return Unavailable(f"{where}: HTTP {status}, and not from the API server", _retry_after(response))
        if own and status == 403 and not await self._ready():  # noqa: PLR2004
            return Unavailable(f"{where}: HTTP 403 of an API server that is not ready")
        error = _error(status, _retry_after(response), answer if own else {})
        if isinstance(error, NotInstalled):
            return NotInstalled(str(error), await self._versions(asked.path))
        return Unavailable(f"{where}: {error}", error.retry_after) if isinstance(error, Unavailable) else error

    async def _versions(self, path: ApiPath) -> list[str]:
        """The versions in which the kind of an object is served; not asked where it is not one object that is addressed."""
        _, root, group, _, *below = path.split("/")
        if root == "api" or len(below) < len(("namespaces", "a", "plural", "name")):
            return []
        answer = _document((await self._transport.send(Request("GET", names.path("apis", group)))).body)
        found = list[str]()
        for version in (one["version"] for one in answer.get("versions") or ()) if _is_a(answer, "APIGroup") else ():
            listed = _document((await self._transport.send(Request("GET", names.path("apis", group, version)))).body)
            if any(one["name"] == below[2] for one in listed.get("resources") or ()):
                found.append(version)
        return found

    async def _ready(self) -> bool:
        """Whether the API server does not say that it is not: one that starts refuses all until it has read who may do what."""
        response = await self._transport.send(Request("GET", names.path("readyz")))
        return response.status < 500  # noqa: PLR2004

    async def _serves(self, path: ApiPath) -> bool:
        """Whether the API server has the kind that is addressed, or does not say that it has not.

        A 404 that is not a Status comes where a kind is not installed, and also from a proxy or an API server that starts. To take
        that for an object that is gone would pass over what has to be undone. The core kinds are always there.
        """
        _, root, group, version, *below = path.split("/")
        if root == "api":
            return True
        plural = below[2] if below[0] == "namespaces" and len(below) > 2 else below[0]  # noqa: PLR2004 -- /namespaces/x/plural
        response = await self._transport.send(Request("GET", names.path("apis", group, version)))
        answer = _document(response.body)
        if response.status == 200 and _is_a(answer, "APIResourceList"):  # noqa: PLR2004
            return any(one["name"] == plural for one in answer["resources"])
        answer = _document((await self._transport.send(Request("GET", names.path("apis")))).body)
        if not _is_a(answer, "APIGroupList"):
            return True
        return f"{group}/{version}" in [of["groupVersion"] for one in answer["groups"] for of in one["versions"]]


def _request(method: str, path: ApiPath, headers: Mapping[str, str], params: Mapping[str, str], body: Json) -> Request:
    if body is None:
        return Request(method, path, headers, params)
    return Request(method, path, {"Content-Type": "application/json", **headers}, params, as_go_writes(body).encode())


def _retry_after(response: Response) -> float:
    """Seconds the server asked us to wait; 0.0 when it did not say."""
    header = response.headers.get("Retry-After")
    return float(header) if header and header.isdigit() else 0.0


def _items_of(page: Json) -> list[Json]:
    """Absent, or null, where a server has none."""
    return page.get("items") or []


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
