"""What the statements of a script lock and do, and what is dangerous about them, by rules on PostgreSQL's own tree.

What is not known to be harmless needs review. A table that the script itself has made is nobody else's yet, so nothing that is
done to it is a hazard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cutover.database.engines.base import Impact, Made, Statement
from cutover.database.engines.postgresql.hazards.effects import Effect, Script
from cutover.database.engines.postgresql.hazards.statements import effects_of
from cutover.database.engines.postgresql.scripts import tree_of
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.result import Finding


def impacts(statements: Sequence[Statement]) -> Iterator[Impact]:
    """What a script does, in its order, once a statement and table."""
    script = Script()
    for statement in statements:
        kind, tree = tree_of(statement)
        effects = list(effects_of(kind, tree, script))
        tables = dict.fromkeys(effect.table for effect in effects)
        foreign = [table for table in tables if not table or table not in script.made]
        yield from filter(None, (_impact(statement, table, effects, script) for table in foreign))
        script.add(effects)


def makes(statements: Sequence[Statement]) -> Made:
    """What a script makes."""
    script = Script()
    for statement in statements:
        kind, tree = tree_of(statement)
        script.add(list(effects_of(kind, tree, script)))
    return Made(frozenset(script.made), frozenset(script.added), frozenset(script.retyped))


def _impact(statement: Statement, table: str, effects: Sequence[Effect], script: Script) -> Impact | None:
    """What all effects on one table come to; None: nothing."""
    mine = [effect for effect in effects if effect.table == table]
    lock = max((effect.lock for effect in mine), key=lambda one: one.strength)
    effort = next((effect.effort for effect in mine if effect.effort), mine[0].effort)
    found = dict.fromkeys(hazard for effect in mine for hazard in _hazards(effect, script))
    return Impact(statement, table, lock, effort, tuple(found)) if lock or found else None


def find(statements: Sequence[Statement]) -> Iterator[Finding]:
    """The hazards of a script, in its order, each once a statement and table."""
    for impact in impacts(statements):
        yield from impact.findings()


def _hazards(effect: Effect, script: Script) -> Iterator[Hazard]:
    if effect.hazard is not None:
        yield effect.hazard
    if effect.takes_long and script.blocked:
        yield Hazard.DML_AFTER_BLOCKING_DDL
