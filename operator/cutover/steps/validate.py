"""The kind `validate`: asks a database whether its data is as it should be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar

from cutover.runner_messages.payload import ValidateWork
from cutover.steps.kind import Kind
from cutover.steps.shared.database_kind import DatabaseKind


class Validate(DatabaseKind, ValidateWork):
    """Asks a database whether its data is as it should be; changes nothing of it.

    Idempotent because it reads; what it counted is a line of the journal.
    """

    key: ClassVar[str] = "validate"

    def work(self) -> ValidateWork:
        """Its fields."""
        return ValidateWork.model_validate(self.model_dump(include=set(ValidateWork.model_fields), exclude_unset=True))

    def only_reads(self) -> bool:
        """There is nothing to undo."""
        return True

    def mistakes(self, before: Mapping[str, Kind]) -> Iterator[tuple[str, str]]:
        """It compares with an earlier step of the same kind, in the same database."""
        name = self.compare_with
        earlier = [
            one for one, kind in before.items() if isinstance(kind, Validate) and kind.works_in() == self.works_in()
        ]
        if name is not None and name not in earlier:
            way_out = f"use {', '.join(earlier)}" if earlier else "remove it, or add such a step before this one"
            yield ".compareWith", f"no earlier validate step of database {self.works_in()} is named {name}; {way_out}"
        yield from super().mistakes(before)
