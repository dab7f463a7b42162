"""All ports in memory but the API server, for tests and for simulating a plan: a clock set by hand, samples, notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cutover.field_path import Json
from cutover.messaging import Delivery, Message
from cutover.ports import Sample
from cutover.saga.turn import Notice

_START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class MemoryClock:
    """A clock set by hand."""

    def __init__(self) -> None:
        self._now = _START

    def now(self) -> datetime:
        """The moment it was set to."""
        return self._now

    def pass_time(self, span: timedelta) -> None:
        """Let time pass."""
        self._now += span


class MemoryMetrics:
    """Metric providers in memory: a function from a query to a sample, and one from a path to a document.

    Attributes:
        unusable: names of providers whose credentials cannot be used.
    """

    def __init__(
        self,
        answer: Callable[[str], Sample] = lambda _: Sample(0.0),
        providers: Sequence[str] = ("default",),
        document: Callable[[str], Json] = lambda _: 0,
    ) -> None:
        self.answer, self.document, self._providers = answer, document, tuple(providers)
        self.unusable: set[str] = set()

    def names(self, kind: str) -> Sequence[str]:
        """All of them, for every kind."""
        del kind
        return self._providers

    def usable(self, provider: str) -> bool:
        """Whether its credentials can be used."""
        return provider not in self.unusable

    async def query(self, provider: str, query: str, lookback: float, at: float | None = None) -> Sample:
        """The sample that the function returns."""
        await asyncio.sleep(0)
        del provider, lookback, at
        return self.answer(query)

    async def fetch(self, provider: str, path: str, query: Mapping[str, str], pick: Callable[[Json], Sample]) -> Sample:
        """The sample picked from the document that the function returns."""
        await asyncio.sleep(0)
        del provider, query
        return pick(self.document(path))


class MemoryMessenger:
    """Collects what is posted, as (provider, message).

    Attributes:
        failure: why nothing is delivered; empty when everything is.
        slow: posted messages are not delivered yet.
        around: called with each effect, so that a test can let the process die before or after it.
    """

    def __init__(self, providers: Sequence[str] = ("chat",)) -> None:
        self._providers = tuple(providers)
        self.posted: list[tuple[str, Message]] = []
        self.deliveries: list[Delivery] = []
        self._keys: dict[Hashable, Delivery] = {}
        self.failure, self.slow = "", False
        self.around: Callable[[Callable[[], None]], None] = lambda effect: effect()

    def knows(self, provider: str) -> bool:
        """Whether it is configured."""
        return provider in self._providers

    def names(self) -> Sequence[str]:
        """All of them."""
        return self._providers

    def restart(self) -> None:
        """The process died: a new one knows no key."""
        self._keys.clear()

    def delivery(self, key: Hashable) -> Delivery | None:
        """What was posted under a key since the last start."""
        return self._keys.get(key)

    def post(self, provider: str, message: Message, patience: float, key: Hashable = None) -> Delivery:
        """Collect it, once per key."""
        del patience
        if key is not None and (known := self._keys.get(key)):
            return known
        delivery = Delivery(over=not self.slow, error=self.failure)
        self.around(lambda: self.posted.append((provider, message)))
        self.deliveries.append(delivery)
        if key is not None:
            self._keys[key] = delivery
        return delivery


@dataclass
class MemoryRecorder:
    """Collects every notice."""

    notices: list[Notice] = field(default_factory=list)

    def record(self, plan: Json, notice: Notice) -> None:
        """Collect it."""
        del plan
        self.notices.append(notice)


class Spawner:
    """Collects the tasks that run beside the turns, and runs them when told to."""

    def __init__(self) -> None:
        self._waiting: list[Coroutine[Any, Any, None]] = []

    def __call__(self, task: Coroutine[Any, Any, None]) -> None:
        """Collect one task."""
        self._waiting.append(task)

    async def run(self) -> bool:
        """Run all collected tasks; whether there were any."""
        tasks, self._waiting = self._waiting, []
        for task in tasks:
            await task
        return bool(tasks)

    def drop(self) -> None:
        """The process died, and its tasks with it."""
        for task in self._waiting:
            task.close()
        self._waiting = []
