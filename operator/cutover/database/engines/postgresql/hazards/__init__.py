"""What is dangerous about the statements of a script, by rules on PostgreSQL's own tree.

What is not known to be harmless needs review. A table that the script itself has made is nobody else's yet, so nothing that is
done to it is a hazard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cutover.database.engines.base import Statement
from cutover.database.engines.postgresql.hazards.effects import Effect, Script
from cutover.database.engines.postgresql.hazards.statements import effects_of
from cutover.database.engines.postgresql.scripts import tree_of
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.result import Finding, identifier


def find(statements: Sequence[Statement]) -> Iterator[Finding]:
    """The hazards of a script, in its order, each once a statement and table."""
    script = Script()
    for statement in statements:
        kind, tree = tree_of(statement)
        effects = list(effects_of(kind, tree, script))
        found = dict.fromkeys((hazard, effect.table) for effect in effects for hazard in _hazards(effect, script))
        for hazard, table in found:
            yield Finding(hazard, statement.number, statement.line, identifier(table))
        script.add(effects)


def _hazards(effect: Effect, script: Script) -> Iterator[Hazard]:
    if effect.table and effect.table in script.made:
        return
    if effect.hazard is not None:
        yield effect.hazard
    if effect.takes_long and script.blocked:
        yield Hazard.DML_AFTER_BLOCKING_DDL
