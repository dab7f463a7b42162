"""A work queue of keys: each is queued at most once, and never has two turns at a time. Called by app.py and relist.py.

There is a line for each urgency, with places of its own: no line waits for another. In a line the namespaces take turns, and half
of the places are for namespaces that have none, so the load of a few does not stop the others; of one namespace, events go before timers. A key that fails is
retried with backoff, and not before the server's Retry-After; neither ever delays an event.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from datetime import timedelta
from enum import IntEnum
from functools import partial
from typing import Final, Generic, TypeVar

from cutover.errors import Unavailable

Key = TypeVar("Key", bound=Hashable)
log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
"""Seconds before the first retry, and at most."""
_RESYNC: Final = timedelta(minutes=10)
"""How often an active plan is checked without any event."""


def resync_at_latest(after: timedelta | None) -> timedelta:
    """The time until an active plan's next turn: what was asked for, and no later than the resync. With jitter, so they spread."""
    resync = _RESYNC * random.uniform(0.9, 1.1)  # noqa: S311 -- jitter
    return min(after, resync) if after is not None else resync


class Urgency(IntEnum):
    """How urgent a turn is, the most urgent first."""

    BACKWARD = 0  # something goes back, or is to
    UNDER_WAY = 1
    ARRIVED = 2  # nothing has begun, or everything has ended


PLACES: Final[Mapping[Urgency, int]] = {Urgency.BACKWARD: 32, Urgency.UNDER_WAY: 32, Urgency.ARRIVED: 8}
"""How many turns of each urgency run at once: few for arrivals, so that a crowd of them does not slow down traffic that is shifted."""


class Queue(Generic[Key]):
    """Runs turns of many keys, some at once.

    Args:
        turn: one turn of a key; returns when the key wants its next turn, None for not at all.
        urgency: how urgent a turn of a key is now.
        namespace: whose share of the places a turn of a key takes.
        places: how many turns of each urgency run at once.
    """

    def __init__(
        self,
        turn: Callable[[Key], Awaitable[timedelta | None]],
        urgency: Callable[[Key], Urgency] = lambda _: Urgency.UNDER_WAY,
        namespace: Callable[[Key], str] = lambda _: "",
        places: Mapping[Urgency, int] = PLACES,
    ) -> None:
        self._turn, self._urgency, self._namespace = turn, urgency, namespace
        self._lines = {urgency: _Line[Key](places[urgency]) for urgency in Urgency}
        self._queued: dict[Key, tuple[Urgency, bool]] = {}  # in which line, and whether an event has queued it
        self._running: set[Key] = set()
        self._dirty: set[Key] = set()  # added while running: gets another turn
        self._delayed: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """How many keys wait for a turn."""
        return len(self._queued)

    def crowded(self, key: Key) -> bool:
        """Whether others wait for the place that a turn of this key has."""
        return self._lines[self._urgency(key)].crowded(self._namespace(key))

    def add(self, key: Key) -> None:
        """Something happened to this key."""
        self._add(key, event=True)

    def add_after(self, key: Key, after: float) -> None:
        """Give this key a turn after so many seconds, unless it gets one before; the soonest request counts."""
        loop = asyncio.get_running_loop()
        due, known = loop.time() + max(0.0, after), self._delayed.get(key)
        if known is None or due < known.when():
            self._cancel_delay(key)
            self._delayed[key] = loop.call_at(due, self._add_due, key)

    def _add_due(self, key: Key) -> None:
        del self._delayed[key]
        self._add(key, event=False)

    def _cancel_delay(self, key: Key) -> None:
        if delay := self._delayed.pop(key, None):
            delay.cancel()  # asyncio drops cancelled ones once they are the greater part, so their number stays that of the keys

    def _add(self, key: Key, *, event: bool) -> None:
        if key in self._running:
            self._dirty.add(key)
            return
        urgency, namespace = self._urgency(key), self._namespace(key)
        if key in self._queued:
            former, by_event = self._queued[key]
            if former <= urgency and by_event >= event:
                return  # it has a place that is as good
            self._lines[former].remove(namespace, key)
            urgency, event = min(former, urgency), event or by_event
        self._queued[key] = urgency, event
        self._lines[urgency].append(namespace, key, event=event)
        self._changed.set()

    async def run(self) -> None:
        """Process keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                if self._begin_turns(group):
                    # Then whatever else can go on: a crowd of turns that need no answer from outside, one after the other, would
                    # keep those waiting that have got theirs.
                    await asyncio.sleep(0)
                else:
                    await self._changed.wait()

    def _begin_turns(self, group: asyncio.TaskGroup) -> bool:
        """Begin one turn of each line, so that none that never ends keeps the next one waiting; whether there was any."""
        begun = False
        for line in self._lines.values():
            if taken := line.take():
                begun = True
                namespace, key = taken
                del self._queued[key]
                self._running.add(key)
                group.create_task(self._run(key, partial(line.end, namespace)))
        return begun

    async def _run(self, key: Key, end: Callable[[], None]) -> None:
        # Before the turn, not after it: what the turn itself asks for below must stay.
        self._cancel_delay(key)
        after: float | None
        try:
            requested = await self._turn(key)
            self._failures.pop(key, None)
            after = requested.total_seconds() if requested is not None else None
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            after = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 -- jitter
            if isinstance(error, Unavailable):
                after = max(after, error.retry_after)
            log.warning(
                "a turn failed and will be retried",
                exc_info=error,
                extra={"key": str(key), "after": round(after, 1)},
            )
        finally:
            self._running.discard(key)
            end()
            self._changed.set()
        # Only now: `add` of a running key would mark it dirty again.
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)
        if after is not None:
            self.add_after(key, after)


class _Line(Generic[Key]):
    """Keys that wait for turns of one urgency, and how many of these run.

    Args:
        places: how many run at once.
    """

    def __init__(self, places: int) -> None:
        self._places, self._shared = places, (places + 1) // 2
        # Keys by namespace, the one that is next in front: those that events have queued, and those that timers have.
        self._waiting: OrderedDict[str, tuple[OrderedDict[Key, None], OrderedDict[Key, None]]] = OrderedDict()
        self._running: Counter[str] = Counter()

    def append(self, namespace: str, key: Key, *, event: bool) -> None:
        """Let a key wait."""
        events, timers = self._waiting.setdefault(namespace, (OrderedDict(), OrderedDict()))
        (events if event else timers)[key] = None

    def remove(self, namespace: str, key: Key) -> None:
        """Let a key not wait any more."""
        for keys in self._waiting[namespace]:
            keys.pop(key, None)
        self._forget_if_empty(namespace)

    def take(self) -> tuple[str, Key] | None:
        """The next key with its namespace, which has a place until `end`; None when there is none, or no place for it."""
        namespace = self._next()
        if namespace is None:
            return None
        events, timers = self._waiting[namespace]
        key, _ = (events or timers).popitem(last=False)
        self._waiting.move_to_end(namespace)
        self._forget_if_empty(namespace)
        self._running[namespace] += 1
        return namespace, key

    def end(self, namespace: str) -> None:
        """A turn has ended."""
        self._running[namespace] -= 1
        if not self._running[namespace]:
            del self._running[namespace]

    def crowded(self, namespace: str) -> bool:
        """Whether keys wait for the place that a turn of this namespace has."""
        return self._next(without=namespace) is not None

    def _next(self, without: str | None = None) -> str | None:
        """The next namespace of which a key may have a place, at most one that has none where few are left; `without` one turn of a namespace."""
        running = self._running.total() - (without is not None)
        if running < self._shared:
            return next(iter(self._waiting), None)
        if running >= self._places:
            return None
        return next((one for one in self._waiting if self._running[one] == (one == without)), None)

    def _forget_if_empty(self, namespace: str) -> None:
        if not any(self._waiting[namespace]):
            del self._waiting[namespace]
