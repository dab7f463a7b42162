"""A queue of keys: each is in it at most once, one worker at a time has it, and one that is added meanwhile comes again.

What is under way goes before what has not begun, and there what an event woke before what a timer woke. A key that fails
comes back after a growing pause, and not before the server wants it to; neither ever delays an event.
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
RESYNC: Final = timedelta(minutes=10)


class Queue(Generic[Key]):
    """Turns of many keys, by a few workers.

    Args:
        turn: one turn of a key; says when it wants to be looked at again, None for never.
        arrived: whether a key has only arrived, so that nothing suffers when it waits.
        workers: how many keys are worked on at once.
        of_arrivals: how many of these take what has arrived first, and other work only when nothing has. The others never
            do, so that a crowd that arrives at once does not get in the way of traffic that is being moved.
    """

    def __init__(
        self,
        turn: Callable[[Key], Awaitable[timedelta | None]],
        arrived: Callable[[Key], bool] = lambda _: False,
        *,
        workers: int = 32,
        of_arrivals: int = 8,
    ) -> None:
        self._turn, self._arrived = turn, arrived
        self._workers, self._of_arrivals = workers, of_arrivals
        self._events: deque[Key] = deque()
        self._timers: deque[Key] = deque()
        self._arrivals: deque[Key] = deque()
        self._queued: set[Key] = set()
        self._urgent: set[Key] = set()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._count = 0
        self._failures: dict[Key, int] = {}
        self._some = asyncio.Event()
        self._clock = asyncio.Event()

    @property
    def depth(self) -> int:
        """How many keys wait for a worker."""
        return len(self._queued)

    def add(self, key: Key) -> None:
        """Something happened to this key."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._urgent:
            # What a timer has queued already stands there a second time, and is passed over when its turn comes.
            self._queued.add(key)
            self._urgent.add(key)
            self._enqueue(key, self._events)

    def _enqueue(self, key: Key, under_way: deque[Key]) -> None:
        """Put it where it belongs, and wake the workers."""
        (self._arrivals if self._arrived(key) else under_way).append(key)
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

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="queue timers")
            for number in range(self._workers):
                takes_arrivals = number < self._of_arrivals
                group.create_task(self._work(takes_arrivals=takes_arrivals), name=f"queue worker {number}")

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
                    self._enqueue(key, self._timers)
            pause = self._heap[0][0] - now if self._heap else None
            try:
                await asyncio.wait_for(self._clock.wait(), pause)
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
            self._some.clear()
            await self._some.wait()

    async def _work(self, *, takes_arrivals: bool) -> None:
        while True:
            key = await self._next(takes_arrivals=takes_arrivals)
            self._queued.discard(key)
            self._urgent.discard(key)
            self._running.add(key)
            self._due.pop(key, None)
            after: float | None
            try:
                wish = await self._turn(key)
                self._failures.pop(key, None)
                after = wish.total_seconds() if wish is not None else None
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                after = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failures - 1, 10)) * random.uniform(0.8, 1.2)  # noqa: S311 -- jitter
                if isinstance(error, Unavailable):
                    after = max(after, error.retry_after)
                log.warning(
                    "a turn failed and is tried again",
                    exc_info=error,
                    extra={"key": str(key), "after": round(after, 1)},
                )
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            if after is not None:
                self.add_after(key, after)
