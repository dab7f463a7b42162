"""What goes over the wire to the API server, seen from inside the HTTP client: our own requests and Kopf's alike.

Nothing here decides anything; runtime/ counts it and judges from it whether the process still tries.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from yarl import URL

_PATH: Final = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/v\d\w*(?:/namespaces/[^/]+(?=/))?/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>\w+))?)?$"
)
_VERBS: Final = {"POST": "create", "PUT": "update", "PATCH": "patch"}


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request that is over; of a watch, its beginning.

    Attributes:
        verb: as RBAC calls it: get, list, watch, create, update, patch, delete, deletecollection.
        resource: as kubectl calls it, such as ``deployments.apps``, with a subresource after a slash; empty for discovery.
        code: of HTTP; 0 when there was no answer.
        seconds: until the answer began.
        impersonated: made as a plan's account: a write to a target.
        next_page: of a list, a further part of it.
    """

    verb: str
    resource: str
    code: int
    seconds: float
    impersonated: bool
    next_page: bool = False


def trace(begun: Callable[[], None], answered: Callable[[TracedRequest], None]) -> aiohttp.TraceConfig:
    """A trace for a session of aiohttp, which calls back before each request and after each answer."""

    async def start(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestStartParams) -> None:
        context.begun = asyncio.get_running_loop().time()
        begun()

    def end(context: SimpleNamespace, params: Any, code: int) -> None:
        verb, resource = classify(params.method, params.url)
        seconds = asyncio.get_running_loop().time() - context.begun
        answered(
            TracedRequest(
                verb, resource, code, seconds, "Impersonate-User" in params.headers, "continue" in params.url.query
            )
        )

    async def over(_: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        end(context, params, params.response.status)

    async def failed(
        _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if not isinstance(params.exception, asyncio.CancelledError):  # that was us
            end(context, params, 0)

    made = aiohttp.TraceConfig()
    made.on_request_start.append(start)
    made.on_request_end.append(over)
    made.on_request_exception.append(failed)
    return made


def classify(method: str, url: URL) -> tuple[str, str]:
    """Verb and resource of a request, in the words of RBAC."""
    found = _PATH.search(url.path)
    if found is None:
        return method.lower(), ""
    group, plural, name, sub = found.group("group", "plural", "name", "sub")
    resource = plural + (f".{group}" if group else "") + (f"/{sub}" if sub else "")
    match method:
        case "GET":
            return "get" if name else "watch" if url.query.get("watch") == "true" else "list", resource
        case "DELETE":
            return "delete" if name else "deletecollection", resource
        case _:
            return _VERBS.get(method, method.lower()), resource
