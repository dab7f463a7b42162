"""The kind `backfill`: ranges of the key, each in a transaction with its checkpoint, until `verify` is true of every row.

How it gets there is in `filling.py`. Rows that were written behind the cursor in the meantime fail `verify`, and are swept at the
end; `verify` alone says that it is over.
"""

from __future__ import annotations

import json

from cutover.database.engines.base import Engine, Filler, Made
from cutover.database.journal import Claim
from cutover.database.outcome import Ended
from cutover.database.works.expressions import caught, problems_of
from cutover.database.works.filling import Filling
from cutover.database.works.pace import Pace
from cutover.database.works.shown import Outlook, Shown
from cutover.database.works.transactions import Transactions
from cutover.runner_messages.payload import BackfillWork, Direction, Script
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result


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
        self._session = transactions.session
        fields = work.model_dump_json(by_alias=True, include={"table", "key", "set_", "where", "verify", "reverse"})
        digest = Script.digest(json.dumps(json.loads(fields), sort_keys=True))
        self._filling = Filling(work, claim, digest, transactions, pace)

    # --- directions ---------------------------------------------------------------------------------------------------

    def up(self) -> Result:
        """Fill all rows. Raises Ended."""
        self._check()
        row = self._transactions.claim_first(self._claim)
        self._filling.same(row)
        if row.direction is Direction.UP and row.finished:
            return self._verified(Result(RunnerReason.ALREADY_DONE))
        filler = self._filler()
        row = self._filling.begin(filler)
        self._filling.ranges(filler, row)
        result = self._filling.sweep(filler)
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
        row = self._filling.turn(self._filler(reverse=True) if row.digest else None)
        if row.bound is not None:
            self._filling.ranges(self._filler(reverse=True), row)
        return self._filling.finish_down()

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

    def _verified(self, result: Result) -> Result:
        filler = self._filler()
        if bad := self._transactions.run(filler.unverified, read_only=True):
            raise Ended(Result(RunnerReason.VERIFY_FAILED, "backfill.verify", number=bad))
        return result
