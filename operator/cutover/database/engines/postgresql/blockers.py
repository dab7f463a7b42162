"""Who has the lock that we wait for, asked on a second connection while we wait: afterwards nobody knows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import psycopg

from cutover.database.engines.postgresql.connecting import Connection
from cutover.database.outcome import ConnectionBroken, Ended
from cutover.runner_messages.result import Blocker, identifier

_MOST: Final = 8
_ASKED: Final = 0.6
"""Of the lock's timeout: late enough to be a real wait, early enough to have the answer in time."""
_OFTEN: Final = 0.2
"""Of that: how often it is looked."""
_LEAST: Final = 0.01
"""Seconds between two looks, at least."""
_QUERY: Final = """
SELECT s.pid, s.application_name, extract(epoch FROM now() - coalesce(s.xact_start, s.query_start, s.backend_start)), s.state
FROM unnest(pg_catalog.pg_blocking_pids($1::int)) AS b(pid) JOIN pg_catalog.pg_stat_activity AS s USING (pid)
ORDER BY 3 DESC LIMIT $2::int
"""


class Watch:
    """Finds the sessions that block ours, when one of our statements takes long enough to be waiting.

    One thread looks every now and then whether a statement has taken that long: a timer for each statement would be a new thread for
    each, and most take a millisecond.
    """

    def __init__(self, connect: Callable[[], Connection], timeout: timedelta) -> None:
        self._connect, self._after = connect, timeout.total_seconds() * _ASKED
        self._beside: Connection | None = None
        self._lock = threading.Lock()
        self._statement: tuple[int, float] | None = None  # of which session, and since when
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self.found: Sequence[Blocker] = ()

    @contextmanager
    def over(self, pid: int) -> Iterator[None]:
        """Watch a statement of the session with this pid; afterwards what was found is complete."""
        with self._lock:
            self.found, self._statement = (), (pid, time.monotonic())
        self._begin()
        try:
            yield
        finally:
            with self._lock:  # waits for an answer that is under way
                self._statement = None

    def _begin(self) -> None:
        if self._thread is None:
            self._closed.clear()
            self._thread = threading.Thread(target=self._look, daemon=True)
            self._thread.start()

    def _look(self) -> None:
        while not self._closed.wait(max(self._after * _OFTEN, _LEAST)):
            with self._lock:
                if self._statement is not None and time.monotonic() - self._statement[1] >= self._after:
                    pid, _ = self._statement
                    self._statement = None  # asked once
                    self._ask(pid)

    def _ask(self, pid: int) -> None:
        try:
            if self._beside is None or self._beside.closed:
                self._beside = self._connect()
            rows = self._beside.execute(_QUERY, (pid, _MOST)).fetchall()
        except (psycopg.Error, Ended, ConnectionBroken):
            return  # it only explains
        self.found = [
            Blocker(pid, identifier(name), float(age or 0), identifier(state)) for pid, name, age, state in rows
        ]

    def close(self) -> None:
        """Drop the second connection; the next statement makes another one where it needs to."""
        if self._thread is not None:
            self._closed.set()
            self._thread.join()
            self._thread = None
        if self._beside is not None:
            self._beside.close()
