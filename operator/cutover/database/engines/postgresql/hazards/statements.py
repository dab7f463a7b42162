"""What each kind of statement does, by its name in the parser's tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import postgast

from cutover.database.engines.postgresql.hazards.bodies import of_do
from cutover.database.engines.postgresql.hazards.columns import of_new_column, of_new_constraint, of_new_table
from cutover.database.engines.postgresql.hazards.effects import Effect, Script, last_name, table_of
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.locks import Effort, Lock

_HARMLESS: Final = frozenset({
    "create_schema_stmt", "create_seq_stmt", "alter_seq_stmt", "create_domain_stmt", "composite_type_stmt", "create_enum_stmt",
    "create_range_stmt", "alter_enum_stmt", "view_stmt", "create_function_stmt", "alter_function_stmt", "comment_stmt", "grant_stmt",
    "create_extension_stmt", "create_stats_stmt", "alter_stats_stmt", "alter_default_privileges_stmt", "alter_owner_stmt",
    "create_cast_stmt", "define_stmt", "notify_stmt", "variable_show_stmt", "constraints_set_stmt", "explain_stmt",
    "create_publication_stmt", "alter_publication_stmt", "vacuum_stmt", "create_op_class_stmt", "create_op_family_stmt",
})  # fmt: skip
"""They keep no lock that stops readers or writers of a table. Of `vacuum_stmt`, ANALYZE alone gets here."""
_QUICK: Final = frozenset({
    "ColumnDefault", "DropNotNull", "SetStorage", "SetCompression", "DropConstraint", "AlterConstraint", "ChangeOwner", "EnableRule",
    "EnableAlwaysRule", "EnableReplicaRule", "DisableRule", "ReplicaIdentity", "EnableRowSecurity", "DisableRowSecurity",
    "ForceRowSecurity", "NoForceRowSecurity", "AddIdentity", "SetIdentity", "DropIdentity", "DropExpression", "DropInherit",
})  # fmt: skip
"""Of ALTER TABLE: ACCESS EXCLUSIVE, for a moment."""
_OF_TRIGGERS: Final = frozenset({
    "EnableTrig", "EnableAlwaysTrig", "EnableReplicaTrig", "DisableTrig", "EnableTrigAll", "DisableTrigAll", "EnableTrigUser",
    "DisableTrigUser",
})  # fmt: skip
_UNNOTICED: Final = frozenset({
    "SetStatistics", "SetOptions", "ResetOptions", "SetRelOptions", "ResetRelOptions", "ClusterOn", "DropCluster",
})  # fmt: skip
"""Of ALTER TABLE: SHARE UPDATE EXCLUSIVE, but for a storage parameter that changes what others see."""
_OF_ALTER: Final = {
    "SetNotNull": Hazard.SCANS_TABLE,
    "AlterColumnType": Hazard.REWRITES_TABLE,
    "SetExpression": Hazard.REWRITES_TABLE,
    "SetLogged": Hazard.REWRITES_TABLE,
    "SetUnLogged": Hazard.REWRITES_TABLE,
    "SetTableSpace": Hazard.REWRITES_TABLE,
    "SetAccessMethod": Hazard.REWRITES_TABLE,
    "DropColumn": Hazard.DROPS_DATA,
}
_LOSES: Final = {"TABLE", "MATVIEW", "SCHEMA", "SEQUENCE", "FOREIGN_TABLE", "TYPE", "DOMAIN"}
_BREAKS: Final = {"TABLE", "COLUMN", "VIEW", "MATVIEW", "SCHEMA", "TYPE", "FUNCTION", "ATTRIBUTE", "SEQUENCE"}
_LIMITS: Final = frozenset(
    {"lock_timeout", "statement_timeout", "session_replication_role", "role", "session_authorization"}
)


def effects_of(kind: str, tree: Any, script: Script) -> Iterator[Effect]:
    """All that a statement does; what is not known to be harmless needs review."""
    if kind in _RULES:
        yield from _RULES[kind](tree, script)
    elif kind not in _HARMLESS:
        yield Effect(hazard=Hazard.NEEDS_REVIEW)
    if kind in ("create_enum_stmt", "composite_type_stmt", "create_range_stmt"):
        names = [tree.typevar.relname] if kind == "composite_type_stmt" else [last_name(tree.type_name)]
        script.types.update(map(str, names))


# --- definitions ------------------------------------------------------------------------------------------------------


def _alter_table(tree: Any, script: Script) -> Iterator[Effect]:
    if _object(tree.objtype) not in ("TABLE", "INDEX", "SEQUENCE", "VIEW"):
        yield Effect(hazard=Hazard.NEEDS_REVIEW)
        return
    table = table_of(tree.relation)
    for one in tree.cmds:
        command = one.alter_table_cmd
        yield from _command(command, table, script)
        if command.subtype == postgast.pg_query_pb2.AT_AlterColumnType:
            script.retyped.add((table, str(command.name)))
        if _cascades(command):
            yield Effect(table, Lock.ACCESS_EXCLUSIVE, Hazard.CASCADES)


def _command(command: Any, table: str, script: Script) -> Iterator[Effect]:
    name = str(postgast.pg_query_pb2.AlterTableType.Name(command.subtype)).removeprefix("AT_")
    definition = getattr(command, "def")
    if name == "AddColumn":
        yield from of_new_column(definition.column_def, table, script)
    elif name == "AddConstraint":
        yield from of_new_constraint(definition.constraint, table)
    elif name == "ValidateConstraint":  # nobody waits for it, unless an earlier statement's lock is kept
        yield Effect(table, Lock.SHARE_UPDATE_EXCLUSIVE, takes_long=True, work=Effort.SCAN)
    elif name == "AttachPartition":
        yield Effect(table, Lock.SHARE_UPDATE_EXCLUSIVE)
        yield Effect(_partition(definition), Lock.ACCESS_EXCLUSIVE, Hazard.SCANS_TABLE, takes_long=True)
    elif name == "DetachPartition":
        yield Effect(table, Lock.ACCESS_EXCLUSIVE, Hazard.LOCKS_TABLE)
        yield Effect(_partition(definition), Lock.ACCESS_EXCLUSIVE)
    elif name in _OF_ALTER:
        hazard = _OF_ALTER[name]
        slow = hazard in (Hazard.SCANS_TABLE, Hazard.REWRITES_TABLE)
        yield Effect(table, Lock.ACCESS_EXCLUSIVE, hazard, takes_long=slow)
    elif name in _QUICK:
        yield Effect(table, Lock.ACCESS_EXCLUSIVE)
    elif name in _OF_TRIGGERS:
        yield Effect(table, Lock.SHARE_ROW_EXCLUSIVE)
    elif name in _UNNOTICED and not _of_the_catalogue(definition):
        yield Effect(table, Lock.SHARE_UPDATE_EXCLUSIVE)
    else:
        yield Effect(table, Lock.ACCESS_EXCLUSIVE, Hazard.NEEDS_REVIEW)


def _partition(definition: Any) -> str:
    return table_of(definition.partition_cmd.name)


def _of_the_catalogue(definition: Any) -> bool:
    """`user_catalog_table`, the only storage parameter that takes the strongest lock."""
    return any(one.def_elem.defname == "user_catalog_table" for one in definition.list.items)


def _index(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.SHARE, Hazard.BUILDS_INDEX, takes_long=True)


def _trigger(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.SHARE_ROW_EXCLUSIVE)


def _policy(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.table), Lock.ACCESS_EXCLUSIVE)


def _drop(tree: Any, script: Script) -> Iterator[Effect]:
    kind = _object(tree.remove_type)
    for one in tree.objects:
        names = [part.string.sval for part in one.list.items]
        of_table = kind in ("TRIGGER", "POLICY", "RULE")
        table = ".".join(names[:-1] if of_table else names) if of_table or kind in ("TABLE", "MATVIEW") else ""
        loses = kind in _LOSES and table not in script.made
        yield Effect(table, Lock.ACCESS_EXCLUSIVE, Hazard.DROPS_DATA if loses else None)
    if _cascades(tree):
        yield Effect(lock=Lock.ACCESS_EXCLUSIVE, hazard=Hazard.CASCADES)


def _rename(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    breaks = _object(tree.rename_type) in _BREAKS
    yield Effect(table_of(tree.relation), Lock.ACCESS_EXCLUSIVE, Hazard.RENAMES if breaks else None)


def _move(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.ACCESS_EXCLUSIVE, Hazard.RENAMES)


def _lock(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    lock = list(Lock)[tree.mode]  # the server numbers them by their strength
    yield from (Effect(table_of(one.range_var), lock, Hazard.LOCKS_TABLE) for one in tree.relations)


def _truncate(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    for one in tree.relations:
        yield Effect(table_of(one.range_var), Lock.ACCESS_EXCLUSIVE, Hazard.TRUNCATES)
    if _cascades(tree):
        yield Effect(lock=Lock.ACCESS_EXCLUSIVE, hazard=Hazard.CASCADES)


def _rebuild(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.ACCESS_EXCLUSIVE, Hazard.REWRITES_TABLE, takes_long=True)


def _reindex(tree: Any, script: Script) -> Iterator[Effect]:
    """SHARE on the table, and ACCESS EXCLUSIVE on its indexes, each of which every plan looks at: readers stop too."""
    del script
    whole = str(postgast.pg_query_pb2.ReindexObjectType.Name(tree.kind)) == "REINDEX_OBJECT_TABLE"
    table = table_of(tree.relation) if whole else ""
    yield Effect(table, Lock.ACCESS_EXCLUSIVE, Hazard.BUILDS_INDEX, takes_long=True)


def _rule(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.ACCESS_EXCLUSIVE, Hazard.NEEDS_REVIEW)


def _domain(tree: Any, script: Script) -> Iterator[Effect]:
    """A constraint is checked in each table that has a column of the domain."""
    del script
    checks = tree.subtype in ("C", "O", "V") and not getattr(tree, "def").constraint.skip_validation
    yield Effect(hazard=Hazard.SCANS_TABLE if checks else None, takes_long=checks)


def _set(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    if tree.name in _LIMITS or tree.name == "":  # RESET ALL has no name
        yield Effect(hazard=Hazard.NEEDS_REVIEW)


# --- rows ---------------------------------------------------------------------------------------------------------------


def _insert(tree: Any, script: Script) -> Iterator[Effect]:
    select = tree.select_stmt.select_stmt
    rows_of_others = tree.HasField("select_stmt") and not select.values_lists
    by_position = rows_of_others and not tree.cols
    hazard = Hazard.COLUMNS_BY_POSITION if by_position else None
    yield Effect(table_of(tree.relation), Lock.ROW_EXCLUSIVE, hazard, takes_long=rows_of_others)
    if rows_of_others:  # also into a table of one's own: it reads somebody else's while locks are kept
        yield Effect(takes_long=True)
    yield from _inside(tree, script)


def _change(tree: Any, script: Script) -> Iterator[Effect]:
    """UPDATE and DELETE."""
    bounded = tree.HasField("where_clause")
    hazard = None if bounded else Hazard.UNBOUNDED_DML
    yield Effect(table_of(tree.relation), Lock.ROW_EXCLUSIVE, hazard, takes_long=True, work=Effort.CHANGE)
    columns = {last_name(node.fields) for _, node in postgast.walk(tree) if type(node).__name__ == "ColumnRef"}
    nulls = any(type(node).__name__ == "NullTest" for _, node in postgast.walk(tree.where_clause))
    if nulls and columns & script.defaulted:
        yield Effect(table_of(tree.relation), hazard=Hazard.DEFAULT_HIDES_BACKFILL)
    yield from _inside(tree, script)


def _merge(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield Effect(table_of(tree.relation), Lock.ROW_EXCLUSIVE, takes_long=True, work=Effort.CHANGE)


def _select(tree: Any, script: Script) -> Iterator[Effect]:
    yield Effect(takes_long=bool(tree.from_clause))
    yield from _inside(tree, script)


def _table_as(tree: Any, script: Script) -> Iterator[Effect]:
    script.made.add(table_of(tree.into.rel))
    yield Effect(takes_long=True)


def _inside(tree: Any, script: Script) -> Iterator[Effect]:
    """Statements of its WITH."""
    for one in tree.with_clause.ctes:
        query = one.common_table_expr.ctequery
        kind = query.WhichOneof("node")
        if kind in ("insert_stmt", "update_stmt", "delete_stmt", "merge_stmt"):
            yield from effects_of(kind, getattr(query, kind), script)


def _do(tree: Any, script: Script) -> Iterator[Effect]:
    del script
    yield from of_do(tree)


def _object(value: int) -> str:
    return str(postgast.pg_query_pb2.ObjectType.Name(value)).removeprefix("OBJECT_")


def _cascades(tree: Any) -> bool:
    return str(postgast.pg_query_pb2.DropBehavior.Name(tree.behavior)) == "DROP_CASCADE"


_RULES: Final[Mapping[str, Callable[[Any, Script], Iterator[Effect]]]] = {
    "alter_table_stmt": _alter_table,
    "create_stmt": of_new_table,
    "index_stmt": _index,
    "create_trig_stmt": _trigger,
    "create_policy_stmt": _policy,
    "alter_policy_stmt": _policy,
    "drop_stmt": _drop,
    "rename_stmt": _rename,
    "alter_object_schema_stmt": _move,
    "lock_stmt": _lock,
    "truncate_stmt": _truncate,
    "cluster_stmt": _rebuild,
    "refresh_mat_view_stmt": _rebuild,
    "reindex_stmt": _reindex,
    "rule_stmt": _rule,
    "alter_domain_stmt": _domain,
    "variable_set_stmt": _set,
    "insert_stmt": _insert,
    "update_stmt": _change,
    "delete_stmt": _change,
    "merge_stmt": _merge,
    "select_stmt": _select,
    "create_table_as_stmt": _table_as,
    "do_stmt": _do,
}
