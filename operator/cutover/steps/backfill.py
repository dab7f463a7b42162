"""The kind `backfill`: fills columns of a table, batch by batch, while the application goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from pydantic import Field

from cutover.runner_messages.payload import BackfillFields, BackfillWork, Columns
from cutover.steps.kind import Kind
from cutover.steps.parts import Unbounded
from cutover.steps.shared.database_kind import DatabaseKind

_NO_WAY_BACK: Final = "no reverse is defined; add reverse, or irreversible: true on the step"


class Backfill(DatabaseKind, BackfillFields, Unbounded):
    """Fills columns of a table by expressions, batch by batch, while the application reads and writes it.

    Idempotent as every `DatabaseKind` is: the end of a batch is saved in the transaction that changes its rows, so each row is changed once.
    """

    key: ClassVar[str] = "backfill"
    undo_rule: ClassVar[tuple[str, str] | None] = (
        "!has(self.backfill) || has(self.backfill.reverse) || (has(self.irreversible) && self.irreversible)",
        f"='step ' + self.name + ', backfill: {_NO_WAY_BACK}'",
    )
    key_: Columns = Field(default=(), alias="key", description="The columns to page by. Default: the primary key.")

    def work(self) -> BackfillWork:
        """Its fields."""
        fields = self.model_dump(include=set(BackfillFields.model_fields), exclude_unset=True)
        return BackfillWork.model_validate(fields | {"key": self.key_})

    def may_look(self, before: Sequence[Kind]) -> bool:
        """Not after a step that may add what it fills: the look is before all of them."""
        return not any(isinstance(kind, DatabaseKind) and not kind.only_reads() for kind in before)

    def irreversible_reason(self) -> str:
        """It needs the expressions that go back."""
        return "" if self.reverse is not None else _NO_WAY_BACK
