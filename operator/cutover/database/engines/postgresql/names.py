"""Names as SQL writes them."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A column, or any single name."""
    return '"' + name.replace('"', '""') + '"'


def split_table(table: str) -> tuple[str | None, str]:
    """``schema.name`` or ``name``."""
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else (None, schema)


def quoted_table(table: str) -> str:
    """A table, with its schema where it is given."""
    return ".".join(map(quoted, table.split(".", 1)))
