"""What can be said of a step's SQL without a server: for `cutover lint`."""

from __future__ import annotations

from cutover.database.engines.postgresql.engine import PostgresqlTexts
from cutover.database.works.expressions import problems_of as problems_of_backfill
from cutover.database.works.scripts import problems_of_schema
from cutover.database.works.validate import read_queries
from cutover.errors import Broken
from cutover.runner_messages.payload import BackfillWork, SchemaWork, ValidateWork
from cutover.runner_messages.result import Result


def problems_of(work: object, version: int) -> list[Result]:
    """All that would stop it on a server of this major version, as far as the texts say it."""
    engine = PostgresqlTexts()
    if isinstance(work, SchemaWork):
        return problems_of_schema(work, engine, version)
    if isinstance(work, BackfillWork):
        return problems_of_backfill(work, engine)
    if isinstance(work, ValidateWork):
        return read_queries(work, engine)[1]
    raise Broken("a step in a database is of one of these kinds")
