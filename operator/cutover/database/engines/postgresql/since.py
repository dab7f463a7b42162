"""From which version on a server knows a statement: the parser is that of the newest one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import postgast

_COMMANDS: Final = {
    "SetCompression": 14,
    "DetachPartitionFinalize": 14,
    "SetAccessMethod": 15,
    "SetExpression": 17,
}
"""Of ALTER TABLE."""


def _constraint(node: Any) -> int:
    kind = str(postgast.pg_query_pb2.ConstrType.Name(node.contype)).removeprefix("CONSTR_")
    if node.without_overlaps or node.fk_with_period or (kind == "GENERATED" and node.generated_kind == "v"):
        return 18
    return 15 if node.nulls_not_distinct else 0


def _command(node: Any) -> int:
    name = str(postgast.pg_query_pb2.AlterTableType.Name(node.subtype)).removeprefix("AT_")
    definition = getattr(node, "def")
    if name == "AddConstraint" and definition.constraint.contype == postgast.pg_query_pb2.CONSTR_NOTNULL:
        return 18
    if name == "DetachPartition" and definition.partition_cmd.concurrent:
        return 14
    return _COMMANDS.get(name, 0)


_RULES: Final[Mapping[str, Callable[[Any], int]]] = {
    "Constraint": _constraint,
    "AlterTableCmd": _command,
    "IndexStmt": lambda node: 15 if node.nulls_not_distinct else 0,
    "ColumnDef": lambda node: 16 if node.storage_name else 14 if node.compression else 0,
    "CreateFunctionStmt": lambda node: 14 if node.HasField("sql_body") else 0,
    "CreateTrigStmt": lambda node: 14 if node.replace else 0,
    "MergeStmt": lambda node: 17 if node.HasField("returning_clause") else 15,
    "ReturningOption": lambda _: 18,
    "JsonIsPredicate": lambda _: 16,
    "JsonObjectConstructor": lambda _: 16,
    "JsonArrayConstructor": lambda _: 16,
    "JsonFuncExpr": lambda _: 17,
    "JsonTable": lambda _: 17,
}
"""By the name of a node of the tree; 0 is all that are supported."""


def needs(tree: Any) -> int:
    """The oldest major version that knows all of a statement; 0: each that is supported."""
    rules = ((_RULES.get(type(node).__name__), node) for _, node in postgast.walk(tree))
    return max((rule(node) for rule, node in rules if rule is not None), default=0)
