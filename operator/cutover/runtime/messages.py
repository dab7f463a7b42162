"""Sends messages in the background: one queue per provider, a few attempts per message. The port `Messenger`.

A provider has one thread at most, so one that hangs delays only its own messages. Called by app.py; notify steps and notifier.py post here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cutover.adapters.receivers import DeliveryReport, deliver, in_thread
from cutover.messaging import Delivery, Message
from cutover.settings.settings import NotifyProvider

log = logging.getLogger(__name__)

_QUEUE_SIZE: Final = 512
"""Messages waiting for one provider, at most."""
_REMEMBERED_KEYS: Final = 2048
"""Keys of posted messages that are remembered, at most; a key is asked for again within seconds, or never."""
_PAUSES: Final = (1.0, 2.0)
"""Seconds between two attempts; there is one attempt more than pauses."""


@dataclass(slots=True)
class _QueuedMessage:
    """A message waiting to be delivered.

    Attributes:
        expires: when delivery is abandoned, by the event loop's clock.
        undelivered: URLs of the receivers that have not accepted it; empty before the first attempt, which goes to all.
    """

    message: Message
    expires: float
    delivery: Delivery = field(default_factory=Delivery)
    undelivered: tuple[str, ...] = ()


class Messages:
    """The port `Messenger`.

    Args:
        providers: by name.
        on_end: called for every message with its provider and whether it was delivered.
    """

    def __init__(self, providers: Mapping[str, NotifyProvider], on_end: Callable[[str, bool], None]) -> None:
        self._providers, self._on_end = dict(providers), on_end
        self._waiting: dict[str, asyncio.Queue[_QueuedMessage]] = {
            name: asyncio.Queue(_QUEUE_SIZE) for name in providers
        }
        self._current: dict[str, _QueuedMessage] = {}
        self._threads: dict[str, tuple[_QueuedMessage, asyncio.Future[DeliveryReport]]] = {}
        self._posted: OrderedDict[Hashable, Delivery] = OrderedDict()

    def knows(self, provider: str) -> bool:
        """Whether a provider of this name is configured."""
        return provider in self._providers

    def names(self) -> Sequence[str]:
        """Names of all providers."""
        return sorted(self._providers)

    def delivery(self, key: Hashable) -> Delivery | None:
        """The delivery of what was posted under a key."""
        return self._posted.get(key)

    def post(self, provider: str, message: Message, patience: float, key: Hashable = None) -> Delivery:
        """Send a message in the background, once per key."""
        if key is not None and (known := self._posted.get(key)):
            return known
        delivery = self._post(provider, message, patience)
        if key is not None:
            self._posted[key] = delivery
            if len(self._posted) > _REMEMBERED_KEYS:
                self._posted.popitem(last=False)
        return delivery

    def _post(self, provider: str, message: Message, patience: float) -> Delivery:
        queued = _QueuedMessage(message, asyncio.get_running_loop().time() + patience)
        if provider not in self._providers:
            queued.delivery.over, queued.delivery.error = True, "no such provider is configured"
            return queued.delivery
        try:
            self._waiting[provider].put_nowait(queued)
        except asyncio.QueueFull:
            self._end(provider, queued, "too many messages are queued for it")
        return queued.delivery

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._providers:
                group.create_task(self._send_all(name))
            await asyncio.Event().wait()

    async def _send_all(self, name: str) -> None:
        while True:
            queued = self._current[name] = await self._waiting[name].get()
            self._end(name, queued, await self._deliver(name, queued))
            del self._current[name]

    async def flush(self) -> None:
        """At shutdown: wait for the message being sent, and try each queued one once."""
        await asyncio.gather(*map(self._flush, self._providers))

    async def _flush(self, name: str) -> None:
        # The interrupted message first: its thread may still be running, and there is never a second one.
        if queued := self._current.pop(name, None):
            self._end(name, queued, await self._try(name, queued))
        while not self._waiting[name].empty():
            queued = self._waiting[name].get_nowait()
            self._end(name, queued, await self._try(name, queued))

    async def _deliver(self, name: str, queued: _QueuedMessage) -> str:
        """Why it was not delivered; empty when it was."""
        clock = asyncio.get_running_loop().time
        problem = await self._try(name, queued)
        for pause in _PAUSES:
            if not problem or clock() + pause >= queued.expires:
                break
            await asyncio.sleep(pause)
            problem = await self._try(name, queued)
        return problem

    async def _try(self, name: str, queued: _QueuedMessage) -> str:
        provider = self._providers[name]
        now = asyncio.get_running_loop().time()
        if now >= queued.expires:
            return "it expired while it was queued"
        try:
            async with asyncio.timeout(min(provider.timeout, queued.expires - now)):
                # A thread cannot be stopped, so an earlier one is waited for: there is never a second one.
                while name in self._threads:
                    sent, report = await self._report(name)
                    if sent is queued:  # an earlier attempt timed out before its thread was done
                        return report.problem
                sending = in_thread(lambda: deliver(provider.url_file, queued.message, queued.undelivered))
                self._threads[name] = queued, sending
                return (await self._report(name))[1].problem
        except TimeoutError:
            return f"no answer within {provider.timeout:g}s"

    async def _report(self, name: str) -> tuple[_QueuedMessage, DeliveryReport]:
        """Wait for a provider's thread: the message it sent, and the report."""
        queued, sending = self._threads[name]
        report = await asyncio.shield(sending)
        self._threads.pop(name, None)
        queued.undelivered = report.undelivered
        return queued, report

    def _end(self, name: str, queued: _QueuedMessage, problem: str) -> None:
        queued.delivery.error, queued.delivery.over = problem, True
        self._on_end(name, not problem)
        if problem:
            log.warning("a message was not delivered", extra={"provider": name, "why": problem})
