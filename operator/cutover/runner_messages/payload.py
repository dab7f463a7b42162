"""What the operator hands a database Job: one JSON document without any credential. Pure.

The models of the kinds' fields stand here, because both sides check them: the operator when a plan is parsed, the runner when
it reads its payload.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from cutover.errors import PlanError, Problem
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.queries import Query
from cutover.schema.model import Duration, Label, Model, Name
from cutover.schema.problems import problems_of

FORMAT: Final = 1
"""Of the document; a runner refuses a newer one."""
LONGEST_SCRIPT: Final = 512 * 1024
"""Characters; a ConfigMap holds a megabyte."""
BATCH_SIZES: Final = (1, 100_000)

Sql = Annotated[str, StringConstraints(min_length=1, max_length=16_384)]
"""One expression or query of SQL."""
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
"""The name of a column, a table or a schema, as the database spells it, without quotes."""
Table = Annotated[str, StringConstraints(min_length=1, max_length=127, pattern=r"^[^\x00]+$")]
"""A table, `name` or `schema.name`."""
_WITHOUT_ONE: Final = timedelta()


class Direction(StrEnum):
    """What the Job is to do for its step."""

    UP = "up"
    """Do it."""
    DOWN = "down"
    """Undo it."""
    VALIDATE = "validate"
    """Run its validation alone; reads only."""
    VERIFY = "verify"
    """Whether what was done still stands; reads only."""
    PREFLIGHT = "preflight"
    """Everything that would stop it, all at once; reads only."""


class Script(Model):
    """A script of SQL: its text, or a file in the pod."""

    text: str | None = Field(default=None, max_length=LONGEST_SCRIPT, description="The script itself.")
    file: str | None = Field(
        default=None, max_length=1024, pattern="^/", description="Where it lies in the pod, as an absolute path."
    )
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="Of its bytes, when the run began. Another one is refused."
    )

    @model_validator(mode="after")
    def _one(self) -> Script:
        if (self.text is None) == (self.file is None):
            raise ValueError("give text or file, exactly one of them")
        return self

    @staticmethod
    def digest(text: str) -> str:
        """The hash of a script, as `sha256` has it."""
        return hashlib.sha256(text.encode()).hexdigest()


class SchemaWork(Model):
    """Changes the schema by scripts."""

    up: Script = Field(description="What changes it.")
    down: Script | None = Field(default=None, description="What takes the change back.")
    validate_: Script | None = Field(
        default=None,
        alias="validate",
        description="Queries that must answer no row, 0 or true, each of them, in the transaction of `up`.",
    )
    allow: tuple[Hazard, ...] = Field(default=(), max_length=32, description="The hazards that the author accepts.")


class ValidateWork(Model):
    """Asks the database whether its data is as it should be."""

    queries: tuple[Query, ...] = Field(min_length=1, max_length=64, description="What is asked, each with its answer.")
    compare_with: Label | None = Field(
        default=None, description="An earlier step of this run with the same queries; its failures are shown beside."
    )

    @field_validator("queries")
    @classmethod
    def _named_once(cls, queries: tuple[Query, ...]) -> tuple[Query, ...]:
        names = [query.name for query in queries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"remove duplicates: {', '.join(twice)}")
        return queries


class Throttle(Model):
    """When the backfill pauses."""

    max_replica_lag: Duration | None = Field(default=None, description="Pause while a standby is further behind.")
    lag_unknown: Literal["pause", "ignore"] = Field(
        default="pause", description="What to do where the lag cannot be read."
    )
    query: Sql | None = Field(default=None, description="Pause while this query answers a number above 0.")


Columns = Annotated[tuple[Identifier, ...], Field(max_length=8)]
"""What a table is paged by."""


class BackfillFields(Model):
    """Fills columns of a table, batch by batch: all but the columns that it is paged by, whose name means something else in a step."""

    table: Table = Field(description="The table, as name or schema.name.")
    set_: dict[Identifier, Sql] = Field(
        alias="set", min_length=1, max_length=64, description="The columns to fill, each with its expression."
    )
    where: Sql | None = Field(default=None, description="The rows that need it. Default: all.")
    verify: Sql = Field(description="A condition that every row of the table meets when the backfill is over.")
    reverse: dict[Identifier, Sql] | None = Field(
        default=None, min_length=1, max_length=64, description="What undo sets, in the same batches."
    )
    batch_size: int = Field(
        default=5000, ge=BATCH_SIZES[0], le=BATCH_SIZES[1], description="Rows of the first batch. Default 5000."
    )
    target_batch_time: Duration = Field(
        default=timedelta(milliseconds=500),
        description="How long a batch should take; 0s keeps batchSize. Default 500ms.",
    )
    delay: Duration = Field(default=_WITHOUT_ONE, description="Pause after each batch. Default 0s.")
    max_rows_per_second: int | None = Field(
        default=None, ge=1, le=2**31 - 1, description="The maximum rate. Default: none."
    )
    throttle: Throttle = Field(default=Throttle(), description="When to pause.")
    vacuum_every: int = Field(
        default=10,
        ge=0,
        le=100,
        description="Percent of the table between two VACUUMs; 0 leaves it to autovacuum. Default 10.",
    )
    allow_empty: bool = Field(default=False, description="That no row needs it is fine.")


class BackfillWork(BackfillFields):
    """Fills columns of a table, batch by batch."""

    key: Columns = Field(default=(), description="The columns to page by. Default: the primary key.")


class LockRetries(Model):
    """How long a statement tries to get its locks."""

    max_attempts: int = Field(default=30, ge=1, le=10_000, description="The maximum number of tries.")
    backoff: Duration = Field(default=timedelta(milliseconds=300), description="The first pause between two tries.")
    max_backoff: Duration = Field(default=timedelta(seconds=2), description="The longest pause.")
    deadline: Duration = Field(default=timedelta(minutes=15), description="The end of all tries.")


class Tls(Model):
    """How the connection is encrypted."""

    mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer", description="As libpq's sslmode."
    )
    ca_file: str | None = Field(default=None, pattern="^/", description="The authorities, in the pod.")
    cert_file: str | None = Field(default=None, pattern="^/", description="The client's certificate, in the pod.")
    key_file: str | None = Field(default=None, pattern="^/", description="Its key, in the pod.")


class DatabaseSettings(Model):
    """Which database, and how it is treated. Who logs in, and with what, comes to the pod another way."""

    name: Label = Field(description="Its name in the plan.")
    engine: Literal["postgresql"] = Field(default="postgresql", description="What kind of server it is.")
    host: str | None = Field(default=None, max_length=253, description="Where the URL has none.")
    port: int | None = Field(default=None, ge=1, le=65_535, description="Where the URL has none.")
    database: Identifier | None = Field(default=None, description="Where the URL has none.")
    password_file: str | None = Field(
        default=None, pattern="^/", description="A file with the password, read at each connection."
    )
    tls: Tls | None = Field(default=None, description="Default: what the URL says.")
    schema_: Identifier = Field(default="public", alias="schema", description="Where names without a schema are.")
    lock_timeout: Duration = Field(
        default=timedelta(milliseconds=500), description="How long others wait behind a lock that we wait for."
    )
    statement_timeout: Duration = Field(default=_WITHOUT_ONE, description="Of one statement; 0s is none.")
    lock_retries: LockRetries = Field(default=LockRetries(), description="How locks are tried for.")

    @field_validator("lock_timeout")
    @classmethod
    def _bounded(cls, value: timedelta) -> timedelta:
        if value < timedelta(milliseconds=1):
            raise ValueError("0s would wait for ever; use 1ms or more")
        return value


class Owner(Model):
    """The plan that the Job works for."""

    namespace: Name
    name: Name
    uid: str = Field(pattern=r"^[0-9A-Za-z-]{1,64}$")


class Payload(Model):
    """One Job's work. Exactly one of the kinds is given."""

    format: int = Field(default=FORMAT, ge=1)
    plan: Owner
    run: int = Field(ge=1)
    step: Label
    attempt: int = Field(ge=1)
    fence: int = Field(ge=0)
    direction: Direction
    database: DatabaseSettings
    schema_: SchemaWork | None = Field(default=None, alias="schema")
    backfill: BackfillWork | None = None
    validate_: ValidateWork | None = Field(default=None, alias="validate")

    @model_validator(mode="after")
    def _one_kind(self) -> Payload:
        given = [name for name, work in self._kinds().items() if work is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(self._kinds())}; it has {' and '.join(given) or 'none'}")
        return self

    def _kinds(self) -> dict[str, SchemaWork | BackfillWork | ValidateWork | None]:
        return {"schema": self.schema_, "backfill": self.backfill, "validate": self.validate_}

    @property
    def kind(self) -> str:
        """The key of the kind."""
        return next(name for name, work in self._kinds().items() if work is not None)

    def encode(self) -> str:
        """The document, as the Job is handed it."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


def read_payload(text: str) -> Payload:
    """Read the document of a Job.

    Raises:
        PlanError: with everything that is wrong with it; without the values of its fields, which may be somebody's data.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        where = re.sub(r"^.*: ", "", str(error))
        raise PlanError(Problem("payload", f"is not JSON ({where})")) from None
    if not isinstance(document, dict):
        raise PlanError(Problem("payload", "is not a mapping"))
    newest = document.get("format", FORMAT)
    if isinstance(newest, int) and newest > FORMAT:
        message = f"format {newest} is newer than {FORMAT}; use the runner's image of the operator's version"
        raise PlanError(Problem("payload.format", message))
    try:
        return Payload.model_validate(document)
    except ValidationError as error:
        raise PlanError(*problems_of(error, document, Payload)) from None
