"""How many requests may be under way at once for one plan, and for all plans of one namespace.

A request that hangs keeps its connection until it times out. With these limits no plan and no few namespaces can keep all of
them, whatever they make the API server do. Nobody waits for a place while holding one, but in one order (plan, namespace,
all namespaces, connection), so none of them is ever waited for in a circle.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncGenerator, Generator, Hashable
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final
from weakref import WeakValueDictionary

from cutover.ports import Ref

CONNECTIONS: Final = 64
STREAMS: Final = 32
"""Connections beside them that answers which go on may keep."""
OF_A_PLAN: Final = 8
OF_A_NAMESPACE: Final = 16
"""A quarter of the connections. What belongs to no plan, such as events, shares one such limit."""
SHARED: Final = 48
"""Once so many are under way, a namespace may make one request at a time: the other connections are for those that make none."""

_plan: ContextVar[Ref | None] = ContextVar("plan", default=None)


def acting_plan() -> Ref | None:
    """The plan that requests are made for here; None: for none."""
    return _plan.get()


@contextmanager
def acting_for(plan: Ref | None) -> Generator[None, None, None]:
    """All requests inside are made for this plan, and those of tasks that are created inside."""
    before = _plan.set(plan)
    try:
        yield
    finally:
        _plan.reset(before)


class Shares:
    """The limits of one set of connections."""

    def __init__(self) -> None:
        self._limits: WeakValueDictionary[Hashable, asyncio.Semaphore] = WeakValueDictionary()
        self._of_all = _OfAll()

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Wait for a place for one request of whom it is made for, and keep it inside."""
        plan = _plan.get()
        # Both are kept by this frame, and by nothing once the last one that waits for one of them has left.
        of_plan = self._limit(plan, OF_A_PLAN) if plan else nullcontext()
        namespace = plan.namespace if plan else ""
        of_namespace = self._limit(namespace, OF_A_NAMESPACE)
        async with of_plan, of_namespace, self._of_all.place(namespace):
            yield

    def _limit(self, whose: Hashable, places: int) -> asyncio.Semaphore:
        return self._limits.setdefault(whose, asyncio.Semaphore(places))


class _OfAll:
    """The limit of all namespaces together, which keeps none from its first place."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()  # the one that is next in front

    @asynccontextmanager
    async def place(self, namespace: str) -> AsyncGenerator[None, None]:
        """Wait for a place, and keep it inside."""
        given = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(namespace, deque()).append(given)
        self._give()
        try:
            await given
            yield
        finally:
            if not given.cancelled():  # also when it was given, and given up at the same time
                self._taken[namespace] -= 1
                if not self._taken[namespace]:
                    del self._taken[namespace]
            self._give()

    def _give(self) -> None:
        while (namespace := self._next()) is not None:
            given = self._waiting[namespace].popleft()
            if not given.cancelled():
                given.set_result(None)
                self._taken[namespace] += 1
            self._waiting.move_to_end(namespace)
            if not self._waiting[namespace]:
                del self._waiting[namespace]

    def _next(self) -> str | None:
        shared = self._taken.total() < SHARED
        return next((one for one in self._waiting if shared or not self._taken[one]), None)
