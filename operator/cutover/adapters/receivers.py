"""Hands a message to the receivers behind apprise URLs, in a thread of its own. It alone knows apprise and the URLs.

A URL holds credentials: neither it nor what a receiver answers ever gets into a log or a status.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import apprise

from cutover.ports import Message

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # what it says may quote a URL, or an answer


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """How sending over went.

    Attributes:
        left: URLs of the receivers that did not take it.
        trouble: why, in words of ours; empty when all took it.
    """

    left: tuple[str, ...] = ()
    trouble: str = ""


def deliver(file: Path, message: Message, left: tuple[str, ...] = ()) -> DeliveryReport:
    """Hand a message to every receiver, or to those left from an earlier try. Blocks; never raises.

    The file is read each time, because a mounted Secret changes without notice.
    """
    try:
        urls = left or urls_of(file.read_text())
    except (OSError, ValueError):
        return DeliveryReport(trouble="its file of URLs cannot be read")
    if not urls:
        return DeliveryReport(trouble="there is no URL in its file")
    unknown, refused = [], []
    for url in urls:
        took = _accepts(url, message)
        if took is None:
            unknown.append(url)
        elif not took:
            refused.append(url)
    says = [f"{len(unknown)} of its URLs are none that apprise knows"] if unknown else []
    says += [f"{len(refused)} of {len(urls)} receivers did not take it"] if refused else []
    return DeliveryReport((*unknown, *refused), " and ".join(says))


def urls_of(text: str) -> tuple[str, ...]:
    """One URL a line; empty lines and comments are passed over."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _accepts(url: str, message: Message) -> bool | None:
    """Whether the receiver took it; None when apprise does not know the URL."""
    kind = apprise.NotifyType(message.tone)
    try:
        receiver = apprise.Apprise.instantiate(url)
        return (
            None
            if receiver is None
            else bool(receiver.notify(body=message.text, title=message.title, notify_type=kind))
        )
    except Exception:  # noqa: BLE001 -- some hundred plugins; one that breaks has not delivered it, and its text may quote the URL
        return False


def in_thread(work: Callable[[], DeliveryReport]) -> asyncio.Future[DeliveryReport]:
    """Run what blocks beside the loop, in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[DeliveryReport] = loop.create_future()

    def settle(report: DeliveryReport) -> None:
        if not future.done():
            future.set_result(report)

    def run() -> None:
        report = work()
        with suppress(RuntimeError):  # the loop is closed: the process ends
            loop.call_soon_threadsafe(settle, report)

    threading.Thread(target=run, name="message", daemon=True).start()
    return future
