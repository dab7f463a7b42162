"""What the kinds that move traffic ask for on rollback, and for how long pods stay after traffic has moved away from them.

Fields and numbers only; `traffic` and `switch` count pods themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from cutover.field_path import Change, Json
from cutover.objects.endpoints import Side, behind
from cutover.ports import Ref
from cutover.saga.turn import Again, Outcome, Wait
from cutover.schema.model import Duration, Model, show_duration, validations
from cutover.steps.kind import Drain, StepContext
from cutover.targets.snapshots import Snapshot

_LONGEST: Final = timedelta(minutes=5)
_TOO_LONG: Final = (
    f"is longer than {show_duration(_LONGEST)}, the longest drain; put a wait before the step that takes the pods away"
)
_NOT_READY_LIMIT: Final = 60.0
"""Seconds without progress until an undo that waits for the old side is Stuck, which asks for attention."""


class Backward(Model):
    """What the old side needs before traffic goes back to it."""

    share: int = Field(
        default=50,
        ge=1,
        le=100,
        description="Percent of the ready endpoints that the way forward would ask for: fewer are better than a new version that fails. Default 50.",
    )


def _bounded(span: timedelta) -> timedelta:
    if span > _LONGEST:
        raise ValueError(f"{show_duration(span)} {_TOO_LONG}")
    return span


DrainTime = Annotated[Duration, AfterValidator(_bounded)]
DRAIN: Final[Any] = Field(
    default=timedelta(seconds=30),
    description="How long after traffic has moved away from a side no step takes pods from it, up to 5m. Default 30s.",
    json_schema_extra=validations(
        (f"duration(self) <= duration('{show_duration(_LONGEST)}')", f"='drain ' + self + ' {_TOO_LONG}'")
    ),
)
"""The field `drain` of a step."""


def old_side_not_ready(context: StepContext, message: str, *, reached: int = 0, moved: bool = False) -> Outcome:
    """Traffic cannot go back yet, or only in part: check again, and become Stuck after a while without progress.

    Args:
        context: of the undo.
        message: what the old side lacks.
        reached: how much has gone back, in any measure.
        moved: some of it in this very command.
    """
    if moved or context.elapsed < _NOT_READY_LIMIT:
        return Again(context.next_look(), message, reached=reached)
    return Wait("OldSideNotReady", message)


async def change_and_note(
    context: StepContext, ref: Ref, snapshot: Snapshot, changes: Sequence[Change], body: Json
) -> Json:
    """Write what moves traffic, over `body`, and note it for the drain; where no answer comes, it may be written all the same."""
    after = None
    try:
        after = await context.targets.change(ref, snapshot.uid, changes, body)
    finally:
        if after is not body:  # otherwise there was nothing to write
            context.moved()
    return after


async def drain_of(context: StepContext, until: datetime, why: str, sides: Iterable[Side]) -> Drain | None:
    """A drain of all workloads behind these sides; None when it is over."""
    if until <= context.now:
        return None
    return Drain(frozenset(await behind(context.cluster, context.namespace, *sides)), until, why)
