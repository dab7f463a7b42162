"""The kind `backfill`: ranges of the key, each in a transaction with its checkpoint, until `verify` is true of every row.

Each row is changed exactly once: the cursor moves in the transaction that changes the rows, and is read from the locked row at
the beginning of the next. So a runner that was killed, or another one beside it, goes on where the database is. Rows that were
written behind the cursor in the meantime fail `verify`, and are swept at the end; `verify` alone says that it is over.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

from cutover.database.engines.base import Engine, Filled, Filler, Made, Range, Transaction
from cutover.database.journal import Claim, Entry, StepRow
from cutover.database.outcome import Ended
from cutover.database.works.expressions import caught, problems_of
from cutover.database.works.pace import Pace
from cutover.database.works.shown import Outlook, Shown
from cutover.database.works.transactions import Transactions
from cutover.runner_messages.payload import BackfillWork, Direction, Script
from cutover.runner_messages.progress import Activity
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result

_SWEEPS: Final = 20
"""Passes over rows that fail `verify`; more of them means that the application writes them as fast."""


class Backfill:
    """One step's backfill.

    Args:
        work: its fields.
        claim: who does it.
        engine: checks expressions.
        transactions: run what is done.
        pace: how fast it goes.
    """

    def __init__(
        self, work: BackfillWork, claim: Claim, engine: Engine, transactions: Transactions, pace: Pace
    ) -> None:
        self._work, self._claim, self._engine, self._transactions = work, claim, engine, transactions
        self._session, self._pace = transactions.session, pace
        fields = work.model_dump_json(by_alias=True, include={"table", "key", "set_", "where", "verify", "reverse"})
        self._digest = Script.digest(json.dumps(json.loads(fields), sort_keys=True))

    # --- directions ---------------------------------------------------------------------------------------------------

    def up(self) -> Result:
        """Fill all rows. Raises Ended."""
        self._check()
        row = self._transactions.claim_first(self._claim)
        self._same(row)
        if row.direction is Direction.UP and row.finished:
            return self._verified(Result(RunnerReason.ALREADY_DONE))
        filler = self._filler()
        row = self._begin(filler)
        self._ranges(filler, row)
        result = self._sweep(filler)
        self._transactions.statistics(lambda: self._transactions.alone(filler.measure))
        return result

    def down(self) -> Result:
        """Set what `reverse` says, in the rows that were filled: up to where the filling came.

        Raises:
            Ended: also where rows were filled, and there is no `reverse`.
        """
        self._check()
        row = self._transactions.claim_first(self._claim)
        if row.direction is Direction.DOWN and row.finished:
            return Result(RunnerReason.ALREADY_DONE)
        if self._work.reverse is None and row.rows:
            raise Ended(Result(RunnerReason.DOWN_MISSING, "backfill.reverse"))
        row = self._turn(self._filler(reverse=True) if row.digest else None)
        if row.bound is not None:
            self._ranges(self._filler(reverse=True), row)
        return self._finish_down()

    def validate(self) -> Result:
        """Whether `verify` is true of every row; reads only. Raises Ended."""
        self._check()
        return self._verified(Result(RunnerReason.DONE))

    def verify(self) -> Result:
        """Whether the database says that it is done, and `verify` still is true of every row; reads only. Raises Ended."""
        self._check()
        row = self._transactions.run(lambda tx: tx.look(self._claim.key), read_only=True)
        if row is None or row.direction is not Direction.UP or not row.finished:
            raise Ended(Result(RunnerReason.NOT_DONE))
        return self._verified(Result(RunnerReason.DONE))

    def problems(self) -> list[Result]:
        """Expressions that are none, and what the catalogue lacks."""
        return [*problems_of(self._work, self._engine), *caught(self._filler)]

    def makes(self) -> Made:
        """Nothing."""
        return Made()

    def outlook(self, direction: Direction, made: Made) -> Outlook:
        """The statements of a batch and of the end, and how many rows there are."""
        problems = problems_of(self._work, self._engine)
        reverse = direction is Direction.DOWN
        if reverse and self._work.reverse is None:
            problems.append(Result(RunnerReason.DOWN_MISSING, "backfill.reverse"))
        if problems or self._work.table in made.tables:
            return Outlook(problems=problems)
        added = frozenset(column for table, column in made.columns if table == self._work.table)
        try:
            filler = self._transactions.alone(lambda: self._session.filler(self._work, reverse=reverse, added=added))
        except Ended as ended:
            return Outlook(problems=[ended.result])
        total = self._transactions.run(filler.total, read_only=True) or None
        wanted = self._transactions.run(filler.wanted, read_only=True) if not added else total
        shown = [Shown(f"backfill, {what}", text) for what, text in filler.texts.items()]
        return Outlook(shown, {self._work.table: total}, wanted)

    def _filler(self, *, reverse: bool = False) -> Filler:
        return self._transactions.alone(lambda: self._session.filler(self._work, reverse=reverse))

    def _check(self) -> None:
        if found := problems_of(self._work, self._engine):
            raise Ended(Result.of_all(found))

    def _same(self, row: StepRow) -> None:
        """A cursor means something only for the fields that moved it."""
        if row.direction is Direction.UP and row.digest not in ("", self._digest):
            raise Ended(Result(RunnerReason.SCRIPT_CHANGED, "backfill"))

    # --- the way ------------------------------------------------------------------------------------------------------

    def _begin(self, filler: Filler) -> StepRow:
        """Save where the ranges end: rows that are written later are the sweep's."""

        def work(tx: Transaction) -> StepRow:
            row = tx.claim(self._claim)
            self._same(row)
            if row.direction is Direction.UP and row.digest:
                return row  # another runner began it, or this one before its connection broke
            bound = filler.last_key(tx)
            if not self._work.allow_empty and self._work.where and not filler.matches(tx):
                raise Ended(Result(RunnerReason.MATCHES_NOTHING, "backfill.where", number=filler.unverified(tx)))
            row = StepRow(Direction.UP, fence=self._claim.fence, digest=self._digest, bound=bound)
            tx.save(self._claim, row)
            return row

        return self._transactions.run(work)

    def _turn(self, filler: Filler | None) -> StepRow:
        """Save that it goes back from where it had come to; whose answer was lost finds it turned.

        No filler: it had not begun when it was looked at, and its table may not even have the columns.
        """

        def work(tx: Transaction) -> StepRow:
            row = tx.claim(self._claim)
            if row.direction is Direction.UP:
                bound = row.cursor
                if row.digest and row.cursor == row.bound:  # at its end, where rows above the bound were swept too
                    known = filler or self._session.filler(self._work, reverse=True)  # it may have begun since
                    bound = known.last_key(tx)
                row = StepRow(Direction.DOWN, fence=self._claim.fence, digest=self._digest, bound=bound)
                tx.save(self._claim, row)
            return row

        return self._transactions.run(work)

    def _ranges(self, filler: Filler, row: StepRow) -> None:
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

    def _sweep(self, filler: Filler) -> Result:
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

    def _finish_down(self) -> Result:
        def work(tx: Transaction) -> Result:
            row = self._claimed(tx)
            if not row.finished:
                tx.save(self._claim, replace(row, finished=True))
                tx.record(self._claim, Entry("backfill", self._digest, rows=row.rows))
            reason = RunnerReason.DONE if row.bound is not None else RunnerReason.NOTHING_TO_UNDO
            return Result(reason, rows=row.rows, batches=row.batches)

        return self._transactions.run(work)

    def _verified(self, result: Result) -> Result:
        filler = self._filler()
        if bad := self._transactions.run(filler.unverified, read_only=True):
            raise Ended(Result(RunnerReason.VERIFY_FAILED, "backfill.verify", number=bad))
        return result
