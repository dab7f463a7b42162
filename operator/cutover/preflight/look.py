"""One look at what a plan needs: each question is asked once, only a few are asked at a time, and they are counted. Read-only.

Used by the command `examine` and by `impact.py`. Without it a plan with many gates would put as much load on the API server as its
author likes, and as many times. Nothing is asked any more once a look has ended, no matter how.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from cutover.errors import Unavailable
from cutover.field_path import Json
from cutover.names import EVERYTHING, Selector
from cutover.ports import Ref, Resource
from cutover.preflight.reader import Reader

R = TypeVar("R", bound=Reader)

_AT_ONCE: Final = 4
"""Questions of one look that are open at a time: the rest of the API server is for traffic that is being shifted."""
_SECONDS_A_CALL: Final = 0.05
_LONGEST_PAUSE: Final = 60.0
_LONGEST_LOOK: Final = 30.0
"""Seconds. Whatever else comes for the plan waits for the look, and so do arrivals of others for its place."""


class Look(Generic[R]):
    """One look through a reader, which lasts as long as its context.

    Args:
        reader: of the API server.
        longest: seconds until what is not answered yet is given up.

    Attributes:
        reader: the same reader, for this look. Not for anything that writes.

    Raises:
        Unavailable: in its context, when it lasts too long.
    """

    def __init__(self, reader: R, longest: float = _LONGEST_LOOK) -> None:
        self._asking, self._longest = _Asking(reader), longest
        self._timeout, self._begun = asyncio.timeout(longest), time.monotonic()
        self.reader: R = cast("R", self._asking)

    async def __aenter__(self) -> Self:
        self._begun = time.monotonic()
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # One part that fails, or time that is up, ends the look, but not the other parts, which would ask on and on beside the turns.
        self._asking.end()
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError:
            message = f"what the plan needs could not be read in {self._longest:g} s: {self._asking.left} of {self._asking.asked} questions have no answer"
            raise Unavailable(message) from None

    @property
    def pause(self) -> float:
        """Seconds from its begin to that of the next one, at least: in proportion to what it has cost, up to a minute.

        Half of them at least are rest, so that a plan whose questions are answered slowly does not ask all the time.
        """
        lasted = time.monotonic() - self._begun
        return min(_LONGEST_PAUSE, max(self._asking.asked * _SECONDS_A_CALL, 2 * lasted))


class _Asking:
    """Asks a reader; of the port `Cluster` everything that examines without writing."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._answers: dict[object, asyncio.Task[Any]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._ended = False
        self.left = 0

    @property
    def asked(self) -> int:
        return len(self._answers)

    def end(self) -> None:
        """Give up what is not answered yet; whoever waits for it, or asks anything more, is cancelled."""
        self._ended = True
        for answer in self._answers.values():
            self.left += answer.cancel()

    async def get(self, ref: Ref) -> Json:
        return await self._ask(ref, partial(self._reader.get, ref))

    async def read_as(self, ref: Ref, account: str) -> Json:
        return await self._ask(("read as", ref, account), partial(self._reader.read_as, ref, account))

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Json]:
        ask = partial(self._reader.list, resource, namespace, labels, fresh=fresh)
        found: Sequence[Json] = await self._ask((resource, namespace, labels, fresh), ask)
        return found

    async def may(self, *question: Any) -> bool:
        return bool(await self._ask(("may", *question), partial(self._reader.may, *question)))

    async def may_get(self, *question: Any) -> bool:
        return bool(await self._ask(("may get", *question), partial(self._reader.may_get, *question)))

    async def try_out(self, ref: Ref, operations: Sequence[Any], account: str) -> Json:
        question = ("try out", ref, json.dumps(operations), account)
        return await self._ask(question, partial(self._reader.try_out, ref, operations, account))

    async def dry_run(self, ref: Ref, patch: Json, account: str) -> Json:
        question = ("dry run", ref, json.dumps(patch), account)
        return await self._ask(question, partial(self._reader.dry_run, ref, patch, account))

    async def create(
        self, resource: Resource, namespace: str, body: Json, account: str = "", *, dry_run: bool = False
    ) -> Json:
        assert dry_run, "a look writes nothing"  # noqa: S101 -- only a bug could
        ask = partial(self._reader.create, resource, namespace, body, account, dry_run=dry_run)
        return await self._ask((resource, namespace, json.dumps(body), account), ask)

    async def _ask(self, question: object, ask: Callable[[], Awaitable[Any]]) -> Any:
        if self._ended:
            raise asyncio.CancelledError
        if question not in self._answers:
            self._answers[question] = asyncio.create_task(self._answer(ask))
        return await asyncio.shield(self._answers[question])

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._places:
            return await ask()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
