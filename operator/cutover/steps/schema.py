"""The kind `schema`: changes the schema of a database by a script, and takes the change back by another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from pydantic import Field, model_validator

from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.payload import SchemaWork, Script
from cutover.schema.model import Model
from cutover.schema.problems import WrongFields
from cutover.steps.shared.database_kind import DatabaseKind

_LONGEST: Final = 16_384
_ELSEWHERE: Final = ("configMapKeyRef", "image")
"""Where scripts may be some day."""
_NOT_YET: Final = "is not supported yet; write the script itself, below `inline: |`"
_NO_WAY_BACK: Final = "no down is defined; add down, or irreversible: true on the step"


class SqlScript(Model):
    """A script of SQL."""

    inline: str = Field(
        min_length=1,
        max_length=_LONGEST,
        description="The script itself; its statements are sent one by one, as they are written.",
    )

    @model_validator(mode="before")
    @classmethod
    def _here(cls, given: Any) -> Any:
        for field in _ELSEWHERE:
            if isinstance(given, Mapping) and field in given:
                raise WrongFields([(field, _NOT_YET)])
        return given

    def script(self) -> Script:
        """As the runner is handed it."""
        return Script(text=self.inline, sha256=Script.digest(self.inline))


class Schema(DatabaseKind):
    """Changes the schema of a database by a script, in one transaction, and takes the change back by another one on rollback.

    Idempotent as every `DatabaseKind` is: the script, its validation and the line of the journal are one transaction.
    """

    key: ClassVar[str] = "schema"
    undo_rule: ClassVar[tuple[str, str] | None] = (
        "!has(self.schema) || has(self.schema.down) || (has(self.irreversible) && self.irreversible)",
        f"='step ' + self.name + ', schema: {_NO_WAY_BACK}'",
    )
    up: SqlScript = Field(description="What changes the schema, in one transaction.")
    down: SqlScript | None = Field(default=None, description="What takes the change back, in one transaction.")
    validate_: SqlScript | None = Field(
        default=None,
        alias="validate",
        description="Queries that must each answer no row, 0 or true; they run in the transaction of up, before it is committed.",
    )
    allow: tuple[Hazard, ...] = Field(
        default=(), max_length=32, description="Hazards of up that are meant; the others are refused."
    )

    def work(self) -> SchemaWork:
        """The scripts."""
        return SchemaWork(
            up=self.up.script(),
            down=self.down and self.down.script(),
            validate_=self.validate_ and self.validate_.script(),
            allow=self.allow,
        )

    def irreversible_reason(self) -> str:
        """It needs down."""
        return "" if self.down is not None else _NO_WAY_BACK
