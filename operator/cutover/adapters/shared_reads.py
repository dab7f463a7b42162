"""Reads that several plans need at the same moment, made once for all of them.

With hundreds of plans in one namespace each asks for the same lists. Nobody gets an answer that is older than it asked for:
who wants a fresh one waits for the next read, together with all others who came meanwhile. Used by `kubernetes.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cutover.adapters.shares import acting_plan
from cutover.ports import Ref

T = TypeVar("T")

_KEPT: Final = 1.0
"""Seconds for which an answer that need not be fresh is given to other plans. The watch cache that it comes from may be behind as long."""


@dataclass(slots=True)
class _Question:
    """What is read again and again.

    Attributes:
        under_way: the read that has begun.
        coming: the one that begins when that has ended.
        kept: the last answer, for a moment, and the plan that has asked for it.
    """

    under_way: asyncio.Task[Any] | None = None
    coming: asyncio.Task[Any] | None = None
    kept: tuple[Any, Ref | None] | None = None

    def leave(self, read: asyncio.Task[Any]) -> None:
        """It has ended, or is given up: nobody joins it any more."""
        if self.coming is read:
            self.coming = None
        elif self.under_way is read:
            self.under_way = None


class SharedReads:
    """The reads that are under way, by question."""

    def __init__(self) -> None:
        self._questions: dict[Hashable, _Question] = {}
        self._waiting: Counter[asyncio.Task[Any]] = Counter()

    async def close(self) -> None:
        """Give up all of them."""
        tasks = [task for one in self._questions.values() for task in (one.under_way, one.coming) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def read(self, about: Hashable, ask: Callable[[], Awaitable[T]], *, fresh: bool) -> T:
        """The answer to one question, of a request that others may have made.

        Args:
            about: what is asked; equal for equal questions.
            ask: makes the request.
            fresh: the request begins after this call. Otherwise one that is under way will do, or one of another plan that
                has just ended. A plan that looks again never gets its own answer again.

        Raises:
            OutsideError: as `ask`.
        """
        question = self._questions.setdefault(about, _Question())
        if not fresh and question.kept is not None and question.kept[1] != acting_plan():
            answer: T = question.kept[0]
            return answer
        joined = question.coming if fresh else question.under_way or question.coming
        if joined is None and question.under_way is None:
            joined = question.under_way = self._begin(about, question, ask, keep=not fresh)
        elif joined is None:
            joined = question.coming = self._begin(about, question, ask, keep=False, after=question.under_way)
        self._waiting[joined] += 1
        try:
            return await asyncio.shield(joined)
        finally:
            self._waiting[joined] -= 1
            if not self._waiting[joined]:
                del self._waiting[joined]
                question.leave(joined)  # nobody wants it any more, and it must not keep the place of its plan
                joined.cancel()

    def _begin(
        self,
        about: Hashable,
        question: _Question,
        ask: Callable[[], Awaitable[T]],
        *,
        keep: bool,
        after: asyncio.Task[Any] | None = None,
    ) -> asyncio.Task[T]:
        asker = acting_plan()

        async def read() -> T:
            if after is not None:
                await asyncio.wait([after])
                question.under_way, question.coming = question.coming, None
            answer = await ask()
            if keep:
                self._keep(about, question, answer, asker)
            return answer

        def ended(task: asyncio.Task[T]) -> None:
            """Also one that was given up before it began."""
            question.leave(task)
            self._forget_if_idle(about, question)
            with suppress(asyncio.CancelledError):
                task.exception()  # taken note of: nobody may be left who waits for it, and it is theirs

        task = asyncio.create_task(read())  # for the plan that asks first: it takes one of its places
        task.add_done_callback(ended)
        return task

    def _keep(self, about: Hashable, question: _Question, answer: Any, asker: Ref | None) -> None:
        kept = question.kept = answer, asker

        def drop() -> None:
            if question.kept is kept:
                question.kept = None
            self._forget_if_idle(about, question)

        asyncio.get_running_loop().call_later(_KEPT, drop)

    def _forget_if_idle(self, about: Hashable, question: _Question) -> None:
        if question == _Question() and self._questions.get(about) is question:
            del self._questions[about]
