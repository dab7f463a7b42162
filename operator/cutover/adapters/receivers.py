"""Delivers a message to the receivers behind apprise URLs, in a thread of its own. Called by runtime/messages.py.

Only this file knows apprise and the URLs. A URL holds credentials: neither it nor a receiver's answer ever reaches a log or a status.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apprise

from cutover.messaging import Message

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its messages may quote a URL or an answer

# A message goes to the server that the administrator named, and to no other that this one names; `?redirect=yes` in the URL allows it.
_ASSET: Final = apprise.AppriseAsset(http_redirects=False)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """What became of one attempt.

    Attributes:
        undelivered: URLs of the receivers that did not accept it.
        problem: why, in our own words; empty when all accepted it.
    """

    undelivered: tuple[str, ...] = ()
    problem: str = ""


def deliver(file: Path, message: Message, undelivered: tuple[str, ...] = ()) -> DeliveryReport:
    """Send a message to every receiver, or to those left from an earlier attempt. Blocks; never raises.

    The file is read each time, because a mounted Secret changes without notice.
    """
    try:
        urls = undelivered or urls_of(file.read_text())
    except (OSError, ValueError):
        return DeliveryReport(problem="its URL file cannot be read")
    if not urls:
        return DeliveryReport(problem="its URL file contains no URL")
    unknown, refused = [], []
    for url in urls:
        accepted = _accepts(url, message)
        if accepted is None:
            unknown.append(url)
        elif not accepted:
            refused.append(url)
    problems = [f"{len(unknown)} of its URLs are not known to apprise"] if unknown else []
    problems += [f"{len(refused)} of {len(urls)} receivers did not accept it"] if refused else []
    return DeliveryReport((*unknown, *refused), " and ".join(problems))


def urls_of(text: str) -> tuple[str, ...]:
    """One URL per line; empty lines and comments are skipped."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _accepts(url: str, message: Message) -> bool | None:
    """Whether the receiver accepted it; None when apprise does not know the URL."""
    # Plain text: without it apprise takes the text for what the receiver shows, and a plan could put links into a mail in HTML.
    how = {"notify_type": apprise.NotifyType(message.tone), "body_format": apprise.NotifyFormat.TEXT}
    try:
        receiver = apprise.Apprise.instantiate(url, asset=_ASSET)
        return None if receiver is None else bool(receiver.notify(body=message.text, title=message.title, **how))
    except Exception:  # noqa: BLE001 -- any of a hundred plugins may raise anything; its text may quote the URL
        return False


def in_thread(work: Callable[[], DeliveryReport]) -> asyncio.Future[DeliveryReport]:
    """Run blocking work in a daemon thread, which does not keep the process from exiting."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[DeliveryReport] = loop.create_future()

    def settle(report: DeliveryReport) -> None:
        if not future.done():
            future.set_result(report)

    def run() -> None:
        report = work()
        with suppress(RuntimeError):  # the loop is closed: the process is exiting
            loop.call_soon_threadsafe(settle, report)

    threading.Thread(target=run, name="message", daemon=True).start()
    return future
