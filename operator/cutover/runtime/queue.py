"""A queue of keys: each is in it at most once, one worker at a time has it, and one that is added meanwhile comes again.

What an event woke goes before what a timer woke. A key that fails comes back after a growing pause, which never delays an
event.
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

Key = TypeVar("Key", bound=Hashable)
log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
RESYNC: Final = timedelta(minutes=10)


class Queue(Generic[Key]):
    """Turns of many keys, by a few workers.

    Args:
        turn: one turn of a key; says when it wants to be looked at again, None for never.
        workers: how many keys are worked on at once.
    """

    def __init__(self, turn: Callable[[Key], Awaitable[timedelta | None]], workers: int = 32) -> None:
        self._turn, self._workers = turn, workers
        self._events: deque[Key] = deque()
        self._timers: deque[Key] = deque()
        self._queued: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._failures: dict[Key, int] = {}
        self._some = asyncio.Event()
        self._clock = asyncio.Event()
        self.busy_since: dict[Key, float] = {}

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._queued)

    def add(self, key: Key) -> None:
        """Something happened to this key."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._events.append(key)
            self._some.set()

    def add_after(self, key: Key, after: float) -> None:
        """Look at this key after so many seconds, unless something happens before; the soonest wish counts."""
        due = asyncio.get_running_loop().time() + max(0.0, after)
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        self._count += 1
        heapq.heappush(self._heap, (due, self._count, key))
        if self._heap[0][2] == key:
            self._clock.set()

    def forget(self, key: Key) -> None:
        """No timer will wake this key any more."""
        self._due.pop(key, None)
        self._failures.pop(key, None)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="queue timers")
            for number in range(self._workers):
                group.create_task(self._work(), name=f"queue worker {number}")

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._clock.clear()
            now = loop.time()
            while self._heap and self._heap[0][0] <= now:
                due, _, key = heapq.heappop(self._heap)
                if self._due.get(key) != due:
                    continue  # overtaken by a sooner wish, or forgotten
                del self._due[key]
                if key in self._running:
                    self._again.add(key)
                elif key not in self._queued:
                    self._queued.add(key)
                    self._timers.append(key)
                    self._some.set()
            pause = self._heap[0][0] - now if self._heap else None
            try:
                await asyncio.wait_for(self._clock.wait(), pause)
            except TimeoutError:
                continue

    async def _next(self) -> Key:
        while True:
            for waiting in (self._events, self._timers):
                if waiting:
                    return waiting.popleft()
            self._some.clear()
            await self._some.wait()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            key = await self._next()
            self._queued.discard(key)
            self._running.add(key)
            self._due.pop(key, None)
            self.busy_since[key] = loop.time()
            after: float | None
            try:
                wish = await self._turn(key)
                self._failures.pop(key, None)
                after = wish.total_seconds() if wish is not None else None
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                after = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 -- jitter
                log.warning(
                    "a turn failed and is tried again",
                    exc_info=error,
                    extra={"key": str(key), "after": round(after, 1)},
                )
            finally:
                self._running.discard(key)
                self.busy_since.pop(key, None)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if after is not None:
                self.add_after(key, after)
