"""Shows progress while a run goes on: at most every two seconds, and whenever the reason for being slow changes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from cutover.runner_messages.progress import Activity, Progress

INTERVAL: Final = 2.0
"""Seconds between two reports."""


class Reporter:
    """Gives progress to a sink, such as a ConfigMap or a terminal.

    Args:
        sink: takes what is to be shown; what it raises is its own affair, and ends nothing here.
        now: seconds that only rise.
    """

    def __init__(
        self, sink: Callable[[Progress], None] = lambda _: None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._sink, self._now = sink, now
        self._last = Progress()
        self._shown_at: float | None = None

    def show(self, progress: Progress) -> None:
        """Show it if it is time to, or if what it does or what slows it is another thing than before."""
        changed = (progress.activity, progress.slow) != (self._last.activity, self._last.slow)
        self._last = progress
        now = self._now()
        if changed or self._shown_at is None or now - self._shown_at >= INTERVAL:
            self._shown_at = now
            self._sink(replace(progress, heartbeat=datetime.now(UTC)))

    def waiting(self, activity: Activity) -> None:
        """The same figures, while something is waited for."""
        self.show(replace(self._last, activity=activity))

    def end(self) -> None:
        """Show the last figures, whenever the ones before were shown."""
        self._sink(replace(self._last, heartbeat=datetime.now(UTC)))
