"""Which work of which kind a payload asks for. The same for every engine, and for the double of the tests."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from cutover.database.engines.base import Engine, Session
from cutover.database.journal import Claim
from cutover.database.outcome import ConnectionBroken, Ended, LockNotGranted
from cutover.database.reporting import Reporter
from cutover.database.works.backfill import Backfill
from cutover.database.works.pace import Pace
from cutover.database.works.schema import Schema
from cutover.database.works.transactions import Clock, Transactions
from cutover.database.works.validate import Validate
from cutover.errors import Broken
from cutover.runner_messages.payload import Direction, Payload
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

log = logging.getLogger("cutover.database")


def carry_out(
    payload: Payload, engine: Engine, session: Session, reporter: Reporter, clock: Clock | None = None
) -> Result:
    """Do what a payload says.

    Raises:
        Ended: why not.
        ConnectionBroken: the server went away, and has not come back.
    """
    clock = clock or Clock()
    transactions = Transactions(session, payload.database.lock_retries, clock, reporter.waiting)
    try:
        result = _of_direction(payload, engine, transactions, reporter, clock)
    finally:
        reporter.end()
    return replace(result, lock_waits=transactions.lock_waits)


def ended(call: Callable[[], Result]) -> Result:
    """The result of a run, however it ends; nothing is raised."""
    begun = time.monotonic()
    try:
        result = call()
    except (Ended, ConnectionBroken, LockNotGranted) as end:
        result = end.result
    except KeyboardInterrupt:  # Stopped is one
        result = Result(RunnerReason.INTERRUPTED)
    except Exception as error:
        log.exception("the runner failed")
        result = Result(RunnerReason.UNEXPECTED, names=(type(error).__name__,))
    return replace(result, seconds=round(time.monotonic() - begun, 3))


def _of_direction(
    payload: Payload, engine: Engine, transactions: Transactions, reporter: Reporter, clock: Clock
) -> Result:
    work = work_of(payload, engine, transactions, reporter, clock)
    match payload.direction:
        case Direction.UP:
            return work.up()
        case Direction.DOWN:
            return work.down()
        case Direction.VALIDATE:
            return work.validate()
        case Direction.VERIFY:
            return work.verify()
        case Direction.PREFLIGHT:
            problems = [*transactions.session.problems(writes=True), *work.problems()]
            return Result.of_all(problems) if problems else Result(RunnerReason.DONE)


def work_of(
    payload: Payload, engine: Engine, transactions: Transactions, reporter: Reporter, clock: Clock
) -> Schema | Validate | Backfill:
    """The work of its kind."""
    claim = Claim.of(payload)
    if payload.schema_ is not None:
        return Schema(payload.schema_, claim, engine, transactions)
    if payload.backfill is not None:
        pace = Pace(payload.backfill, transactions.session, reporter, clock)
        return Backfill(payload.backfill, claim, engine, transactions, pace)
    if payload.validate_ is None:
        raise Broken("a payload has exactly one kind")
    return Validate(payload.validate_, claim, engine, transactions)
