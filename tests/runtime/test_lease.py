"""The Lease in memory: every situation in which one process may find it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from cutover.errors import Conflict, Denied, Lost, NotFound, OutsideError, PlanError, Unavailable
from cutover.ports import Ref, Resource
from cutover.runtime.lease import Lease
from cutover.settings.settings import LeaseSettings, load

DURATION = 0.6
TERMS = LeaseSettings(
    duration=timedelta(seconds=DURATION),
    renew_deadline=timedelta(seconds=0.4),
    renew_every=timedelta(seconds=0.05),
    retry_every=timedelta(seconds=0.02),
)


class Api:
    """An API server with one Lease, that keeps resourceVersions and can be away."""

    def __init__(self) -> None:
        self.body: Any = None
        self.requests: list[str] = []
        self.problem: OutsideError | None = None
        self.answer_lost = False
        self._version = 0
        self._changed = asyncio.Event()

    def _call(self, verb: str) -> None:
        self.requests.append(verb)
        if self.problem is not None:
            raise self.problem

    def put(self, holder: str, **spec: Any) -> None:
        """Somebody writes it."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": DURATION, **spec}
        self._store({"metadata": {"name": "cutover", "labels": {"kept": "yes"}}, "spec": spec})

    def _store(self, body: Any) -> Any:
        self._version += 1
        self.body = copy.deepcopy(body)
        self.body["metadata"]["resourceVersion"] = str(self._version)
        self._changed.set()
        self._changed = asyncio.Event()
        if self.answer_lost:
            self.answer_lost = False
            raise Unavailable("the answer was lost")
        return copy.deepcopy(self.body)

    async def get(self, _: Ref) -> Any:
        self._call("get")
        if self.body is None:
            raise NotFound("there is none")
        return copy.deepcopy(self.body)

    async def create(self, _: Resource, __: str, body: Any) -> Any:
        self._call("create")
        if self.body is not None:
            raise Conflict("it exists")
        return self._store(body)

    async def replace(self, _: Ref, body: Any) -> Any:
        self._call("update")
        if self.body is None or self.body["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("it has changed")
        return self._store(body)

    async def watch(self, _: Ref, version: str) -> AsyncGenerator[Any, None]:
        self.requests.append("watch")
        while self.problem is None:
            if self.body is not None and self.body["metadata"]["resourceVersion"] != version:
                version = self.body["metadata"]["resourceVersion"]
                yield copy.deepcopy(self.body)
            else:
                await self._changed.wait()

    @property
    def holder(self) -> str:
        return str(self.body["spec"]["holderIdentity"]) if self.body else ""


def lease(api: Api, me: str = "me") -> Lease:
    return Lease(api, TERMS, "cutover-system", me)


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def renewed(api: Api, holder: str) -> AsyncIterator[None]:
    """Another process holds it and is well."""

    async def renew() -> None:
        while True:
            if api.holder == holder:
                api.put(holder)
            await asyncio.sleep(0.05)

    api.put(holder)
    async with running(renew()):
        yield


async def soon(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.005)


async def waited(work: Any) -> float:
    begun = asyncio.get_running_loop().time()
    async with asyncio.timeout(10):
        await work
    return asyncio.get_running_loop().time() - begun


# --- found in this situation ------------------------------------------------------------------------------------------


def _absent(_: Api) -> None:
    """There is none."""


def _released(api: Api) -> None:
    api.put("", leaseDurationSeconds=1)


def _its_own(api: Api) -> None:
    """Its container was started again."""
    api.put("me", leaseTransitions=3)


def _silent(api: Api) -> None:
    api.put("other", renewTime="2026-01-01T00:00:00.000000Z")


def _silent_with_a_clock_ahead(api: Api) -> None:
    api.put("other", renewTime="2999-01-01T00:00:00.000000Z")


@pytest.mark.parametrize(
    ("situation", "at_once"),
    [
        (_absent, True),
        (_released, True),
        (_its_own, True),
        (_silent, False),
        (_silent_with_a_clock_ahead, False),
    ],
)
async def test_it_is_taken(situation: Callable[[Api], None], *, at_once: bool) -> None:
    """At once when it is free, else after the holder was silent for its time on our clock, regardless of its own."""
    api = Api()
    situation(api)
    mine = lease(api)
    assert not mine.held
    after = await waited(mine.acquire())
    assert mine.held
    assert api.holder == "me"
    assert (after < DURATION / 2) if at_once else (after >= DURATION)


async def test_what_is_written() -> None:
    api = Api()
    api.put("other", leaseTransitions=4)
    await lease(api).acquire()
    assert api.body["metadata"]["labels"] == {"kept": "yes"}
    assert (api.body["spec"]["leaseTransitions"], api.body["spec"]["leaseDurationSeconds"]) == (5, 1)
    assert api.body["spec"]["acquireTime"] <= api.body["spec"]["renewTime"]


async def test_one_that_is_renewed_is_left_alone_no_matter_what_its_clock_says() -> None:
    api = Api()
    mine = lease(api)
    async with renewed(api, "other"), running(mine.acquire()) as acquiring:
        await asyncio.sleep(2 * DURATION)
        assert not acquiring.done()
    assert api.holder == "other"
    assert api.requests == ["get", "watch"], "a standby only watches"


async def test_a_release_is_seen_at_once() -> None:
    api = Api()
    mine = lease(api)
    async with renewed(api, "other"), running(mine.acquire()) as acquiring:
        await soon(lambda: "watch" in api.requests)
        api.put("")
        after = await waited(acquiring)
    assert after < DURATION / 2


async def test_of_two_at_once_one_gets_it() -> None:
    api = Api()
    api.put("dead")
    both = [lease(api, "a"), lease(api, "b")]
    async with running(both[0].acquire()), running(both[1].acquire()):
        await soon(lambda: api.holder in ("a", "b"))
        await asyncio.sleep(0.05)
    assert [one.held for one in both] == [api.holder == "a", api.holder == "b"]


async def test_a_standby_that_was_out_of_contact_gives_the_holder_its_full_time_again() -> None:
    """Nobody can renew while the API server is away, so silence then says nothing of the holder."""
    api = Api()
    mine = lease(api)
    api.put("other")
    async with running(mine.acquire()) as acquiring:
        await soon(lambda: "watch" in api.requests)
        api.problem = Unavailable("away")
        await asyncio.sleep(DURATION * 1.5)
        assert mine.problem
        api.problem = None
        after = await waited(acquiring)
    assert after >= DURATION
    assert mine.problem == ""


async def test_missing_permissions_are_reported() -> None:
    api = Api()
    api.problem = Denied('leases "cutover" is forbidden')
    mine = lease(api)
    async with running(mine.acquire()):
        await soon(lambda: "forbidden" in mine.problem)


# --- active -----------------------------------------------------------------------------------------------------------


async def test_it_is_renewed_and_costs_one_request_each_time() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    before = len(api.requests)
    async with running(mine.keep_renewed()) as keeping:
        await asyncio.sleep(DURATION * 1.5)
        assert mine.held
        assert not keeping.done()
    assert set(api.requests[before:]) == {"update"}
    assert len(api.requests) - before <= DURATION * 1.5 / 0.05 + 1


async def test_one_that_was_taken_over_is_lost() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    api.put("other")
    with pytest.raises(Lost, match="lost Lease cutover: it belongs to other now, not to me"):
        await waited(mine.keep_renewed())
    assert api.holder == "other"


async def test_one_that_is_deleted_is_lost() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    api.body = None
    with pytest.raises(Lost, match="it belongs to no process now"):
        await waited(mine.keep_renewed())


async def test_another_writer_changes_another_field_of_it() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    api.put("me", preferred="x")
    async with running(mine.keep_renewed()) as keeping:
        await soon(lambda: api.requests[-1] == "update" and len(api.requests) > 6)
        assert not keeping.done()
    assert api.body["spec"]["preferred"] == "x"


@pytest.mark.parametrize("away", [0.5, 1.0, 4.0])
async def test_the_api_server_is_away(away: float) -> None:
    """Nobody else can take it then. Work stops when it is no longer sure, and goes on when it was looked at again."""
    api = Api()
    mine = lease(api)
    await mine.acquire()
    async with running(mine.keep_renewed()) as keeping:
        await asyncio.wait_for(mine.wait_until_held(), 0.01)
        api.problem = Unavailable("away")
        await asyncio.sleep(DURATION * away)
        if away >= 1:
            assert not mine.held
        async with running(mine.wait_until_held()) as waiting:
            await asyncio.sleep(0)
            assert waiting.done() == mine.held
            api.problem = None
            await waited(waiting)
        assert mine.held
        assert not keeping.done()


async def test_taken_over_while_out_of_contact() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    async with running(mine.keep_renewed()) as keeping:
        api.problem = Unavailable("away")
        await soon(lambda: not mine.held)
        api.put("other")
        async with running(mine.wait_until_held()) as waiting:
            api.problem = None
            with pytest.raises(Lost):
                await waited(keeping)
            assert not waiting.done(), "no turn begins"


async def test_an_answer_that_was_lost() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    async with running(mine.keep_renewed()) as keeping:
        api.answer_lost = True
        await soon(lambda: not api.answer_lost)
        await asyncio.sleep(DURATION)
        assert mine.held
        assert not keeping.done()


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_it_is_released() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    await mine.release()
    assert not mine.held
    assert api.holder == ""
    assert await waited(lease(api, "other").acquire()) < DURATION / 2


async def test_that_of_another_is_not_released() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    api.put("other")
    await mine.release()
    assert api.holder == "other"


async def test_released_while_away() -> None:
    api = Api()
    mine = lease(api)
    await mine.acquire()
    api.problem = Unavailable("away")
    await mine.release()
    assert api.holder == "me"


# --- its settings -----------------------------------------------------------------------------------------------------


def test_times_must_rise(tmp_path: Any) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("lease: {duration: 5s}")
    with pytest.raises(PlanError, match=r"^lease: .* must increase in this order; they are 2s, 5s, 10s, 5s$"):
        load(file)
    file.write_text("lease: null")
    assert load(file).lease is None
