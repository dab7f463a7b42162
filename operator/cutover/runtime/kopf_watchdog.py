"""Notices that Kopf has given up without ending, and raises: called by `app.py`, which then begins the streams anew.

Kopf ends when one of its own tasks fails, as on an error in a stream. It may hang in that: a stream that just logs in again waits for
an authenticator that has ended already (https://github.com/nolar/kopf/issues/1276 tells of operators without streams).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

_SAYS_SO: Final = "kopf._core.reactor.running"
"""Kopf's logger for tasks of its own that have failed; nothing else there is an error."""
_PATIENCE: Final = 10.0
"""Seconds; what still streams is closed within five."""


_AFTER_A_BREAK: Final = 1.0
"""Seconds until the streams are begun anew."""

log = logging.getLogger(__name__)


class Backoffs:
    """Kopf never gives a request up: that would end the process, and a new one would get no other answer."""

    def __iter__(self) -> Iterator[float]:
        """Seconds to wait before each further try."""
        return itertools.chain((0.5, 1.0, 2.0), itertools.repeat(4.0))


class KopfHung(Exception):
    """Kopf has given up, and does not end."""


class _FailureListener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Kopf logs in the thread of the loop."""
        del record
        self.said.set()


async def run_kopf_forever(kopf: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Kopf gives up on an error in a stream, which an API server sends that has lost its etcd; we begin anew."""
    while True:
        try:
            return await run_kopf(kopf())
        except Exception as broken:  # noqa: BLE001 -- what Kopf raises then is not public
            log.warning("the streams broke off, and are begun anew", extra={"why": str(broken)})
            await asyncio.sleep(_AFTER_A_BREAK)


async def run_kopf(kopf: Coroutine[Any, Any, None], patience: float = _PATIENCE) -> None:
    """Run Kopf to its end, and raise what it raises.

    Args:
        kopf: the operator, not begun yet.
        patience: seconds from a failure to the end.

    Raises:
        KopfHung: it has failed and did not end within that time. Its tasks are left as they are: they take no cancellation.
    """
    hears, logger = _FailureListener(), logging.getLogger(_SAYS_SO)
    running, said = asyncio.ensure_future(kopf), asyncio.ensure_future(hears.said.wait())
    logger.addHandler(hears)
    try:
        await asyncio.wait({running, said}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({running}, timeout=patience)
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait({running}, timeout=patience)
        raise
    finally:
        logger.removeHandler(hears)
        said.cancel()
    if not running.done():
        raise KopfHung(f"they did not end within {patience:g}s of a failure")
    running.result()


async def run_until_any_ends(*works: Coroutine[Any, Any, Any], patience: float) -> None:
    """Run all until one of them ends, which ends the others; raises what it raised.

    Args:
        works: what is run.
        patience: seconds that the others have to end in. Kopf may take longer to say goodbye to its streams; it writes
            nothing, so nobody waits for it.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=patience)
