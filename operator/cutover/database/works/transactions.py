"""Runs a transaction again, as a whole, where a lock was not to be had or the connection broke; within a budget.

Never a savepoint: a lock that is already ours would be kept while we wait. The journal's row is read in each try, so a COMMIT
whose answer was lost is not repeated.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, TypeVar

from cutover.database.engines.base import Session, Transaction
from cutover.database.journal import Claim, StepRow
from cutover.database.outcome import ConnectionBroken, Ended, LockNotGranted
from cutover.runner_messages.payload import LockRetries
from cutover.runner_messages.progress import Activity
from cutover.runner_messages.result import Result

log = logging.getLogger("cutover.database")
T = TypeVar("T")
_RECONNECT: Final = timedelta(seconds=60)
"""How long a server may be away; after that the pod ends, and Kubernetes decides about another one."""


@dataclass
class Clock:
    """Time, as the runner sees it; a test has its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Transactions:
    """All transactions of one run.

    Attributes:
        lock_waits: how many times a lock was not to be had in time.
    """

    def __init__(
        self,
        session: Session,
        retries: LockRetries,
        clock: Clock,
        waiting: Callable[[Activity], None] = lambda _: None,
    ) -> None:
        self.session, self._retries, self._clock, self._waiting = session, retries, clock, waiting
        self.lock_waits = 0

    def run(
        self,
        work: Callable[[Transaction], T],
        *,
        read_only: bool = False,
        durable: bool = True,
        on_wait: Callable[[], None] = lambda: None,
    ) -> T:
        """Run a work in one transaction, and commit it.

        Args:
            work: is called again, from its beginning, when its transaction did not come to its end.
            read_only: the server refuses its writes.
            durable: whether the commit waits for the disk.
            on_wait: called when a lock was not to be had, before the next try.

        Raises:
            Ended: the budget is used up, the server is gone, or the work says so.
        """
        tries, begun, gone = 0, self._clock.now(), 0.0
        while True:
            try:
                with self.session.transaction(read_only=read_only, durable=durable) as tx:
                    return work(tx)
            except LockNotGranted as refused:
                tries += 1
                self.lock_waits += 1
                self._pause(tries, begun, refused.result)
                on_wait()
            except ConnectionBroken as broken:
                gone = gone or self._clock.now()
                self._connect_again(gone, broken.result)

    def alone(self, call: Callable[[], T]) -> T:
        """Call what is no transaction, with another connection when this one breaks. Raises Ended."""
        gone = 0.0
        while True:
            try:
                return call()
            except ConnectionBroken as broken:
                gone = gone or self._clock.now()
                self._connect_again(gone, broken.result)

    def statistics(self, make: Callable[[], object]) -> None:
        """Make them, where they can be made: what was done is done, also where an index keeps ANALYZE from its end."""
        try:
            make()
        except Ended as ended:
            log.warning("statistics were not made: %s", ended)

    def claim_first(self, claim: Claim) -> StepRow:
        """In a transaction of its own, so that an earlier attempt that still waits for locks stops at its next try."""
        self.alone(self.session.prepare)
        return self.run(lambda tx: tx.claim(claim))

    def _pause(self, tries: int, begun: float, result: Result) -> None:
        retries = self._retries
        over = self._clock.now() - begun >= retries.deadline.total_seconds()
        if tries >= retries.max_attempts or over:
            details = replace(result, lock_waits=tries)
            raise Ended(details)
        self._waiting(Activity.LOCKING)
        longest = min(retries.max_backoff.total_seconds(), retries.backoff.total_seconds() * 2 ** min(tries - 1, 16))
        self._clock.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 -- spreads tries, guards nothing

    def _connect_again(self, gone: float, result: Result) -> None:
        while True:
            if self._clock.now() - gone >= _RECONNECT.total_seconds():
                raise Ended(result)
            self._clock.sleep(random.uniform(0.25, 0.75))  # noqa: S311 -- as above
            try:
                self.session.reconnect()
            except ConnectionBroken as broken:
                result = broken.result
            else:
                return
