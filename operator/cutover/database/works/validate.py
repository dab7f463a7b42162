"""The kind `validate`: named queries in one read-only snapshot, each with its answer.

It changes nothing, so it may run any number of times; what it counted is kept in the history, for a later step to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cutover.database.engines.base import Engine, Made, Texts, Transaction
from cutover.database.journal import Claim, Entry, StepKey
from cutover.database.outcome import Ended
from cutover.database.works.shown import Outlook, Shown
from cutover.database.works.transactions import Transactions
from cutover.runner_messages.payload import Direction, ValidateWork
from cutover.runner_messages.queries import Query
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Answer, Result


class Validate:
    """One step's questions.

    Args:
        work: its fields.
        claim: who asks.
        engine: checks that a query is one.
        transactions: run them.
    """

    def __init__(self, work: ValidateWork, claim: Claim, engine: Engine, transactions: Transactions) -> None:
        self._work, self._claim, self._engine, self._transactions = work, claim, engine, transactions

    def up(self) -> Result:
        """Ask, and keep what was counted. Raises Ended."""
        queries = self._queries()
        self._transactions.claim_first(self._claim)
        answers = self._ask(queries)

        def keep(tx: Transaction) -> None:
            tx.claim(self._claim)
            tx.record(self._claim, Entry("validate", answers={one.name: one.failures for one in answers}))

        self._transactions.run(keep)
        return _judged(answers)

    def validate(self) -> Result:
        """Ask; writes nothing. Raises Ended."""
        return _judged(self._ask(self._queries()))

    def down(self) -> Result:
        """There is nothing to undo; what an earlier attempt may still do is fenced off."""
        self._transactions.claim_first(self._claim)
        return Result(RunnerReason.NOTHING_TO_UNDO)

    verify = validate

    def problems(self) -> list[Result]:
        """Queries that are none."""
        return self._read()[1]

    def makes(self) -> Made:
        """Nothing."""
        return Made()

    def outlook(self, direction: Direction, made: Made) -> Outlook:
        """The queries as they are sent."""
        del made
        queries, problems = self._read()
        if direction is Direction.DOWN:
            return Outlook(problems=problems)
        shown = [Shown(f"validate.queries[{one.name}]", self._engine.question(one)) for one in queries]
        return Outlook(shown, problems=problems)

    def _read(self) -> tuple[list[Query], list[Result]]:
        return read_queries(self._work, self._engine)

    def _queries(self) -> list[Query]:
        queries, problems = self._read()
        if problems:
            raise Ended(Result.of_all(problems))
        return queries

    def _ask(self, queries: list[Query]) -> list[Answer]:
        """All in one snapshot, so that their figures belong together."""

        def work(tx: Transaction) -> list[Answer]:
            before: Mapping[str, int] = {}
            if self._work.compare_with is not None:
                before = tx.recorded(StepKey(self._claim.key.plan, self._claim.key.run, self._work.compare_with))
            return [replace(tx.ask(query), before=before.get(query.name)) for query in queries]

        return self._transactions.run(work, read_only=True)


def _judged(answers: list[Answer]) -> Result:
    failed = [one for one in answers if not one.passed]
    if failed:
        number = sum(one.failures for one in failed)
        raise Ended(Result(RunnerReason.VALIDATION_FAILED, "validate", number=number, answers=tuple(answers)))
    return Result(RunnerReason.DONE, answers=tuple(answers))


def read_queries(work: ValidateWork, engine: Texts) -> tuple[list[Query], list[Result]]:
    """The queries as they are sent, and what is wrong with them."""
    queries, found = list[Query](), list[Result]()
    for query in work.queries:
        field = f"validate.queries[{query.name}]"
        compared = query.compare_columns
        parts = ((compared.old, f"{field}.old"), (compared.new, f"{field}.new")) if compared is not None else ()
        try:
            for text, place in parts:
                engine.expression(text, place)
            sql = None if query.sql is None else engine.query(query.sql, f"{field}.sql")
            queries.append(query.model_copy(update={"sql": sql}))
        except Ended as ended:
            found.append(ended.result)
    return queries, found
