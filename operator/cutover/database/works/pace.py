"""How fast a backfill goes: the size of the next batch, pauses, VACUUM in between, and what is shown of all that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from cutover.database.engines.base import Filler, Session
from cutover.database.reporting import Reporter
from cutover.database.works.transactions import Clock, Transactions
from cutover.runner_messages.payload import BATCH_SIZES, BackfillWork
from cutover.runner_messages.progress import Activity, Progress, Slow

_FLOOR, _CEILING = 100, 20_000
"""Rows; a batch is steered between them, unless its author gave a size beyond."""
_LEAST_TIDIED: Final = 10_000
"""Rows changed, below which a VACUUM is not worth its scan."""
_CHECKED_EVERY: Final = 1.0
"""Seconds between two looks at what may throttle, and the length of a pause while it does."""
_SMOOTH: Final = 0.3
"""The weight of the last batch in the rate that is shown."""


class Pace:
    """Measures batches and decides about the next one.

    Attributes:
        size: rows of the next batch.
    """

    def __init__(self, work: BackfillWork, session: Session, reporter: Reporter, clock: Clock) -> None:
        self._work, self._session, self._reporter, self._clock = work, session, reporter, clock
        self.size = min(work.batch_size, work.max_rows_per_second or BATCH_SIZES[1])
        self._least, self._most = min(_FLOOR, self.size), max(_CEILING, self.size)
        if work.max_rows_per_second is not None:
            self._most = min(self._most, work.max_rows_per_second)
        self._progress = Progress(batch_size=self.size)
        self._untidy = 0
        self._looked_at: float | None = None

    def begin(self, rows: int, total: int, activity: Activity) -> None:
        """Ranges begin, or go on after so many rows."""
        self._progress = replace(self._progress, rows=rows, total=total, activity=activity)
        self._reporter.show(self._progress)

    def doing(self, activity: Activity) -> None:
        """Something else begins."""
        self._progress = replace(self._progress, activity=activity)
        self._reporter.show(self._progress)

    def locked(self) -> None:
        """A row was locked by somebody for longer than we may wait: a smaller batch meets fewer of them."""
        self.size = max(self._least, self.size // 2)
        self._progress = replace(self._progress, slow=Slow.LOCKS)

    @contextmanager
    def batch(self, transactions: Transactions) -> Iterator[Callable[[int], None]]:
        """Around one batch: waits until it may begin, measures it, and pauses afterwards."""
        self._wait_until_it_may(transactions)
        begun, changed = self._clock.now(), [0]
        waits = transactions.lock_waits
        yield lambda rows: changed.__setitem__(0, rows)
        took = max(self._clock.now() - begun, 1e-6)
        if transactions.lock_waits == waits:  # a time spent waiting says nothing about the size
            self._steer(took)
        self._untidy += changed[0]
        pause, why = self._pause(changed[0], took)
        rate = changed[0] / (took + pause)
        last = self._progress
        self._progress = replace(
            last,
            rows=last.rows + changed[0],
            rate=rate if not last.rate else last.rate * (1 - _SMOOTH) + rate * _SMOOTH,
            batch_size=self.size,
            slow=why,
            lock_waits=transactions.lock_waits,
            throttled_seconds=last.throttled_seconds + pause,
        )
        self._reporter.show(self._progress)
        if pause:
            self._clock.sleep(pause)

    def _steer(self, took: float) -> None:
        target = self._work.target_batch_time.total_seconds()
        if target:
            factor = min(2.0, max(0.5, target / took))
            self.size = int(min(self._most, max(self._least, self.size * factor)))

    def _pause(self, rows: int, took: float) -> tuple[float, Slow]:
        delay, most = self._work.delay.total_seconds(), self._work.max_rows_per_second
        limited = max(0.0, rows / most - took) if most else 0.0
        if limited > delay:
            return limited, Slow.RATE
        return delay, Slow.DELAY if delay else Slow.NOT

    # --- throttling ---------------------------------------------------------------------------------------------------

    def _wait_until_it_may(self, transactions: Transactions) -> None:
        throttle = self._work.throttle
        if throttle.max_replica_lag is None and throttle.query is None:
            return
        if self._looked_at is not None and self._clock.now() - self._looked_at < _CHECKED_EVERY:
            return
        while (why := transactions.alone(self._throttled)) is not Slow.NOT:
            paused = self._progress.throttled_seconds + _CHECKED_EVERY
            self._progress = replace(self._progress, slow=why, throttled_seconds=paused)
            self._reporter.show(self._progress)
            self._clock.sleep(_CHECKED_EVERY)
        self._looked_at = self._clock.now()

    def _throttled(self) -> Slow:
        throttle = self._work.throttle
        if throttle.max_replica_lag is not None:
            lag = self._session.lag()
            if lag is None and throttle.lag_unknown == "pause":
                return Slow.LAG_UNKNOWN
            if lag is not None and lag > throttle.max_replica_lag:
                return Slow.LAG
        return Slow.QUERY if throttle.query and self._session.throttled(throttle.query) else Slow.NOT

    # --- room -----------------------------------------------------------------------------------------------------------

    def tidy_if_due(self, filler: Filler, transactions: Transactions) -> None:
        """VACUUM after each so many percent of the table, so that the next rows find the room of the last."""
        share = self._work.vacuum_every * max(self._progress.total, 1) // 100
        if self._work.vacuum_every and self._untidy >= max(_LEAST_TIDIED, share):
            self._untidy = 0
            before = self._progress.activity
            self.doing(Activity.VACUUMING)
            transactions.alone(filler.tidy)
            self.doing(before)
