"""Operator processes over one API server in memory, whose requests fail: each with the real driver, adapter and cache.

Faults are injected below the real adapter, by a transport that answers its HTTP requests from memory; so what is streamed,
what an own write does to the cache and what an answer means is as in production. Streams, and the cache that lists come
from, may stand still.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from cutover.adapters.endpoint_streams import EndpointStreams
from cutover.adapters.kubernetes import Kubernetes
from cutover.adapters.transport import Request, Response
from cutover.engine.driver import Driver
from cutover.errors import Broken, OutsideError, Unavailable
from cutover.field_path import Json
from cutover.plan.crd_gap import CrdGap
from cutover.ports import ENDPOINT_SLICES, PLAN_LABEL, PLANS, STREAMED, Ports, Ref, Resource
from cutover.runtime.relist import RelistCheck
from cutover.testing import Crash, MemoryClock, MemoryCluster, MemoryMessenger, MemoryMetrics, MemoryRecorder, Spawner
from support.fakes.memory_api_server import DISCOVERY, answered, failure


class Fault(StrEnum):
    """What can go wrong with one request."""

    DIES_BEFORE = "dies before it is sent"
    DIES_AFTER = "dies after it took effect"
    NOT_DONE = "no answer, not done"
    UNANSWERED = "no answer, done"
    TWICE = "done twice, first answer"
    REPEATED = "done twice, second answer"
    LATE = "late"
    LATE_ANSWER = "answered late"
    CONFLICT = "409"
    DENIED = "403"
    BUSY = "429"


class Aim(StrEnum):
    """Which requests a fault picks."""

    ANY = "any"
    WRITE = "a write"
    TARGET = "a write to a target"


_REFUSALS: Mapping[Fault, Response] = {
    Fault.CONFLICT: failure(409, "a race"),
    Fault.DENIED: failure(403, "not now"),
    Fault.BUSY: failure(429, "too many requests", retry_after=3),
}


class Pace(StrEnum):
    """How a process gets to know what has changed."""

    LIVE = "at once"
    TURNS = "between turns"
    BEHIND = "one change a turn"
    FROZEN = "not at all"


@dataclass
class Flight:
    """A request that is under way: its effect, once, and whoever still waits for the answer.

    Attributes:
        answer: what the process waits for; it may have died, or timed out.
    """

    sender: Process
    effect: Callable[[], Response]
    answer: asyncio.Future[Response]
    sent: datetime
    response: Response | None = None

    def arrive(self) -> None:
        """Let it take effect, unless it has."""
        if self.response is None:
            world = self.sender.world
            world.unheard = self.sender.dead or self.answer.done()
            self.response = self.effect()
            world.unheard = False

    def land(self) -> None:
        """Let the answer arrive too, if anybody still waits for it."""
        self.arrive()
        assert self.response is not None
        if not self.answer.done():
            self.answer.set_result(self.response)


class FaultyTransport:
    """The port `Transport` of one process: requests are answered in memory, and one of them meets the fault that is set.

    Attributes:
        fault: which fault, which requests it picks, and the how many-th of those it is, counted from 1.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.fault: tuple[Fault, Aim, int] | None = None
        self._denied: Request | None = None

    async def send(self, request: Request) -> Response:
        """Answer a request, unless its process is dead."""
        await asyncio.sleep(0)
        process = self._process
        if process.dead:
            raise Crash
        if request is self._denied:  # the client asks once more whether a refusal is meant
            self._denied = None
            return _REFUSALS[Fault.DENIED]
        fault = self._due_fault(request)

        def effect() -> Response:
            return answered(process.world.cluster, process.lists, request)

        try:
            return effect() if fault is None else await self._inject(fault, request, effect)
        except Broken as broken:  # the driver would only try again
            process.world.wrong.append(broken)
            raise
        finally:
            process.listen(Pace.LIVE)

    def _due_fault(self, request: Request) -> Fault | None:
        if self.fault is None or request.path in DISCOVERY:
            return None
        fault, aim, left = self.fault
        writes = request.method != "GET" and "dryRun" not in request.params
        picked = {Aim.ANY: True, Aim.WRITE: writes, Aim.TARGET: writes and "Impersonate-User" in request.headers}[aim]
        if not picked or left > 1:
            self.fault = fault, aim, left - picked
            return None
        self.fault = None
        self._process.world.counts[f"fault: {fault}"] += 1
        return fault

    async def _inject(self, fault: Fault, request: Request, effect: Callable[[], Response]) -> Response:
        if refusal := _REFUSALS.get(fault):
            self._denied = request if fault is Fault.DENIED else None
            return refusal
        if fault is Fault.NOT_DONE:
            raise Unavailable("no answer")
        if fault is Fault.DIES_BEFORE:
            self._process.dead = True
            raise Crash
        if fault in (Fault.LATE, Fault.LATE_ANSWER):
            return await self._under_way(effect, arrived=fault is Fault.LATE_ANSWER)
        first = effect()
        if fault is Fault.TWICE:
            effect()
            return first
        if fault is Fault.REPEATED:
            return effect()
        if fault is Fault.UNANSWERED:
            raise Unavailable("no answer")
        self._process.dead = True
        raise Crash

    async def _under_way(self, effect: Callable[[], Response], *, arrived: bool) -> Response:
        world = self._process.world
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        flight = Flight(self._process, effect, answer, world.clock.now())
        if arrived:
            flight.arrive()
        world.flights.append(flight)
        return await answer

    async def log_in_again(self, login: int) -> None:
        """Nobody rotates a token here."""
        raise AssertionError(login)

    async def lines(self, request: Request) -> AsyncGenerator[bytes, None]:
        """What is streamed comes from the log of the world instead."""
        raise AssertionError(request)
        yield b""

    async def close(self) -> None:
        """There is nothing to close."""


class _Endpoints:
    """The streams of EndpointSlices of one process, which tell of each change at once while its targets are streamed so."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def follow(self, plan: Ref, services: frozenset[str]) -> int | None:
        """As the real one."""
        del plan, services
        return self._process.world.slices if self._process.paces["targets"] is Pace.LIVE else None

    def turn_ended(self, plan: Ref) -> None:
        """Nothing is closed here."""


class Process:
    """One operator process, from its start to its death.

    Attributes:
        paces: how it gets to know of plans and of targets, and how old its lists are.
        lists: what the cache that lists come from has.
        due: when it looks again by itself; `woken`: something has happened.
    """

    def __init__(self, world: World, paces: dict[str, Pace]) -> None:
        self.world, self.paces = world, paces
        self.transport = FaultyTransport(self)
        self.api = Kubernetes(self.transport)
        self.api._endpoints = cast("EndpointStreams", _Endpoints(self))
        self.dead, self.woken = False, True
        self.due: datetime | None = None
        self.task: asyncio.Future[None] | None = None
        self._heard: dict[str, int | None] = {"plans": None, "targets": None}
        self.lists, self._listed = dict(world.cluster.objects), len(world.log)
        self.spawner = Spawner()
        things = Ports(self.api, world.metrics, MemoryMessenger(), world.recorder, world.clock)
        self.driver = Driver(things, self.spawner, lambda _: self.wake())
        self.driver.crd_read(CrdGap.of(world.missing))
        self.missed = RelistCheck(
            self.api, (), lambda resource, body: self._note(_ref(resource, body), body, deleted=True)
        )

    def wake(self) -> None:
        """Something has happened to the plan."""
        self.woken = True

    @property
    def busy(self) -> bool:
        """In the middle of a turn."""
        return self.task is not None

    @property
    def parked(self) -> bool:
        """It waits for an answer that is late."""
        return any(flight.sender is self and not flight.answer.done() for flight in self.world.flights)

    # --- streams ------------------------------------------------------------------------------------------------------

    def listen(self, *moments: Pace) -> None:
        """Take in what the streams bring, where they go at one of these paces."""
        for stream, heard in self._heard.items():
            if self.paces[stream] in moments:
                self._heard[stream] = until = self._until(stream, heard)
                self._hear(stream, heard, until)
        if self.paces["lists"] in moments:
            until = self._until("lists", self._listed)
            for event in self.world.log[self._listed : until]:
                if event.after is None:
                    self.lists.pop(event.ref, None)
                else:
                    self.lists[event.ref] = event.after
            self._listed = until

    def _until(self, stream: str, heard: int | None) -> int:
        there = len(self.world.log)
        return there if heard is None or self.paces[stream] is not Pace.BEHIND else min(heard + 1, there)

    async def relist(self, stream: str) -> None:
        """A stream had a gap: Kopf lists all, and goes on from there."""
        self._heard[stream], self.paces[stream] = None, Pace.LIVE
        self.listen(Pace.LIVE)
        for resource in (PLANS,) if stream == "plans" else STREAMED:
            await self.missed.compare(resource)

    def _hear(self, stream: str, heard: int | None, until: int) -> None:
        kinds = (PLANS,) if stream == "plans" else STREAMED
        if heard is None:  # a new stream begins with a list of all
            for ref, body in list(self.world.cluster.objects.items()):
                if ref.resource in kinds and (stream == "plans" or _uid(body)):
                    self._note(ref, body)
            for resource in kinds:  # and is compared with what this process has read or written before
                self._compare(resource)
            return
        for event in self.world.log[heard:until]:
            if event.ref.resource not in kinds:
                continue
            if event.after is not None and (stream == "plans" or _uid(event.after)):
                self._note(event.ref, event.after)
            elif event.before is not None and (stream == "plans" or _uid(event.before)):
                metadata = event.before["metadata"] | {"resourceVersion": str(event.version)}
                self._note(event.ref, event.before | {"metadata": metadata}, deleted=True)

    def _compare(self, resource: Resource) -> None:
        """As `RelistCheck` does after each list."""
        for ref, before in self.api.all_known(resource).items():
            body = self.world.cluster.objects.get(ref)
            if body is None or not (resource == PLANS or _uid(body)):
                self._note(ref, before.body(ref), deleted=True)

    def _note(self, ref: Ref, body: Json, *, deleted: bool = False) -> None:
        before = self.api.known(ref)
        if deleted and ref == self.world.plan:
            self.driver.deleted(ref, body["metadata"]["uid"])
        if self.api.note(ref, body, deleted=deleted) and (
            ref == self.world.plan or self.world.uid in (before and before.claim, _uid(body))
        ):
            self.wake()

    # --- turns --------------------------------------------------------------------------------------------------------

    async def turn(self) -> None:
        """One turn, and the measurements that it began; as the queue has it, a turn that fails is tried again soon."""
        self.woken, self.due = False, None
        try:
            after = await self.driver.turn(self.world.plan)
            if await self.spawner.run():
                self.wake()
        except OutsideError:
            after = timedelta(seconds=1)
        self.due = None if after is None else self.world.clock.now() + after

    def die(self) -> None:
        """End in the middle of a turn; a request under way stays under way."""
        self.dead = True
        self.spawner.drop()
        if self.task is not None:
            self.task.cancel()


def _ref(resource: Resource, body: Json) -> Ref:
    return Ref(resource, body["metadata"]["namespace"], body["metadata"]["name"])


def _uid(body: Json | None) -> Any:
    return (body["metadata"].get("labels") or {}).get(PLAN_LABEL) if body else None


@dataclass(frozen=True)
class Event:
    """One change of one object."""

    version: int
    ref: Ref
    before: Json | None
    after: Json | None


@dataclass
class World:
    """The server, its processes, and what is under way between them.

    Attributes:
        counts: of what has happened.
        wrong: exceptions that no turn may raise.
        missing: fields of the status that the CRD lacks, as every process has read.
        strays: objects written by late requests for whose answers nobody waited any more.
        slices: how often EndpointSlices have changed.
    """

    cluster: MemoryCluster
    plan: Ref
    uid: str
    metrics: MemoryMetrics = field(default_factory=MemoryMetrics)
    recorder: MemoryRecorder = field(default_factory=MemoryRecorder)
    log: list[Event] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    flights: list[Flight] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[BaseException] = field(default_factory=list)
    strays: set[Ref] = field(default_factory=set)
    unheard: bool = False
    slices: int = 0
    missing: tuple[str, ...] = ()

    @property
    def clock(self) -> MemoryClock:
        """The server's; all of them have the same time."""
        return self.cluster.clock

    def start(self, at: int | None = None) -> None:
        """Start one more process, or replace the one at this place."""
        if at is None:
            self.processes.append(Process(self, dict.fromkeys(("plans", "targets", "lists"), Pace.LIVE)))
        else:
            self.processes[at] = Process(self, self.processes[at].paces)
        self.hear()

    def happened(self, ref: Ref, before: Json | None, after: Json | None) -> None:
        """The server tells of each change."""
        if self.unheard:
            self.strays.add(ref)
        self.log.append(Event(self.cluster.version, ref, before, after))
        if ref.resource == ENDPOINT_SLICES:
            self.slices += 1
            for process in self.processes:
                process.wake()

    def hear(self) -> None:
        """What has changed between turns reaches all whose streams go on."""
        for process in self.processes:
            process.listen(Pace.LIVE, Pace.TURNS, Pace.BEHIND)

    async def turn(self, at: int) -> None:
        """A turn of one process, until it ends or one of its requests does not come back."""
        process = self.processes[at]
        self.hear()
        process.task = asyncio.ensure_future(process.turn())
        self.counts["turns"] += 1
        await self.settle(at)

    async def settle(self, at: int) -> None:
        """Let a turn go on as far as it can."""
        process = self.processes[at]
        task = process.task
        assert task is not None
        while not task.done() and not process.parked:
            await asyncio.sleep(0)
        if not task.done():
            return
        process.task = None
        error = None if task.cancelled() else task.exception()
        if process.dead:
            process.die()
            self.counts["crashes"] += 1
            self.start(at)
        elif error is not None:
            self.wrong.append(error)
        self.hear()

    async def kill(self, at: int) -> None:
        """A process dies; a new one takes its place."""
        process = self.processes[at]
        process.die()
        if process.task is not None:
            await asyncio.wait({process.task})
            process.task = None
        self.counts["crashes"] += 1
        self.start(at)

    async def land(self, flight: Flight, how: str) -> None:
        """A late request: it arrives and is answered, arrives without an answer, or its sender times out."""
        self.counts[f"late: {how}"] += 1
        if how == "timed out":
            if not flight.answer.done():
                flight.answer.set_exception(Unavailable("timed out"))
        else:
            self.flights.remove(flight)
            flight.arrive()
            if how == "unanswered" and not flight.answer.done():
                flight.answer.set_exception(Unavailable("no answer"))
            flight.land()
        sender = flight.sender
        if not sender.dead and sender.busy:
            await self.settle(self.processes.index(sender))
        self.hear()
