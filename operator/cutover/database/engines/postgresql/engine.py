"""PostgreSQL behind the protocol of `engines/base.py`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cutover.database.engines.base import Impact, Made, Statement
from cutover.database.engines.postgresql import connecting, hazards, scripts
from cutover.database.engines.postgresql.questions import text_of
from cutover.database.engines.postgresql.session import PostgresSession
from cutover.runner_messages.payload import DatabaseSettings, Payload
from cutover.runner_messages.queries import Query
from cutover.runner_messages.result import Result


class PostgresqlTexts:
    """What can be said of texts, without any server."""

    def split(self, text: str, field: str) -> Sequence[Statement]:
        """By the parser."""
        return scripts.split(text, field)

    def refusals(self, statements: Sequence[Statement], field: str, version: int) -> Sequence[Result]:
        """By the parser's tree."""
        return list(scripts.refusals(statements, field, version))

    def impacts(self, statements: Sequence[Statement]) -> Sequence[Impact]:
        """By rules on the parser's tree."""
        return list(hazards.impacts(statements))

    def makes(self, statements: Sequence[Statement]) -> Made:
        """By the same rules."""
        return hazards.makes(statements)

    def question(self, query: Query) -> str:
        """The presets are made here."""
        return text_of(query)

    def expression(self, text: str, field: str) -> None:
        """One expression, and nothing that ends it."""
        scripts.expression(text, field)

    def query(self, text: str, field: str) -> str:
        """One query that only reads."""
        return scripts.query(text, field)


class Postgresql(PostgresqlTexts):
    """One database of one server.

    Args:
        url: as the Secret has it; it is read here and by libpq alone.
        settings: of the plan.
        application: shown to whoever looks at the server's sessions.
    """

    def __init__(self, url: str, settings: DatabaseSettings, application: str) -> None:
        self._parameters = connecting.parameters(url, settings, application)
        self._settings = settings

    def connect(self) -> PostgresSession:
        """Log in."""
        return PostgresSession(lambda: connecting.connect(self._parameters, self._settings), self._settings)


@contextmanager
def opened(payload: Payload, url: str) -> Iterator[tuple[Postgresql, PostgresSession]]:
    """The database of a payload, and a session in it that bears the names of plan and step. Raises as `Postgresql.connect`."""
    engine = Postgresql(url, payload.database, f"cutover {payload.plan.name} {payload.step}")
    session = engine.connect()
    try:
        yield engine, session
    finally:
        session.close()
