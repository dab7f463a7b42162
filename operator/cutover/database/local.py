"""Runs a step's work from a person's machine: the same work and the same journal as in a Job, without a cluster.

There is no operator that counts fences, so the journal does: whoever begins takes the next number, and whoever was at it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from cutover.database.engines.base import Made
from cutover.database.engines.postgresql.engine import Postgresql, opened
from cutover.database.journal import Claim
from cutover.database.outcome import ConnectionBroken, Ended, LockNotGranted
from cutover.database.reporting import Reporter
from cutover.database.run import carry_out, ended, work_of
from cutover.database.works.shown import Outlook
from cutover.database.works.transactions import Clock, Transactions
from cutover.runner_messages.payload import Direction, Payload
from cutover.runner_messages.progress import Progress
from cutover.runner_messages.result import Result


class Local:
    """One step in one database.

    Args:
        payload: its work.
        url: of the database.
    """

    def __init__(self, payload: Payload, url: str) -> None:
        self._payload, self._url = payload, url

    def run(self, sink: Callable[[Progress], None]) -> Result:
        """Do it; nothing is raised. Progress goes to the sink."""
        return ended(lambda: self._run(sink))

    def _run(self, sink: Callable[[Progress], None]) -> Result:
        with self._transactions() as (engine, transactions):
            row = transactions.run(lambda tx: tx.look(Claim.of(self._payload).key), read_only=True)
            number = (row.fence if row is not None else 0) + 1
            payload = self._payload.model_copy(update={"fence": number, "attempt": number})
            return carry_out(payload, engine, transactions.session, Reporter(sink))

    def outlook(self, made: Made) -> tuple[Outlook, Made]:
        """What it would do after scripts that make something, and what is made after its own."""
        try:
            return self._outlook(made)
        except (Ended, ConnectionBroken, LockNotGranted) as end:
            return Outlook(problems=[end.result]), made

    def _outlook(self, made: Made) -> tuple[Outlook, Made]:
        with self._transactions() as (engine, transactions):
            work = work_of(self._payload, engine, transactions, Reporter(), Clock())
            row = transactions.run(lambda tx: tx.look(Claim.of(self._payload).key), read_only=True)
            if row is not None and row.finished and row.direction is self._payload.direction:
                return Outlook(version=transactions.session.version, done=True), made
            if row is None and self._payload.direction is Direction.DOWN:
                return Outlook(version=transactions.session.version), made  # it never began, and nothing is undone
            outlook, session = work.outlook(self._payload.direction, made), transactions.session
            writes = self._payload.direction in (Direction.UP, Direction.DOWN)
            problems = [*session.problems(writes=writes), *outlook.problems]
            return replace(outlook, problems=problems, version=session.version), made | work.makes()

    @contextmanager
    def _transactions(self) -> Iterator[tuple[Postgresql, Transactions]]:
        with opened(self._payload, self._url) as (engine, session):
            yield engine, Transactions(session, self._payload.database.lock_retries, Clock())
