"""Streams of EndpointSlices: one a namespace, and only while plans there have moved traffic and ask for it in each of their turns.

A plan that has moved traffic and waits learns at once that a side has lost its pods, and asks nobody meanwhile. An event only
counts and wakes; who wants to know reads, once for each change. Where nothing is streamed, for whatever reason, `follow` says so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Protocol

from cutover.adapters.joint_reads import IN_SELECTOR, picking
from cutover.adapters.shares import STREAMS
from cutover.field_path import Json
from cutover.names import Selector, matching
from cutover.objects.endpoints import SERVICE_LABEL
from cutover.ports import Ref

log = logging.getLogger(__name__)

MOST: Final = STREAMS
"""Streams at once. Each keeps a connection, and its TLS buffers of 256 kB; plans of further namespaces read every two seconds."""
_DELAY: Final = 1.0
"""Seconds until a stream is opened: a shift that does not stay with a weight needs none, and several that begin at once share one."""
_PAUSE: Final = 2.0
"""Seconds between a stream that ended and the next one; twice as many after each further one that told nothing."""
_LONGEST_PAUSE: Final = 64.0
"""Seconds, at most: a server that refuses them all (a ClusterRole without `watch`) is asked each minute."""
_LIFETIME: Final = 300
"""Seconds after which the server ends a stream, on average."""
_SILENCE: Final = 100.0
"""Seconds without any sign of life after which a stream counts as lost: the server sends a bookmark each minute."""

Watch = Callable[[str, Selector, int], AsyncGenerator[Json, None]]
"""Opens a watch of EndpointSlices: namespace, selector, seconds until the server ends it. It ends without an error."""


class Reads(Protocol):
    """Reads the EndpointSlices that a selector picks."""

    async def __call__(self, *, fresh: bool) -> Sequence[Json]:
        """With `fresh` the answer is not older than the call."""


class EndpointStreams:
    """The streams of one process.

    Args:
        watch: opens one.
        wake: adds a plan to the queue.
    """

    def __init__(self, watch: Watch, wake: Callable[[Ref], None]) -> None:
        self._watch, self._wake = watch, wake
        self._kept: dict[Ref, frozenset[str]] = {}  # what each plan has asked for in its last turn
        self._asked: dict[Ref, frozenset[str]] = {}  # and in the turn that it is in
        self._streams: dict[str, _Stream] = {}
        self._number = 0

    def follow(self, plan: Ref, services: frozenset[str]) -> int | None:
        """A number that grows with each change of the EndpointSlices of these Services; None while they are not streamed."""
        self._asked[plan] = self._asked.get(plan, frozenset()) | services
        stream = self._streams.get(plan.namespace)
        if stream is not None and stream.covers(services):
            return stream.number(services)
        if stream is not None or len(self._streams) < MOST:
            self._open(plan.namespace)
        return None

    async def answer(self, plan: Ref, labels: Selector, ask: Reads) -> Sequence[Json]:
        """The EndpointSlices that a plan asks for: what was answered last while the stream tells that nothing has changed since.

        Args:
            plan: who asks.
            labels: which.
            ask: reads them.
        """
        stream, services = self._streams.get(plan.namespace), self._asked.get(plan) or self._kept.get(plan)
        if stream is None or not services or labels != picking(services):
            return await ask(fresh=False)
        number = stream.number(services) if stream.covers(services) else None
        if number is None:
            return await ask(fresh=False)
        known = stream.answers.get(services)
        if known is None or known[0] != number:
            # Fresh: of two API servers the one that is asked may be behind the one that streams, and no event would follow.
            known = stream.answers[services] = number, await ask(fresh=True)
        return known[1]

    def close(self) -> None:
        """End all of them."""
        for stream in self._streams.values():
            stream.task.cancel()
        self._streams.clear()

    def turn_ended(self, plan: Ref) -> None:
        """What a plan has not asked for in its turn is not streamed for it any more."""
        asked, kept = self._asked.pop(plan, None), self._kept.pop(plan, None)
        if asked:
            self._kept[plan] = asked
        if kept and kept != asked and (former := self._streams.get(plan.namespace)):
            former.answers.pop(kept, None)
        if not asked and not kept:
            return
        if not self._followed(plan.namespace) and (stream := self._streams.pop(plan.namespace, None)):
            stream.task.cancel()

    def _followed(self, namespace: str) -> bool:
        return any(plan.namespace == namespace for plan in (*self._kept, *self._asked))

    def _wanted(self, namespace: str) -> frozenset[str]:
        known = (*self._kept.items(), *self._asked.items())
        return frozenset[str]().union(*(services for plan, services in known if plan.namespace == namespace))

    def _open(self, namespace: str) -> None:
        """Open a stream of the Services that are asked for, or of all, where one of others is open: so it begins anew once at most."""
        former = self._streams.get(namespace)
        if former is not None:
            former.task.cancel()
            self._wake_all(namespace)
        stream = self._streams[namespace] = _Stream(namespace)
        stream.task = asyncio.create_task(self._run(namespace, stream, everything=former is not None))

    async def _run(self, namespace: str, stream: _Stream, *, everything: bool) -> None:
        pause = _DELAY
        while True:
            await asyncio.sleep(pause)
            services = self._wanted(namespace)
            stream.services = None if everything or len(services) > IN_SELECTOR else services
            stream.connected, stream.told = True, False
            try:
                await self._hear(namespace, stream)
            except TimeoutError:
                stream.fails("no sign of life")
            except Exception as error:  # noqa: BLE001 -- the log has it, and plans must not be left to believe that it is open
                stream.fails(repr(error), error)
            finally:
                stream.numbers.clear()
                stream.answers.clear()
            self._wake_all(namespace)
            pause = _PAUSE if stream.told or pause < _PAUSE else min(2 * pause, _LONGEST_PAUSE)
            everything = False

    async def _hear(self, namespace: str, stream: _Stream) -> None:
        """One watch. It begins with all that there is, so nothing is missed between two of them, and each begins with news."""
        names = ("Exists", ()) if stream.services is None else ("In", sorted(stream.services))
        seconds = int(_LIFETIME * random.uniform(0.8, 1.2))  # noqa: S311 -- jitter
        watching = self._watch(namespace, matching({}, (SERVICE_LABEL, *names)), seconds)
        async with asyncio.timeout(_SILENCE) as silence, aclosing(watching) as events:
            async for event in events:
                silence.reschedule(asyncio.get_running_loop().time() + _SILENCE)
                match event.get("type"):
                    case "ADDED" | "MODIFIED" | "DELETED":
                        stream.works()
                        self._changed(namespace, stream, event["object"]["metadata"]["labels"][SERVICE_LABEL])
                    case "BOOKMARK":
                        stream.works()
                    case _:  # the end of it, such as 410, or an answer that is no event, such as 403
                        stream.fails(str(event)[:300])
                        return

    def _wake_all(self, namespace: str) -> None:
        """Nothing tells of their Services now, perhaps for long: they count themselves, and one that sleeps has to be told that."""
        for plan in {*self._kept, *self._asked}:
            if plan.namespace == namespace:
                self._wake(plan)

    def _changed(self, namespace: str, stream: _Stream, service: str) -> None:
        self._number += 1
        stream.numbers[service] = self._number
        for plan, services in (*self._kept.items(), *self._asked.items()):
            if plan.namespace == namespace and service in services:
                self._wake(plan)


class _Stream:
    """The stream of one namespace.

    Args:
        namespace: which.

    Attributes:
        services: which it is of, once connected; None: all of the namespace.
        connected: it has been opened, or tried to.
        told: it has told something since it was last opened.
        numbers: of the last event of each Service; without any, the stream has not told of it yet, or is interrupted.
        answers: what was read of some Services, and their number before that.
    """

    def __init__(self, namespace: str) -> None:
        self._where, self._failing = {"namespace": namespace}, False
        self.services: frozenset[str] | None = None
        self.connected, self.told = False, False
        self.numbers: dict[str, int] = {}
        self.answers: dict[frozenset[str], tuple[int, Sequence[Json]]] = {}
        self.task: asyncio.Task[None]

    def works(self) -> None:
        """It has told something; the log says so if it did not before."""
        if self._failing:
            log.info("a stream of EndpointSlices works again", extra=self._where)
        self.told, self._failing = True, False

    def fails(self, why: str, error: Exception | None = None) -> None:
        """It ended, and not as it should; the log says so once, until it works again."""
        if not self._failing:
            log.warning("a stream of EndpointSlices failed: %s", why, exc_info=error, extra=self._where)
        self._failing = True

    def covers(self, services: frozenset[str]) -> bool:
        """Whether it is of these Services, or will be."""
        return not self.connected or self.services is None or services <= self.services

    def number(self, services: frozenset[str]) -> int | None:
        """That of the last event of these Services."""
        known = [self.numbers.get(service) for service in services]
        return None if None in known else max((one for one in known if one is not None), default=None)
