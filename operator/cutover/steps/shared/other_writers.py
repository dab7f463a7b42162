"""Another writer changes the fields of a step: how often that is repaired before the plan pauses and names the writer."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cutover.field_path import Change, stand
from cutover.ports import Ref
from cutover.saga.turn import Pause
from cutover.steps.kind import StepContext
from cutover.targets.writers import last_writer

_MOST_REPAIRS: Final = 5
"""So many changes of another writer are repaired within a minute; then a user must decide."""


def note_written(context: StepContext) -> None:
    """This process has set the fields of the step, so a different value from now on is another writer's."""
    context.memo[f"{context.place}.set"] = True


def forget_written(context: StepContext) -> None:
    """An undo has started: the fields are expected to change."""
    context.memo.pop(f"{context.place}.set", None)


async def repaired_too_often(context: StepContext, ref: Ref, changes: Sequence[Change]) -> bool:
    """Whether another writer keeps setting the fields, and the limit of repairs is reached. Called before each write."""
    if f"{context.place}.set" not in context.memo or stand(await context.targets.view(ref), changes):
        return False
    return count_repair(context)


def count_repair(context: StepContext) -> bool:
    """Count a repair of another writer's change; True when there were too many within the last minute."""
    memo = f"{context.place}.repairs"
    recent: list[datetime] = [at for at in context.memo.pop(memo, ()) if context.now - at < timedelta(minutes=1)]
    if len(recent) >= _MOST_REPAIRS:  # a user decides now; after that the count starts from zero
        return True
    context.memo[memo] = [*recent, context.now]
    return False


async def foreign_writer(context: StepContext, ref: Ref, what: str) -> Pause:
    """Repairs do not help against a writer that does not stop: pause, and name its field manager."""
    who = last_writer(await context.cluster.get(ref))
    message = f"{who} has changed {what} of {ref} more than {_MOST_REPAIRS} times in a minute"
    return Pause("ForeignWriter", f"{message}; make it leave them alone, then resume")
