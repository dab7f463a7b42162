"""Traces requests to the API server from inside the HTTP client, our own and Kopf's. Called by app.py.

Nothing is decided here: runtime/ counts the requests, and derives from them whether the process is still alive.
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
    """A request that has ended; of a watch, its start.

    Attributes:
        verb: in terms of RBAC: get, list, watch, create, update, patch, delete, deletecollection.
        resource: in terms of kubectl, such as ``deployments.apps``, with a subresource after a slash; empty for discovery.
        code: HTTP status; 0 when there was no answer.
        seconds: time until the answer began.
        impersonated: sent as a plan's account, so it is a write to a target.
        next_page: a further page of a list, not its first.
    """

    verb: str
    resource: str
    code: int
    seconds: float
    impersonated: bool
    next_page: bool = False


def trace(on_start: Callable[[], None], on_end: Callable[[TracedRequest], None]) -> aiohttp.TraceConfig:
    """A trace for an aiohttp session that calls back before each request and after each answer."""

    async def start(_: aiohttp.ClientSession, context: SimpleNamespace, __: aiohttp.TraceRequestStartParams) -> None:
        context.started = asyncio.get_running_loop().time()
        on_start()

    def end(context: SimpleNamespace, params: Any, code: int) -> None:
        verb, resource = classify(params.method, params.url)
        seconds = asyncio.get_running_loop().time() - context.started
        on_end(
            TracedRequest(
                verb, resource, code, seconds, "Impersonate-User" in params.headers, "continue" in params.url.query
            )
        )

    async def ended(_: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        end(context, params, params.response.status)

    async def failed(
        _: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestExceptionParams
    ) -> None:
        if not isinstance(params.exception, asyncio.CancelledError):  # cancelled by this process
            end(context, params, 0)

    config = aiohttp.TraceConfig()
    config.on_request_start.append(start)
    config.on_request_end.append(ended)
    config.on_request_exception.append(failed)
    return config


def classify(method: str, url: URL) -> tuple[str, str]:
    """Verb and resource of a request, in terms of RBAC."""
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
