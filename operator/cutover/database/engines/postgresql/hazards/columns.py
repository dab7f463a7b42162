"""What adding a column or a constraint does: measured on PostgreSQL 15 by `pg_locks` and `relfilenode`, the same in 13 to 18."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import postgast

from cutover.database.engines.postgresql.hazards.effects import Effect, Script, last_name, table_of
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import Lock

_SERIAL: Final = frozenset({"smallserial", "serial", "bigserial", "serial2", "serial4", "serial8"})
_TYPES: Final = frozenset({
    "bool", "boolean", "int2", "int4", "int8", "smallint", "integer", "int", "bigint", "oid", "numeric", "decimal", "float4", "float8",
    "real", "money", "text", "varchar", "bpchar", "char", "name", "bytea", "uuid", "date", "time", "timetz", "timestamp", "timestamptz",
    "interval", "json", "jsonb", "jsonpath", "xml", "inet", "cidr", "macaddr", "macaddr8", "bit", "varbit", "tsvector", "tsquery",
    "point", "line", "lseg", "box", "path", "polygon", "circle", "int4range", "int8range", "numrange", "tsrange", "tstzrange",
    "daterange", "pg_lsn",
})  # fmt: skip
"""Types of the server. Another one may be a domain, whose CHECK makes the server rewrite the table for a new column."""
_STABLE: Final = frozenset({"now", "transaction_timestamp", "statement_timestamp", "lower", "upper", "md5", "to_jsonb", "jsonb_build_object"})  # fmt: skip
"""Functions that are known not to be volatile: the default is computed once."""


def of_new_column(column: Any, table: str, script: Script) -> Iterator[Effect]:
    """ADD COLUMN."""
    parts = {_contype(one.constraint): one.constraint for one in column.constraints}
    default = parts.get("DEFAULT")
    type_name = last_name(column.type_name.names)
    yield Effect(table, Lock.ACCESS_EXCLUSIVE)
    if (
        type_name in _SERIAL
        or "IDENTITY" in parts
        or _is_stored(parts.get("GENERATED"))
        or (default is not None and _may_be_volatile(default.raw_expr))
    ):
        yield _hazard(table, Hazard.REWRITES_TABLE)
    elif type_name not in _TYPES and type_name not in script.types:
        yield _hazard(table, Hazard.NEEDS_REVIEW)
    script.added.add((table, str(column.colname)))
    if default is not None:
        script.defaulted.add(str(column.colname))
    for name, constraint in parts.items():
        yield from _of_column_constraint(name, constraint, table, has_value=default is not None)


def _of_column_constraint(name: str, constraint: Any, table: str, *, has_value: bool) -> Iterator[Effect]:
    if name in ("UNIQUE", "PRIMARY"):
        yield _hazard(table, Hazard.BUILDS_INDEX)
    elif name == "CHECK":
        yield _hazard(table, Hazard.SCANS_TABLE)
    elif name == "FOREIGN":
        yield Effect(table_of(constraint.pktable), Lock.SHARE_ROW_EXCLUSIVE)
        if has_value:
            yield _hazard(table, Hazard.SCANS_TABLE)


def of_new_constraint(constraint: Any, table: str) -> Iterator[Effect]:
    """ADD CONSTRAINT, of a table that exists."""
    name = _contype(constraint)
    if name == "FOREIGN":
        yield Effect(table, Lock.SHARE_ROW_EXCLUSIVE)
        yield Effect(table_of(constraint.pktable), Lock.SHARE_ROW_EXCLUSIVE)
    else:
        yield Effect(table, Lock.ACCESS_EXCLUSIVE)
    if name in ("CHECK", "FOREIGN", "NOTNULL"):
        if not constraint.skip_validation:
            lock = Lock.SHARE_ROW_EXCLUSIVE if name == "FOREIGN" else Lock.ACCESS_EXCLUSIVE
            yield Effect(table, lock, Hazard.SCANS_TABLE, takes_long=True)
    elif name in ("UNIQUE", "PRIMARY"):
        if not constraint.indexname:
            yield _hazard(table, Hazard.BUILDS_INDEX)
        elif name == "PRIMARY":
            yield _hazard(table, Hazard.SCANS_TABLE)  # its columns are made NOT NULL
    else:
        yield _hazard(table, Hazard.BUILDS_INDEX if name == "EXCLUSION" else Hazard.NEEDS_REVIEW)


def of_new_table(tree: Any, script: Script) -> Iterator[Effect]:
    """CREATE TABLE: it is nobody's yet, but what it refers to is somebody's."""
    constraints = [one.constraint for one in tree.table_elts if one.WhichOneof("node") == "constraint"]
    constraints += [
        part.constraint
        for one in tree.table_elts
        if one.WhichOneof("node") == "column_def"
        for part in one.column_def.constraints
    ]
    for constraint in constraints:
        if _contype(constraint) == "FOREIGN":
            yield Effect(table_of(constraint.pktable), Lock.SHARE_ROW_EXCLUSIVE)
    for one in tree.table_elts:
        if one.WhichOneof("node") == "table_like_clause":
            yield Effect(table_of(one.table_like_clause.relation), Lock.ACCESS_SHARE)
    for parent in tree.inh_relations:
        hazard = Hazard.SCANS_TABLE if tree.HasField("partbound") else Hazard.NEEDS_REVIEW
        yield Effect(table_of(parent.range_var), Lock.ACCESS_EXCLUSIVE, hazard)
    script.made.add(table_of(tree.relation))


def _hazard(table: str, hazard: Hazard) -> Effect:
    return Effect(table, Lock.ACCESS_EXCLUSIVE, hazard, takes_long=hazard is not Hazard.NEEDS_REVIEW)


def _contype(constraint: Any) -> str:
    return str(postgast.pg_query_pb2.ConstrType.Name(constraint.contype)).removeprefix("CONSTR_")


def _is_stored(generated: Any) -> bool:
    """A virtual column has no values to write."""
    return generated is not None and getattr(generated, "generated_kind", "s") != "v"


def _may_be_volatile(expression: Any) -> bool:
    """Constants, casts of them, and functions that are known: the value is computed once and stored beside the table."""
    for _, node in postgast.walk(expression):
        kind = type(node).__name__
        if kind == "FuncCall" and last_name(node.funcname) not in _STABLE:
            return True
        if kind in ("SubLink", "ColumnRef"):
            return True
    return False
