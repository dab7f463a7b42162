"""The transactions of a backfill: where its ranges end, one range after the other, the sweep, and the end.

Each row is changed exactly once: the cursor moves in the transaction that changes the rows, and is read from the locked row at
the beginning of the next. So a runner that was killed, or another one beside it, goes on where the database is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cutover.database.engines.base import Filled, Filler, Range, Transaction
from cutover.database.journal import Claim, Entry, StepRow
from cutover.database.outcome import Ended
from cutover.database.works.pace import Pace
from cutover.database.works.transactions import Transactions
from cutover.runner_messages.payload import BackfillWork, Direction
from cutover.runner_messages.progress import Activity
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

_SWEEPS: Final = 20
"""Passes over rows that fail `verify`; more of them means that the application writes them as fast."""


class Filling:
    """One step's way there, or back.

    Args:
        work: its fields.
        claim: who does it.
        digest: of the fields that a cursor depends on.
        transactions: run what is done.
        pace: how fast it goes.
    """

    def __init__(self, work: BackfillWork, claim: Claim, digest: str, transactions: Transactions, pace: Pace) -> None:
        self._work, self._claim, self._digest = work, claim, digest
        self._transactions, self._pace = transactions, pace

    def same(self, row: StepRow) -> None:
        """A cursor means something only for the fields that moved it. Raises Ended: they are others."""
        if row.direction is Direction.UP and row.digest not in ("", self._digest):
            raise Ended(Result(RunnerReason.SCRIPT_CHANGED, "backfill"))

    def begin(self, filler: Filler) -> StepRow:
        """Save where the ranges end: rows that are written later are the sweep's."""

        def work(tx: Transaction) -> StepRow:
            row = tx.claim(self._claim)
            self.same(row)
            if row.direction is Direction.UP and row.digest:
                return row  # another runner began it, or this one before its connection broke
            bound = filler.last_key(tx)
            if not self._work.allow_empty and self._work.where and not filler.matches(tx):
                raise Ended(Result(RunnerReason.MATCHES_NOTHING, "backfill.where", number=filler.unverified(tx)))
            row = StepRow(Direction.UP, fence=self._claim.fence, digest=self._digest, bound=bound)
            tx.save(self._claim, row)
            return row

        return self._transactions.run(work)

    def turn(self, filler: Filler | None) -> StepRow:
        """Save that it goes back from where it had come to; whose answer was lost finds it turned.

        No filler: it had not begun when it was looked at, and its table may not even have the columns.
        """

        def work(tx: Transaction) -> StepRow:
            row = tx.claim(self._claim)
            if row.direction is Direction.UP:
                bound = row.cursor
                if row.digest and row.cursor == row.bound:  # at its end, where rows above the bound were swept too
                    # Without a filler it has begun since.
                    known = filler or self._transactions.session.filler(self._work, reverse=True)
                    bound = known.last_key(tx)
                row = StepRow(Direction.DOWN, fence=self._claim.fence, digest=self._digest, bound=bound)
                tx.save(self._claim, row)
            return row

        return self._transactions.run(work)

    def ranges(self, filler: Filler, row: StepRow) -> None:
        """All ranges up to the bound, from the cursor on."""
        if row.bound is None or row.cursor == row.bound:
            return
        self._pace.begin(row.rows, self._transactions.run(filler.total, read_only=True), Activity.RUNNING)
        while self._batch(filler):
            self._pace.tidy_if_due(filler, self._transactions)

    def _batch(self, filler: Filler) -> bool:
        """One range; whether there is another."""

        def work(tx: Transaction) -> tuple[int, StepRow]:
            row = self._claimed(tx)
            if row.finished or row.bound is None or row.cursor == row.bound:
                return 0, row
            upto = filler.end_of(tx, row.cursor, row.bound, self._pace.size)
            filled = filler.fill(tx, Range(row.cursor, upto))
            self._verify_batch(row, filled)
            row = replace(row, cursor=upto, rows=row.rows + filled.rows, batches=row.batches + 1)
            tx.save(self._claim, row)
            return filled.rows, row

        with self._pace.batch(self._transactions) as measured:
            changed, row = self._transactions.run(work, durable=False, on_wait=self._pace.locked)
            measured(changed)
        return not row.finished and row.cursor != row.bound

    def _claimed(self, tx: Transaction) -> StepRow:
        """The row, which goes our way: who has turned it since has taken over, whatever its fence."""
        row = tx.claim(self._claim)
        if row.direction is not self._claim.direction:
            raise Ended(Result(RunnerReason.FENCED))
        return row

    def _verify_batch(self, row: StepRow, filled: Filled) -> None:
        if row.direction is Direction.UP and filled.bad:
            raise Ended(Result(RunnerReason.VERIFY_FAILED, "backfill.verify", number=filled.bad, rows=row.rows))

    def sweep(self, filler: Filler) -> Result:
        """Until `verify` is true of all rows: those that were written behind the cursor, or above the bound, were not met yet."""
        for _ in range(_SWEEPS):
            result = self._finish(filler)
            if result.reason is RunnerReason.DONE or not self._pass(filler):
                break
        else:
            result = self._finish(filler)
        if result.reason is not RunnerReason.DONE:
            raise Ended(result)
        return result

    def _pass(self, filler: Filler) -> bool:
        """One pass over the rows that fail `verify`; whether it changed any."""
        self._pace.doing(Activity.SWEEPING)
        after, changed = None, False
        while True:

            def work(tx: Transaction, after: tuple[str, ...] | None = after) -> tuple[int, tuple[str, ...] | None]:
                row = self._claimed(tx)
                upto = None if row.finished else filler.first_unverified(tx, after, self._pace.size)
                if upto is None:
                    return 0, None
                filled = filler.sweep(tx, Range(after, upto))
                self._verify_batch(row, filled)
                tx.save(self._claim, replace(row, rows=row.rows + filled.rows, batches=row.batches + 1))
                return filled.rows, upto

            with self._pace.batch(self._transactions) as measured:
                rows, after = self._transactions.run(work, on_wait=self._pace.locked)
                measured(rows)
            changed = changed or rows > 0
            if after is None:
                return changed

    def _finish(self, filler: Filler) -> Result:
        """The journal says finished in the transaction that found `verify` true of every row; its commit is on the disk."""
        self._pace.doing(Activity.VERIFYING)

        def work(tx: Transaction) -> Result:
            row = self._claimed(tx)
            done = Result(RunnerReason.DONE, rows=row.rows, batches=row.batches)
            if row.finished:
                return done
            if bad := filler.unverified(tx):
                return Result(RunnerReason.VERIFY_FAILED, "backfill.verify", number=bad, rows=row.rows)
            tx.save(self._claim, replace(row, finished=True))
            tx.record(self._claim, Entry("backfill", self._digest, rows=row.rows))
            return done

        return self._transactions.run(work)

    def finish_down(self) -> Result:
        """The journal says that it is undone, or that there was nothing to undo."""

        def work(tx: Transaction) -> Result:
            row = self._claimed(tx)
            if not row.finished:
                tx.save(self._claim, replace(row, finished=True))
                tx.record(self._claim, Entry("backfill", self._digest, rows=row.rows))
            reason = RunnerReason.DONE if row.bound is not None else RunnerReason.NOTHING_TO_UNDO
            return Result(reason, rows=row.rows, batches=row.batches)

        return self._transactions.run(work)
