"""What a `validate` step asks: a query of its author with the answer that is right, or one of the presets. Pure."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from cutover.schema.model import Duration, Label, Model

Column = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[^\x00]+$")]
Table = Annotated[str, StringConstraints(min_length=1, max_length=127, pattern=r"^[^\x00]+$")]
Columns = Annotated[tuple[Column, ...], Field(min_length=1, max_length=32)]


class Expect(StrEnum):
    """Which answer of a query is right."""

    ZERO_ROWS = "zeroRows"
    """It has no row."""
    ZERO = "zero"
    """One row with one number, which is 0."""
    EQUALS = "equals"
    """One row with one value, which reads as `value`."""
    TRUE = "true"
    """One row with one boolean, which is true."""


class Orphans(Model):
    """Rows whose reference leads nowhere. NULL refers to nothing, so it is not one."""

    table: Table = Field(description="The table that refers.")
    columns: Columns = Field(description="Its columns that do.")
    references: Table = Field(description="The table that is referred to.")
    key: Columns = Field(default=("id",), description="The columns there, in the same order.")

    @model_validator(mode="after")
    def _paired(self) -> Orphans:
        if len(self.columns) != len(self.key):
            raise ValueError(f"columns has {len(self.columns)} and key {len(self.key)}; give as many of each")
        return self


class Duplicates(Model):
    """Values that stand in more than one row. NULL is not equal to NULL."""

    table: Table = Field(description="The table.")
    columns: Columns = Field(description="What should be unique, together.")


class Nulls(Model):
    """Rows in which a column has no value."""

    table: Table = Field(description="The table.")
    columns: Columns = Field(description="Each of them should have one.")


class CompareColumns(Model):
    """Rows in which two columns, or a column and an expression of others, differ."""

    table: Table = Field(description="The table.")
    old: str = Field(min_length=1, max_length=16_384, description="A column, or an expression.")
    new: str = Field(min_length=1, max_length=16_384, description="What should be the same.")


class Query(Model):
    """One question. Its failures are counted: rows of an answer that should have none, or the number that should be 0."""

    name: Label = Field(description="Shown with the result.")
    sql: str | None = Field(default=None, min_length=1, max_length=16_384, description="One query.")
    expect: Expect = Field(default=Expect.ZERO, description="The answer of `sql` that is right.")
    value: str | None = Field(default=None, max_length=256, description="With `expect: equals`: the value, as text.")
    orphans: Orphans | None = Field(default=None, description="Instead of sql: no reference leads nowhere.")
    duplicates: Duplicates | None = Field(default=None, description="Instead of sql: no value is in two rows.")
    nulls: Nulls | None = Field(default=None, description="Instead of sql: no value is missing.")
    compare_columns: CompareColumns | None = Field(default=None, description="Instead of sql: both say the same.")
    timeout: Duration = Field(default=timedelta(seconds=60), description="Of this query; 0s is none.")

    @model_validator(mode="after")
    def _one_question(self) -> Query:
        asked = {
            "sql": self.sql,
            "orphans": self.orphans,
            "duplicates": self.duplicates,
            "nulls": self.nulls,
            "compareColumns": self.compare_columns,
        }
        given = [name for name, question in asked.items() if question is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(asked)}; it has {' and '.join(given) or 'none'}")
        if (self.value is not None) != (self.expect is Expect.EQUALS):
            raise ValueError("value goes with expect: equals, and expect: equals needs it")
        if self.sql is None and self.expect is not Expect.ZERO:
            raise ValueError(f"expect goes with sql; {given[0]} always expects 0")
        return self
