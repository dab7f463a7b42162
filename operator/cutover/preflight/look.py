"""One look at what a plan needs: each question is asked once, only a few are asked at a time, and they are counted. Read-only.

Used by the command `examine` and by `impact.py`. Without it a plan with many gates would put as much load on the API server as its
author likes, and as many times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from cutover.field_path import Json
from cutover.names import EVERYTHING, Selector
from cutover.ports import Ref, Resource
from cutover.preflight.reader import Reader

R = TypeVar("R", bound=Reader)

_AT_ONCE: Final = 4
"""Questions of one look that are open at a time: the rest of the API server is for traffic that is being shifted."""
_SECONDS_A_CALL: Final = 0.05
_LONGEST_PAUSE: Final = 60.0


class Look(Generic[R]):
    """One look through a reader.

    Attributes:
        reader: the same reader, for this look. Not for anything that writes.
    """

    def __init__(self, reader: R) -> None:
        self._asking = _Asking(reader)
        self.reader: R = cast("R", self._asking)

    @property
    def pause(self) -> float:
        """Seconds until the next look, at least: in proportion to what this one has cost, up to a minute."""
        return min(_LONGEST_PAUSE, self._asking.calls * _SECONDS_A_CALL)


class _Asking:
    """Asks a reader; of the port `Cluster` everything that examines without writing."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._answers: dict[object, asyncio.Task[Any]] = {}
        self._places = asyncio.Semaphore(_AT_ONCE)
        self.calls = 0

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
        if question not in self._answers:
            self._answers[question] = asyncio.create_task(self._answer(ask))
        return await asyncio.shield(self._answers[question])

    async def _answer(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        async with self._places:
            return await ask()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)
