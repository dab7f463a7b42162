"""Reads that several plans need at the same moment, made once for all of them.

With hundreds of plans in one namespace each asks for the same lists. Nobody gets an answer that is older than it asked for:
who wants a fresh one waits for the next read, together with all others who came meanwhile. Where each asks about a few things of
its own, those who came meanwhile have one request about all of these. Used by `kubernetes.py` and `joint_reads.py`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

from cutover.adapters.shares import acting_plan
from cutover.ports import Ref

T = TypeVar("T")

_KEPT: Final = 2.0
"""Seconds for which an answer that need not be fresh is given to other plans. The watch cache that it comes from may be behind as long."""
_APART: Final = 0.005
_FURTHEST: Final = 0.2
"""Seconds between the beginnings of two joint reads, for each plan that asks, and at most: in a crowd all that ask meanwhile have the
next one in common, two plans hardly wait for each other, and one that is alone waits for nobody."""
_PATIENCE: Final = 0.2
"""Seconds for which a joint read waits for the one before it: what is asked by then is no reason to wait for an answer that hangs."""


@dataclass(slots=True)
class _Question:
    """What is read again and again.

    Attributes:
        under_way: the read that has begun.
        coming: the one that begins when that has ended.
        kept: the last answer, for a moment, and the plan that has asked for it.
        parts: what the coming one is to be about.
        begun: when the last one began, of those that are kept apart, and the plan that has asked for it.
        askers: the plans that have asked for such since nobody did.
    """

    under_way: asyncio.Task[Any] | None = None
    coming: asyncio.Task[Any] | None = None
    kept: tuple[Any, Ref | None] | None = None
    parts: set[str] = field(default_factory=set)
    begun: tuple[float, Ref | None] | None = None
    askers: set[Ref | None] = field(default_factory=set)

    @property
    def apart(self) -> float:
        """Seconds between two joint reads."""
        return min(_FURTHEST, _APART * len(self.askers))

    @property
    def idle(self) -> bool:
        """Whether nothing of it is needed any more."""
        return all(one is None for one in (self.under_way, self.coming, self.kept, self.begun))

    def leave(self, read: asyncio.Task[Any]) -> None:
        """It has ended, or is given up: nobody joins it any more."""
        if self.coming is read:
            self.coming = None
            self.parts.clear()
        elif self.under_way is read:
            self.under_way = None


class SharedReads:
    """The reads that are under way, by question."""

    def __init__(self) -> None:
        self._questions: dict[Hashable, _Question] = {}
        self._waiting: Counter[asyncio.Task[Any]] = Counter()

    async def close(self) -> None:
        """Give up all of them."""
        tasks = [*self._waiting]
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
        if joined is None:
            after = partial(_ended, question.under_way)
            joined = question.coming = self._begin(about, question, ask, after, keep=not fresh)
        return await self._answer(question, joined)

    async def read_jointly(
        self, about: Hashable, parts: Iterable[str], ask: Callable[[frozenset[str]], Awaitable[T]]
    ) -> T:
        """A fresh answer to a question about some things, of a request that is about those of others too.

        Args:
            about: what is asked, and of what kind of things; equal for questions that one request can answer.
            parts: the things.
            ask: makes the request about all of them.

        Raises:
            OutsideError: as `ask`.
        """
        question = self._questions.setdefault(about, _Question())
        question.parts.update(parts)
        question.askers.add(acting_plan())
        if question.coming is None:

            async def ask_all() -> T:
                wanted = frozenset(question.parts)
                question.parts.clear()
                return await ask(wanted)

            after = partial(self._apart, about, question, question.under_way)
            question.coming = self._begin(about, question, ask_all, after, keep=False)
        return await self._answer(question, question.coming)

    async def _answer(self, question: _Question, joined: asyncio.Task[T]) -> T:
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
        after: Callable[[], Awaitable[None]],
        *,
        keep: bool,
    ) -> asyncio.Task[T]:
        """The next read, which all can join who come until it begins."""
        asker = acting_plan()

        async def read() -> T:
            await after()
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

    async def _apart(self, about: Hashable, question: _Question, before: asyncio.Task[Any] | None) -> None:
        """Let some time pass since the last one, and that one end, if it does so soon."""
        loop, asker = asyncio.get_running_loop(), acting_plan()
        if before is not None:
            await asyncio.wait([before], timeout=_PATIENCE)
        if question.begun is not None and question.begun[1] != asker:
            await asyncio.sleep(question.begun[0] + question.apart - loop.time())
        begun = question.begun = loop.time(), asker

        def forget() -> None:
            if question.begun is begun:
                question.begun = None
            self._forget_if_idle(about, question)

        loop.call_later(_FURTHEST, forget)

    def _keep(self, about: Hashable, question: _Question, answer: Any, asker: Ref | None) -> None:
        kept = question.kept = answer, asker

        def drop() -> None:
            if question.kept is kept:
                question.kept = None
            self._forget_if_idle(about, question)

        asyncio.get_running_loop().call_later(_KEPT, drop)

    def _forget_if_idle(self, about: Hashable, question: _Question) -> None:
        if question.idle and self._questions.get(about) is question:
            del self._questions[about]


async def _ended(read: asyncio.Task[Any] | None) -> None:
    if read is not None:
        await asyncio.wait([read])
