"""How many requests may be under way at once for one plan, and for all plans of one namespace.

A request that hangs keeps its connection until it times out. With these limits no plan and no namespace can keep all of
them, whatever it makes the API server do. Nobody waits for a place while holding one, but in one order (plan, namespace,
connection), so none of them is ever waited for in a circle.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Hashable
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Final
from weakref import WeakValueDictionary

from cutover.ports import Ref

CONNECTIONS: Final = 64
OF_A_PLAN: Final = 8
OF_A_NAMESPACE: Final = 16
"""A quarter of the connections. What belongs to no plan, such as events, shares one such limit."""

_plan: ContextVar[Ref | None] = ContextVar("plan", default=None)


@contextmanager
def acting_for(plan: Ref) -> Generator[None, None, None]:
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

    @asynccontextmanager
    async def place(self) -> AsyncGenerator[None, None]:
        """Wait for a place for one request of whom it is made for, and keep it inside."""
        plan = _plan.get()
        # Both are kept by this frame, and by nothing once the last one that waits for one of them has left.
        of_plan = self._limit(plan, OF_A_PLAN) if plan else nullcontext()
        of_namespace = self._limit(plan.namespace if plan else "", OF_A_NAMESPACE)
        async with of_plan, of_namespace:
            yield

    def _limit(self, whose: Hashable, places: int) -> asyncio.Semaphore:
        return self._limits.setdefault(whose, asyncio.Semaphore(places))
