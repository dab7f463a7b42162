"""Which undos may be done ahead of their turn. Reads only; called by the driver on each turn of a rollback."""

from __future__ import annotations

from cutover.engine.command_context import CommandContext
from cutover.errors import OutsideError, PlanError
from cutover.ports import Ref
from cutover.saga.tables import TOUCHED
from cutover.steps.parts import Passable, UndoneEarly
from cutover.targets.fields import Foreign


async def ready_to_undo(context: CommandContext) -> frozenset[int]:
    """Steps whose undo may be done ahead of the steps after them: those are passable and write nothing that it rests on."""
    remaining = [at for at, step in enumerate(context.status.steps) if step.state in TOUCHED]
    ready = set()
    for place, at in enumerate(remaining[:-1]):
        later = remaining[place + 1 :]
        kind = context.plan.steps[at].kind
        if not isinstance(kind, UndoneEarly) or not all(_passable(context, after) for after in later):
            continue
        rests_on = await _rests_on(context, kind, at)
        if rests_on is not None and not any(rests_on & set(context.targets_of(after)) for after in later):
            ready.add(at)
    return frozenset(ready)


def _passable(context: CommandContext, at: int) -> bool:
    return isinstance(context.plan.steps[at].kind, Passable)


async def _rests_on(context: CommandContext, kind: UndoneEarly, at: int) -> frozenset[Ref] | None:
    try:
        return await kind.early_undo(context.step_context(at))
    except (OutsideError, PlanError, Foreign):
        return None
