"""Sends messages to people in the background: a queue a provider, a few tries each, given up in the end. The port `Messenger`.

A provider has one thread at most: one that hangs holds up its own messages and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cutover.adapters.receivers import DeliveryReport, deliver, in_thread
from cutover.ports import Delivery, Message
from cutover.settings.settings import NotifyProvider

log = logging.getLogger(__name__)

_ROOM: Final = 512
"""Messages of one provider that wait, at most."""
_REMEMBERED: Final = 2048
"""Messages posted under a key that are told from new ones, at most; they are asked for again within seconds, or never."""
_PAUSES: Final = (1.0, 2.0)
"""Seconds from one try to the next; there is one try more than pauses."""


@dataclass(slots=True)
class _QueuedMessage:
    """One message on its way.

    Attributes:
        expires: when it is given up, by the loop's clock.
        left: URLs of the receivers that have not taken it; empty before the first try, and then it goes to all.
    """

    message: Message
    expires: float
    delivery: Delivery = field(default_factory=Delivery)
    left: tuple[str, ...] = ()


class Messages:
    """The port `Messenger`.

    Args:
        providers: by name.
        told: hears the provider of every message, and whether it was delivered.
    """

    def __init__(self, providers: Mapping[str, NotifyProvider], told: Callable[[str, bool], None]) -> None:
        self._providers, self._told = dict(providers), told
        self._waiting: dict[str, asyncio.Queue[_QueuedMessage]] = {name: asyncio.Queue(_ROOM) for name in providers}
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
        """What was posted under a key."""
        return self._posted.get(key)

    def post(self, provider: str, message: Message, patience: float, key: Hashable = None) -> Delivery:
        """Send a message in the background, once a key."""
        if key is not None and (known := self._posted.get(key)):
            return known
        delivery = self._post(provider, message, patience)
        if key is not None:
            self._posted[key] = delivery
            if len(self._posted) > _REMEMBERED:
                self._posted.popitem(last=False)
        return delivery

    def _post(self, provider: str, message: Message, patience: float) -> Delivery:
        queued = _QueuedMessage(message, asyncio.get_running_loop().time() + patience)
        if provider not in self._providers:
            queued.delivery.over, queued.delivery.trouble = True, "there is no such provider"
            return queued.delivery
        try:
            self._waiting[provider].put_nowait(queued)
        except asyncio.QueueFull:
            self._end(provider, queued, "too many messages are waiting")
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
        """At the end of the process: wait for what is under way, and try what still waits, once."""
        await asyncio.gather(*map(self._flush, self._providers))

    async def _flush(self, name: str) -> None:
        if queued := self._current.pop(name, None):
            self._end(name, queued, await self._try(name, queued))
        while not self._waiting[name].empty():
            queued = self._waiting[name].get_nowait()
            self._end(name, queued, await self._try(name, queued))

    async def _deliver(self, name: str, queued: _QueuedMessage) -> str:
        """Why it was given up; empty when it was delivered."""
        clock = asyncio.get_running_loop().time
        trouble = await self._try(name, queued)
        for pause in _PAUSES:
            if not trouble or clock() + pause >= queued.expires:
                break
            await asyncio.sleep(pause)
            trouble = await self._try(name, queued)
        return trouble

    async def _try(self, name: str, queued: _QueuedMessage) -> str:
        provider = self._providers[name]
        now = asyncio.get_running_loop().time()
        if now >= queued.expires:
            return "the messages before it took too long"
        try:
            async with asyncio.timeout(min(provider.timeout, queued.expires - now)):
                while name in self._threads:  # a thread cannot be ended, so there is never a second one
                    whose, report = await self._report(name)
                    if whose is queued:  # what an earlier try has begun and did not live to see
                        return report.trouble
                sending = in_thread(lambda: deliver(provider.url_file, queued.message, queued.left))
                self._threads[name] = queued, sending
                return (await self._report(name))[1].trouble
        except TimeoutError:
            return f"there was no answer within {provider.timeout:g}s"

    async def _report(self, name: str) -> tuple[_QueuedMessage, DeliveryReport]:
        """Wait for the thread of a provider: what it carried, and what became of it."""
        queued, sending = self._threads[name]
        report = await asyncio.shield(sending)
        self._threads.pop(name, None)
        queued.left = report.left
        return queued, report

    def _end(self, name: str, queued: _QueuedMessage, trouble: str) -> None:
        queued.delivery.trouble, queued.delivery.over = trouble, True
        self._told(name, not trouble)
        if trouble:
            log.warning("a message was not delivered", extra={"provider": name, "why": trouble})
