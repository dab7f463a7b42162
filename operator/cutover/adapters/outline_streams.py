"""Streams of the objects that decide which route gets a request: one a kind, of all namespaces, shared by all plans.

Of each object only its outline is kept. A stream is opened when a plan first asks for its kind, and ended when none has asked for
some time. An operator of some namespaces has one for each namespace that has such a plan, and sees no other.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterator
from contextlib import aclosing
from typing import Final

from cutover.adapters.api_client import ApiClient
from cutover.errors import Denied, NotFound, OutsideError
from cutover.field_path import Json
from cutover.objects.outlines import outline
from cutover.ports import Outlines, Resource

log = logging.getLogger(__name__)

_FIRST: Final = 5.0
"""Seconds for which a plan that has to know waits for a stream that has just been opened."""
_IDLE: Final = 900.0
"""Seconds after the last question until a stream is ended; an active plan asks at least every ten minutes."""
_PAUSE: Final = 2.0
"""Seconds between a stream that ended and the next one, so that a server that refuses it is not flooded."""
_LATER: Final = 60.0
"""The same where the kind is not installed, or may not be seen."""
_LIFETIME: Final = 300
_SILENCE: Final = 100.0
"""Seconds without any sign of life after which a stream counts as lost: the server sends a bookmark each minute."""


class OutlineStreams:
    """The streams of one process.

    Args:
        client: of the API server.
        everywhere: whether they are of all namespaces.
    """

    def __init__(self, client: ApiClient, *, everywhere: bool) -> None:
        self._client, self._everywhere = client, everywhere
        self._streams: dict[tuple[Resource, str], _Stream] = {}
        # Of all of them: a number must not mean something else after a stream was opened anew.
        self._changes = itertools.count(1)

    async def known(self, resource: Resource, namespace: str, *, wait: bool) -> Outlines:
        """What is known of a kind now."""
        key = resource, "" if self._everywhere else namespace
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream(self._changes)
            stream.task = asyncio.create_task(self._run(key, stream))
        stream.asked = time.monotonic()
        if wait and not stream.read.is_set():
            try:
                async with asyncio.timeout(_FIRST):
                    await stream.read.wait()
            except TimeoutError:
                log.warning("%s could not be read within %g s", resource.plural, _FIRST)
        if not stream.number:
            return Outlines()
        if stream.told.number != stream.number:
            stream.told = Outlines(tuple(stream.outlines.values()), stream.number, self._everywhere)
        return stream.told

    def close(self) -> None:
        """End all of them."""
        for stream in self._streams.values():
            stream.task.cancel()
        self._streams.clear()

    async def _run(self, key: tuple[Resource, str], stream: _Stream) -> None:
        while time.monotonic() - stream.asked < _IDLE:
            pause = _PAUSE
            try:
                await self._hear(key, stream)
            except NotFound:
                stream.replace({})
                pause = _LATER
            except Denied as denied:
                log.warning("%s cannot be seen: %s", key[0].plural, denied)
                stream.forget()
                pause = _LATER
            except OutsideError as error:  # what was known stays known; an outage ends, and then all is listed again
                log.info("%s cannot be listed now: %s", key[0].plural, error)
            except TimeoutError:
                log.warning("a stream of %s is silent, and is opened again", key[0].plural)
            except Exception:
                log.exception("a stream of %s failed", key[0].plural)
            stream.read.set()
            await asyncio.sleep(pause)
        del self._streams[key]

    async def _hear(self, key: tuple[Resource, str], stream: _Stream) -> None:
        """One list, and what changes after it, until the server ends the watch."""
        resource, namespace = key
        found, version, path = dict[tuple[str, str], Json](), "", resource.path(namespace)
        async for items, at in self._client.versioned_pages(path, {}, {}):
            found |= {_key(body): told for body in items if (told := _outline(resource, body)) is not None}
            version = at
        stream.replace(found)
        stream.read.set()
        while version and time.monotonic() - stream.asked < _IDLE:
            version = await self._watch(key, stream, version)

    async def _watch(self, key: tuple[Resource, str], stream: _Stream, version: str) -> str:
        """Take in what changes; the version from which the next watch goes on, or none where it has to be listed again."""
        resource, namespace = key
        params = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": version, "timeoutSeconds": str(_LIFETIME)}  # fmt: skip
        begun = time.monotonic()
        async with asyncio.timeout(_SILENCE) as silence, aclosing(self._client.events(resource.path(namespace), params)) as events:  # fmt: skip
            async for event in events:
                silence.reschedule(asyncio.get_running_loop().time() + _SILENCE)
                body = event.get("object") or {}
                match event.get("type"):
                    case "ADDED" | "MODIFIED":
                        stream.put(_key(body), _outline(resource, body))
                    case "DELETED":
                        stream.drop(_key(body))
                    case "BOOKMARK":
                        pass
                    case _:  # the end of it, such as 410, or an answer that is no event
                        return ""
                version = body["metadata"]["resourceVersion"]
        return version if time.monotonic() - begun > _PAUSE else ""


def _outline(resource: Resource, body: Json) -> Json | None:
    """None for an object that cannot be read: whoever may create one must not take away what is known of all others."""
    try:
        return outline(resource, body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        log.warning("%s %s of namespace %s cannot be read: %r", resource.kind, *reversed(_key(body)), error)
        return None


def _key(body: Json) -> tuple[str, str]:
    return body["metadata"]["namespace"], body["metadata"]["name"]


class _Stream:
    """The stream of one kind.

    Args:
        changes: gives each change a number of its own.

    Attributes:
        outlines: by namespace and name.
        number: of the last change; 0 while nothing is known.
        told: what plans were told last.
        asked: when a plan last asked.
        read: it has been listed, or could not be.
    """

    def __init__(self, changes: Iterator[int]) -> None:
        self.outlines: dict[tuple[str, str], Json] = {}
        self.number, self._changes, self.told = 0, changes, Outlines()
        self.asked, self.read = time.monotonic(), asyncio.Event()
        self.task: asyncio.Task[None]

    def replace(self, found: dict[tuple[str, str], Json]) -> None:
        if not self.number or found != self.outlines:
            self.outlines = found
            self._changed()

    def forget(self) -> None:
        self.outlines, self.number = {}, 0

    def put(self, key: tuple[str, str], body: Json | None) -> None:
        if body is None:
            self.drop(key)
        elif self.outlines.get(key) != body:
            self.outlines[key] = body
            self._changed()

    def drop(self, key: tuple[str, str]) -> None:
        if self.outlines.pop(key, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self.number = next(self._changes)
