"""Runs Kopf, and restarts it when it stops or hangs after an error in a stream. Called by app.py.

Kopf ends when one of its own tasks fails, for example on an error in a stream. It may hang in doing so: a stream that is just logging
in again waits for an authenticator that has already ended (https://github.com/nolar/kopf/issues/1276 reports operators without streams).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

_FAILURE_LOGGER: Final = "kopf._core.reactor.running"
"""Kopf's logger for failures of its own tasks; it logs no other error there."""
_PATIENCE: Final = 10.0
"""Seconds for Kopf to end after a failure; it closes its streams within five."""
_RESTART_PAUSE: Final = 1.0
"""Seconds before the streams are started again."""

log = logging.getLogger(__name__)


class Backoffs:
    """Makes Kopf retry a request forever: giving up would end the process, and a new one would fare no better."""

    def __iter__(self) -> Iterator[float]:
        """Seconds to wait before each retry."""
        return itertools.chain((0.5, 1.0, 2.0), itertools.repeat(4.0))


class KopfHung(Exception):
    """Kopf has failed and does not end."""


class _FailureListener(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.failed = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Kopf logs in the event loop's thread, so the event may be set here."""
        del record
        self.failed.set()


async def run_kopf_forever(kopf: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run Kopf, and start it again when it ends on an error in a stream, as an API server sends that has lost its etcd."""
    while True:
        try:
            return await run_kopf(kopf())
        except Exception as error:  # noqa: BLE001 -- what Kopf raises here is not public
            log.warning("the event streams broke and are started again", extra={"why": str(error)})
            await asyncio.sleep(_RESTART_PAUSE)


async def run_kopf(kopf: Coroutine[Any, Any, None], patience: float = _PATIENCE) -> None:
    """Run Kopf to its end, and raise what it raises.

    Args:
        kopf: the operator, not yet started.
        patience: seconds it may take from a failure to its end.

    Raises:
        KopfHung: it failed and did not end in that time. Its tasks are left running: they ignore cancellation.
    """
    listener, logger = _FailureListener(), logging.getLogger(_FAILURE_LOGGER)
    running, failed = asyncio.ensure_future(kopf), asyncio.ensure_future(listener.failed.wait())
    logger.addHandler(listener)
    try:
        # First until it ends or reports a failure, however long that takes; only then does the clock run.
        await asyncio.wait({running, failed}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({running}, timeout=patience)
    except asyncio.CancelledError:
        running.cancel()
        await asyncio.wait({running}, timeout=patience)
        raise
    finally:
        logger.removeHandler(listener)
        failed.cancel()
    if not running.done():
        raise KopfHung(f"Kopf did not end within {patience:g}s of a failure")
    running.result()


async def run_until_any_ends(*coroutines: Coroutine[Any, Any, Any], patience: float) -> None:
    """Run all until one of them ends, then cancel the others; raises what that one raised.

    Args:
        coroutines: what is run; started in this order.
        patience: seconds the others have to end. Kopf may need longer to close its streams; it writes nothing, so it is not
            waited for.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=patience)
