"""The kind `schema`: a script in one transaction with the row that says so, and the validation inside it.

Idempotent because the row of the step is locked first: who comes later finds it finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cutover.database.engines.base import Engine, Made, Statement, Transaction
from cutover.database.journal import Claim, Entry, StepRow
from cutover.database.outcome import Ended
from cutover.database.works.scripts import (
    DOWN,
    UP,
    VALIDATE,
    problems_of,
    problems_of_schema,
    problems_of_script,
    text_of,
)
from cutover.database.works.shown import Outlook, Shown
from cutover.database.works.transactions import Transactions
from cutover.runner_messages.payload import Direction, SchemaWork, Script
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result


class Schema:
    """One step's schema change.

    Args:
        work: its fields.
        claim: who does it.
        engine: splits and checks scripts.
        transactions: run what is done.
    """

    def __init__(self, work: SchemaWork, claim: Claim, engine: Engine, transactions: Transactions) -> None:
        self._work, self._claim, self._engine, self._transactions = work, claim, engine, transactions
        self._version = transactions.session.version

    def up(self) -> Result:
        """Run `up` and `validate` in one transaction. Raises Ended."""
        text, statements = self._read(self._work.up, UP)
        questions = self._questions()
        self._check(statements, UP)
        digest = Script.digest(text)
        self._transactions.claim_first(self._claim)

        def work(tx: Transaction) -> Result:
            row = tx.claim(self._claim)
            if _is_up(row):
                if row.digest != digest:
                    raise Ended(Result(RunnerReason.SCRIPT_CHANGED, UP))
                return Result(RunnerReason.ALREADY_DONE)
            for statement in statements:
                tx.run(statement, UP)
            tx.save(self._claim, StepRow(Direction.UP, finished=True, fence=self._claim.fence, digest=digest))
            tx.record(self._claim, Entry("schema", digest, script=text, down=self._down_text()))
            tx.only_read()
            _judge(tx, questions)
            return Result(RunnerReason.DONE)

        return self._measured(self._transactions.run(work), statements)

    def down(self) -> Result:
        """Run `down`, if the database says that `up` was done. Raises Ended: also where it was, and there is no `down`."""
        text, statements = self._read(self._work.down, DOWN) if self._work.down is not None else ("", ())
        refused = list(self._engine.refusals(statements, DOWN, self._version))
        if refused:
            raise Ended(Result.of_all(refused))
        self._transactions.claim_first(self._claim)

        def work(tx: Transaction) -> Result:
            row = tx.claim(self._claim)
            if row.direction is Direction.DOWN and row.finished:
                return Result(RunnerReason.ALREADY_DONE)
            done = _is_up(row)
            if done and self._work.down is None:
                raise Ended(Result(RunnerReason.DOWN_MISSING, "schema"))
            for statement in statements if done else ():
                tx.run(statement, DOWN)
            digest = Script.digest(text)
            tx.save(self._claim, StepRow(Direction.DOWN, finished=True, fence=self._claim.fence, digest=digest))
            tx.record(self._claim, Entry("schema", digest, script=text if done else ""))
            return Result(RunnerReason.DONE if done else RunnerReason.NOTHING_TO_UNDO)

        return self._measured(self._transactions.run(work), statements)

    def _measured(self, result: Result, statements: Sequence[Statement]) -> Result:
        """A column whose type is another one has no statistics, and nothing wakes the server to make them: plans get worse at once.

        Also when it was done already: who did it may have died in between.
        """
        changed = self._engine.makes(statements).types if result.reason is not RunnerReason.NOTHING_TO_UNDO else ()
        for table in sorted({table for table, _ in changed}):
            columns = sorted(column for of, column in changed if of == table)
            work = partial(_measure, table, columns)
            self._transactions.statistics(lambda: self._transactions.run(work))  # noqa: B023 -- called at once
        return result

    def validate(self) -> Result:
        """Run `validate` alone; reads only. Raises Ended."""
        questions = self._questions()

        def work(tx: Transaction) -> Result:
            _judge(tx, questions)
            return Result(RunnerReason.DONE)

        return self._transactions.run(work, read_only=True)

    def verify(self) -> Result:
        """Whether the database says that it is done, and `validate` still passes; reads only. Raises Ended."""
        text, questions = text_of(self._work.up, UP), self._questions()

        def work(tx: Transaction) -> Result:
            row = tx.look(self._claim.key)
            if row is None or not _is_up(row) or row.digest != Script.digest(text):
                raise Ended(Result(RunnerReason.NOT_DONE))
            _judge(tx, questions)
            return Result(RunnerReason.DONE)

        return self._transactions.run(work, read_only=True)

    def problems(self) -> list[Result]:
        """What would stop `up` or `down`; reads only, and asks the server nothing."""
        return problems_of_schema(self._work, self._engine, self._version)

    def _problems_of(self, script: Script | None, field: str) -> Sequence[Result]:
        return problems_of_script(script, field, self._work.allow, self._engine, self._version)

    def makes(self) -> Made:
        """What `up` makes; nothing where it cannot be read."""
        try:
            return self._engine.makes(self._read(self._work.up, UP)[1])
        except Ended:
            return Made()

    def outlook(self, direction: Direction, made: Made) -> Outlook:
        """The statements of a direction, and what they lock."""
        del made  # a script may name what an earlier one makes: the server is not asked about it
        scripts = {Direction.DOWN: (self._work.down, DOWN), Direction.VERIFY: (self._work.validate_, VALIDATE)}
        script, field = scripts.get(direction, (self._work.up, UP))
        problems = self.problems() if direction is Direction.UP else self._problems_of(script, field)
        if script is None:
            missing = Result(RunnerReason.DOWN_MISSING, "schema")
            return Outlook(problems=[missing] if direction is Direction.DOWN else ())
        try:
            _, statements = self._read(script, field)
        except Ended:
            return Outlook(problems=problems)
        impacts = self._engine.impacts(statements)
        shown = [
            Shown(f"{field}, line {one.line}", one.text, tuple(found for found in impacts if found.statement is one))
            for one in statements
        ]
        tables = dict.fromkeys(found.table for found in impacts if found.table)
        return Outlook(shown, {table: self._transactions.session.rows(table) for table in tables}, problems=problems)

    def _read(self, script: Script, field: str) -> tuple[str, Sequence[Statement]]:
        text = text_of(script, field)
        return text, self._engine.split(text, field)

    def _questions(self) -> Sequence[Statement]:
        return () if self._work.validate_ is None else self._read(self._work.validate_, VALIDATE)[1]

    def _check(self, statements: Sequence[Statement], field: str) -> None:
        if problems := problems_of(self._engine, statements, field, self._work.allow, self._version):
            raise Ended(Result.of_all(problems))

    def _down_text(self) -> str:
        return "" if self._work.down is None else text_of(self._work.down, DOWN)


def _measure(table: str, columns: Sequence[str], tx: Transaction) -> None:
    tx.measure(table, columns)


def _is_up(row: StepRow) -> bool:
    return row.direction is Direction.UP and row.finished


def _judge(tx: Transaction, questions: Sequence[Statement]) -> None:
    for question in questions:
        if failures := tx.judge(question, VALIDATE):
            raise Ended(
                Result(RunnerReason.VALIDATION_FAILED, VALIDATE, question.number, question.line, number=failures)
            )
