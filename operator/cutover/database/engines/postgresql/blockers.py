"""Who has the lock that we wait for, asked on a second connection while we wait: afterwards nobody knows."""

from __future__ import annotations

import threading
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
_QUERY: Final = """
SELECT s.pid, s.application_name, extract(epoch FROM now() - coalesce(s.xact_start, s.query_start, s.backend_start)), s.state
FROM unnest(pg_catalog.pg_blocking_pids($1::int)) AS b(pid) JOIN pg_catalog.pg_stat_activity AS s USING (pid)
ORDER BY 3 DESC LIMIT $2::int
"""


class Watch:
    """Finds the sessions that block ours, when one of our statements takes long enough to be waiting."""

    def __init__(self, connect: Callable[[], Connection], timeout: timedelta) -> None:
        self._connect, self._after = connect, timeout.total_seconds() * _ASKED
        self._beside: Connection | None = None
        self.found: Sequence[Blocker] = ()

    @contextmanager
    def over(self, pid: int) -> Iterator[None]:
        """Watch a statement of the session with this pid."""
        self.found = ()
        timer = threading.Timer(self._after, self._ask, (pid,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

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
        """Drop the second connection."""
        if self._beside is not None:
            self._beside.close()
