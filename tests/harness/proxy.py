"""An HTTP proxy between one operator process and the API server: counts its requests, and treats each as a test asks.

Plain HTTP on 127.0.0.1 to the operator, TLS to the API server. Watches are streamed byte by byte. What is done to a request
is a *fault*: a coroutine that gets the exchange and decides what becomes of it. Knows no plan and no operator. Used by tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import struct
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

T = TypeVar("T")
_HOP_BY_HOP = {"host", "connection", "transfer-encoding", "content-length", "content-encoding", "keep-alive"}
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Exchange:
    """One request, and what may become of it.

    Attributes:
        number: its place among the counted requests, from 1; 0 when it is not counted.
        status: what the API server answered; 0 before it has.
    """

    def __init__(self, proxy: Proxy, request: web.Request, body: bytes, number: int) -> None:
        self._proxy, self._request, self.body, self.number = proxy, request, body, number
        self._answer: web.Response | None = None
        self.method, self.path, self.status = request.method, request.path, 0

    @property
    def writes(self) -> bool:
        """It asks for a change (reviews and events are no changes of what a plan is about)."""
        return self.method in _WRITES and not self.path.endswith(("/events", "reviews"))

    @property
    def given_up(self) -> bool:
        """The operator waits for the answer no longer."""
        return self._request.transport is None or self._request.transport.is_closing()

    def __str__(self) -> str:
        return f"{self.number}: {self.method} {self.path}"

    async def forward(self) -> None:
        """Send it to the API server and keep the answer. A server that is away is a connection that breaks."""
        async with self._proxy.upstream(self._request, self.body) as answer:
            text = await answer.read()
        self.status = answer.status
        headers = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
        if "Retry-After" in answer.headers:
            headers["Retry-After"] = answer.headers["Retry-After"]
        self._answer = web.Response(status=answer.status, body=text, headers=headers)

    async def pass_on(self) -> web.StreamResponse:
        """Give the operator the answer that was kept; it has it when this returns."""
        assert self._answer is not None
        await self._answer.prepare(self._request)
        await self._answer.write_eof()
        return self._answer

    def reply(self, status: int, reason: str, **headers: str) -> web.StreamResponse:
        """Answer in the API server's place."""
        body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "reason": reason}
        text = json.dumps(body | {"message": f"fault injected by a test: {reason}"})
        return web.Response(status=status, text=text, content_type="application/json", headers=headers)

    def reset(self) -> web.StreamResponse:
        """Break the connection (RST)."""
        _reset(self._request.transport)
        return web.Response(status=502)  # goes nowhere


Fault = Callable[[Exchange], Awaitable[web.StreamResponse]]
Rule = Callable[[Exchange], Fault | None]
"""Picks the fault of a request; None lets it through. Called in the proxy's thread."""


# --- faults -----------------------------------------------------------------------------------------------------------


async def untouched(exchange: Exchange) -> web.StreamResponse:
    """No fault."""
    await exchange.forward()
    return await exchange.pass_on()


async def reset_before(exchange: Exchange) -> web.StreamResponse:
    """The connection breaks before the API server has the request."""
    return exchange.reset()


async def reset_after(exchange: Exchange) -> web.StreamResponse:
    """The API server has done it, and the answer is lost."""
    await exchange.forward()
    return exchange.reset()


async def hang_after(exchange: Exchange) -> web.StreamResponse:
    """The API server has done it, and no answer ever comes: the operator's own time-out has to end it."""
    await exchange.forward()
    await asyncio.sleep(3600)
    return exchange.reset()


def answering(status: int, reason: str, **headers: str) -> Fault:
    """An error in the API server's place; nothing is done."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        return exchange.reply(status, reason, **headers)

    return fault


async def unknown_page(exchange: Exchange) -> web.StreamResponse:
    """What an API server that starts, or a proxy before it, answers to what it does not know (yet); nothing is done."""
    del exchange
    return web.Response(status=404, text="404 page not found\n")


def killing(moment: str, kill: Callable[[], None]) -> Fault:
    """The operator dies around this request.

    Args:
        moment: ``before-send`` (it never arrives), ``after-commit`` (done, the answer is lost), ``after-answer``.
        kill: ends the operator at once.
    """

    async def fault(exchange: Exchange) -> web.StreamResponse:
        if moment == "before-send":
            kill()
            return exchange.reset()
        await exchange.forward()
        if moment == "after-commit":
            kill()
            return exchange.reset()
        response = await exchange.pass_on()
        await asyncio.sleep(0.002 * (exchange.number % 4))  # so that it dies at different points of what it does next
        kill()
        return response

    return fault


def delayed(seconds: float) -> Fault:
    """The request takes its time on the way."""

    async def fault(exchange: Exchange) -> web.StreamResponse:
        await asyncio.sleep(seconds)
        return await untouched(exchange)

    return fault


class Pause:
    """A fault that keeps requests, or their answers, until it is told to let them go.

    Args:
        on_hold: called with the first one.
        answer: it is the answer that is kept; the API server has done it.
    """

    def __init__(self, on_hold: Callable[[], None] = lambda: None, *, answer: bool = False) -> None:
        self._on_hold, self._answer = on_hold, answer
        self.paused, self.done = threading.Event(), threading.Event()
        self.exchange: Exchange | None = None

    async def __call__(self, exchange: Exchange) -> web.StreamResponse:
        if self.exchange is None:
            self.exchange, self._loop, self._go = exchange, asyncio.get_running_loop(), asyncio.Event()
            if self._answer:
                await exchange.forward()
            self._on_hold()
            self.paused.set()
        await self._go.wait()
        if not exchange.status:
            await exchange.forward()
        self.done.set()
        return await exchange.pass_on()

    def release(self) -> int:
        """Let it go now.

        Returns:
            The status that the API server answered to the first one.
        """
        self._loop.call_soon_threadsafe(self._go.set)
        assert self.done.wait(20), "the API server did not answer the late request"
        assert self.exchange is not None
        return self.exchange.status


# --- the proxy --------------------------------------------------------------------------------------------------------


class _Stream:
    """One open watch."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.parting: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()


class Proxy:
    """One proxy, in a thread of its own.

    Counted is what the operator's own client sends from the moment a rule is armed; what Kopf reads and streams is not (it
    is told by its User-Agent), nor are Leases.

    Args:
        url: of the API server.
        ca: whom to trust.
    """

    def __init__(self, url: str, ca: Path) -> None:
        self._target, self._tls = url, ssl.create_default_context(cafile=str(ca))
        self._rule: Rule = lambda _: None
        self._everything: Fault | None = None
        self._streams: set[_Stream] = set()
        self.exchanges: list[Exchange] = []
        self.opened: list[str] = []
        """Paths of all watches that were opened."""
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def start(self) -> None:
        self._thread.start()
        self._do(self._start())

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0, keepalive_timeout=90)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=16 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, keepalive_timeout=90)
        await self._runner.setup()
        await self._listen()
        self._port = self._runner.addresses[0][1]

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await self._site.start()

    def stop(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        for stream in self._streams:
            _part(stream, b"")
        self._reset_all()
        await self._runner.cleanup()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self._session.close()
        for _ in range(10):  # transports that were broken off say goodbye in the loop's next rounds
            await asyncio.sleep(0)

    # --- what a test asks ---------------------------------------------------------------------------------------------

    def arm(self, rule: Rule) -> None:
        """Count from one, and ask this rule for the fault of each counted request."""

        async def work() -> None:
            self.exchanges, self._rule = [], rule

        self._do(work())

    def disarm(self) -> None:
        """Let everything through; no fault of the rule is under way in this thread when it returns."""

        async def work() -> None:
            self._rule = lambda _: None

        self._do(work())

    def go_away(self) -> None:
        """Refuse all connections, and break those there are."""

        async def work() -> None:
            await self._site.stop()
            self._reset_all()

        self._do(work())

    def come_back(self) -> None:
        """Listen again, where it did before."""
        self._do(self._listen())

    def answer_all(self, fault: Fault | None) -> None:
        """The fault of every request, watches and Kopf's own included; None ends it."""

        async def work() -> None:
            self._everything = fault

        self._do(work())

    def end_watches(self, code: int, reason: str) -> None:
        """All open watches end with an error event, as a server sends it that has compacted its history (410)."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason}
        event = {"type": "ERROR", "object": status | {"message": f"fault injected by a test: {reason}"}}

        async def work() -> None:
            for stream in self._streams:
                _part(stream, json.dumps(event).encode() + b"\n")

        self._do(work())

    def freeze_watches(self, kind: str = "") -> None:
        """No byte comes through the watches (of a kind) that are open now; those opened later are not touched."""

        async def work() -> None:
            for stream in self._streams:
                if stream.path.endswith(kind):
                    stream.thawed.clear()

        self._do(work())

    def thaw_watches(self) -> None:
        """All that was kept back comes at once."""

        async def work() -> None:
            for stream in self._streams:
                stream.thawed.set()

        self._do(work())

    # --- requests -----------------------------------------------------------------------------------------------------

    def upstream(self, request: web.Request, body: bytes) -> Any:
        """The same request to the API server, as a context manager that gives the answer."""
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers["Accept-Encoding"] = "identity"
        url = URL(self._target + request.raw_path, encoded=True)
        return self._session.request(request.method, url, data=body or None, headers=headers)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if self._everything is not None:
                return await self._everything(Exchange(self, request, b"", 0))
            if request.query.get("watch") in ("true", "1"):
                return await self._watch(request)
            body = await request.read()
            counted = not request.headers.get("User-Agent", "").startswith("kopf/") and "/leases" not in request.path
            exchange = Exchange(self, request, body, len(self.exchanges) + 1 if counted else 0)
            fault: Fault | None = None
            if counted:
                self.exchanges.append(exchange)
                fault = self._rule(exchange)
            return await (fault or untouched)(exchange)
        except (aiohttp.ClientError, ConnectionError):
            _reset(request.transport)
            return web.Response(status=502)  # goes nowhere

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        async with self.upstream(request, b"") as answer:
            headers = {"Content-Type": answer.headers.get("Content-Type", "application/json")}
            if answer.status != 200:
                return web.Response(status=answer.status, body=await answer.read(), headers=headers)
            response = web.StreamResponse(headers=headers)
            response.enable_chunked_encoding()
            await response.prepare(request)
            self.opened.append(request.path)
            stream = _Stream(request.path)
            self._streams.add(stream)
            try:
                await self._pump(stream, answer.content, response)
            finally:
                self._streams.discard(stream)
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()  # nobody waits for the API server's goodbye
            return response

    async def _pump(self, stream: _Stream, source: aiohttp.StreamReader, response: web.StreamResponse) -> None:
        """Pass chunks on as they come, until either side ends or the test parts them."""
        while True:
            reading = asyncio.ensure_future(_next_chunk(stream, source))
            try:
                await asyncio.wait({reading, stream.parting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not reading.done():
                    reading.cancel()
            chunk = stream.parting.result() if stream.parting.done() else reading.result()
            if chunk:
                await response.write(chunk)
            if not chunk or stream.parting.done():
                return

    def _reset_all(self) -> None:
        assert self._runner.server is not None
        for connection in self._runner.server.connections:
            _reset(connection.transport)


async def _next_chunk(stream: _Stream, source: aiohttp.StreamReader) -> bytes:
    chunk = await source.readany()
    await stream.thawed.wait()
    return chunk


def _part(stream: _Stream, last: bytes) -> None:
    if not stream.parting.done():
        stream.parting.set_result(last)


def _reset(transport: asyncio.BaseTransport | None) -> None:
    """Close a connection by RST, so that the peer sees a reset and not an end."""
    if not isinstance(transport, asyncio.Transport):
        return
    plug = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
