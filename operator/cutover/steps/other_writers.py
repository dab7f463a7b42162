"""Somebody else writes the fields of a step: how often that is repaired before the plan pauses and names who it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cutover.field_path import Change, stand
from cutover.ports import FIELD_MANAGER, Ref
from cutover.saga.turn import Pause
from cutover.steps.kind import StepContext

_MOST_REPAIRS: Final = 5
"""What somebody else set is put back so many times within a minute, before a person must settle who is right."""


def note_written(context: StepContext) -> None:
    """This process has brought the fields of the step to their values. Forgotten when they are taken back."""
    context.memo[f"{context.place}.set"] = True


def forget_written(context: StepContext) -> None:
    """The fields of the step are not to have its values any more."""
    context.memo.pop(f"{context.place}.set", None)


async def repaired_too_often(context: StepContext, ref: Ref, changes: Sequence[Change]) -> bool:
    """Whether somebody sets again what was before, and has had it put back too often: asked before each write."""
    if f"{context.place}.set" not in context.memo or stand(await context.targets.view(ref), changes):
        return False
    return count_repair(context)


def count_repair(context: StepContext) -> bool:
    """Note that what somebody else set is about to be put back; whether that was done too often within the last minute."""
    memo = f"{context.place}.repairs"
    recent: list[datetime] = [at for at in context.memo.pop(memo, ()) if context.now - at < timedelta(minutes=1)]
    if len(recent) >= _MOST_REPAIRS:  # from here on a person settles it, and then it is counted from the start
        return True
    context.memo[memo] = [*recent, context.now]
    return False


async def foreign_writer(context: StepContext, ref: Ref, what: str) -> Pause:
    """Nobody wins against a writer that does not stop: hold, and name it as a field manager."""
    managed = (await context.cluster.get(ref))["metadata"].get("managedFields") or ()
    others = [entry for entry in managed if entry.get("manager") != FIELD_MANAGER and not entry.get("subresource")]
    last = max(others, key=lambda entry: entry.get("time", ""), default=None)
    who = f"field manager {last['manager']}" if last else "somebody"
    message = f"{who} has changed {what} of {ref} more than {_MOST_REPAIRS} times in a minute"
    return Pause("ForeignWriter", f"{message}; make it leave them alone, then resume")
