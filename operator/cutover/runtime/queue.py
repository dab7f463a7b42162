"""A work queue of keys: each is queued at most once, and never processed by two workers at a time. Called by app.py and relist.py.

Keys in progress go before keys that have only arrived, and among them those woken by an event before those woken by a timer. A key that
fails is retried with backoff, and not before the server's Retry-After; neither ever delays an event.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from datetime import timedelta
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


class Queue(Generic[Key]):
    """Runs turns of many keys with a few workers.

    Args:
        turn: one turn of a key; returns when the key wants its next turn, None for not at all.
        arrived: whether a key has only arrived, so that it may wait.
        workers: how many keys are processed at once.
        arrival_workers: how many of the workers take arrivals first, and other keys only when there are none. The other workers
            never take arrivals, so that many plans arriving at once do not slow down traffic that is being shifted.
    """

    def __init__(
        self,
        turn: Callable[[Key], Awaitable[timedelta | None]],
        arrived: Callable[[Key], bool] = lambda _: False,
        *,
        workers: int = 32,
        arrival_workers: int = 8,
    ) -> None:
        self._turn, self._arrived = turn, arrived
        self._workers, self._arrival_workers = workers, arrival_workers
        self._events: deque[Key] = deque()
        self._timers: deque[Key] = deque()
        self._arrivals: deque[Key] = deque()
        self._queued: set[Key] = set()  # waits in one of the three lines
        self._urgent: set[Key] = set()  # of these, what an event has queued
        self._running: set[Key] = set()
        self._dirty: set[Key] = set()  # added while running: gets another turn
        self._due: dict[Key, float] = {}  # the soonest time of each key; entries of the heap that differ are stale
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._failures: dict[Key, int] = {}
        self._added = asyncio.Event()
        self._due_changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._queued)

    def add(self, key: Key) -> None:
        """Something happened to this key."""
        if key in self._running:
            self._dirty.add(key)
        elif key not in self._urgent:
            # A key that a timer has queued is queued a second time among the events; `_next` skips the entry that comes later.
            self._queued.add(key)
            self._urgent.add(key)
            self._enqueue(key, self._events)

    def _enqueue(self, key: Key, line: deque[Key]) -> None:
        """Add it to the arrivals or to this line, and wake the workers."""
        (self._arrivals if self._arrived(key) else line).append(key)
        self._added.set()

    def add_after(self, key: Key, after: float) -> None:
        """Give this key a turn after so many seconds, unless it gets one before; the soonest request counts."""
        due = asyncio.get_running_loop().time() + max(0.0, after)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        if self._heap[0][2] == key:
            self._due_changed.set()

    async def run(self) -> None:
        """Process keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="queue timers")
            for number in range(self._workers):
                takes_arrivals = number < self._arrival_workers
                group.create_task(self._work(takes_arrivals=takes_arrivals), name=f"queue worker {number}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._due_changed.clear()
            now = loop.time()
            while self._heap and self._heap[0][0] <= now:
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) != due:
                    continue  # stale: a sooner request replaced it, or a turn has run since
                del self._due[key]
                if key in self._running:
                    self._dirty.add(key)
                elif key not in self._queued:
                    self._queued.add(key)
                    self._enqueue(key, self._timers)
            pause = self._heap[0][0] - now if self._heap else None
            try:
                await asyncio.wait_for(self._due_changed.wait(), pause)
            except TimeoutError:
                continue

    async def _next(self, *, takes_arrivals: bool) -> Key:
        lines = (self._arrivals, self._events, self._timers) if takes_arrivals else (self._events, self._timers)
        while True:
            for line in lines:
                while line:
                    key = line.popleft()
                    if key in self._queued:
                        return key
            # Nothing was awaited since the lines were empty, so no key can have been added in between.
            self._added.clear()
            await self._added.wait()

    async def _work(self, *, takes_arrivals: bool) -> None:
        while True:
            key = await self._next(takes_arrivals=takes_arrivals)
            self._queued.discard(key)
            self._urgent.discard(key)
            self._running.add(key)
            # Before the turn, not after it: what the turn itself asks for below must stay.
            self._due.pop(key, None)
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
            # Only now: `add` of a running key would mark it dirty again.
            if key in self._dirty:
                self._dirty.discard(key)
                self.add(key)
            if after is not None:
                self.add_after(key, after)
