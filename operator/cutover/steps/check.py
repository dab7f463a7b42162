"""The kind `check`: changes nothing; its gates must hold for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, ClassVar

from pydantic import Field

from cutover.saga.turn import Done, Outcome, StageRule
from cutover.schema.model import Duration, show_duration
from cutover.steps.kind import Kind, Purpose, StepContext


class Check(Kind):
    """Lets the gates of the step watch for a while (soak). It changes nothing, so twice is harmless."""

    key: ClassVar[str] = "check"
    undoes: ClassVar[bool] = False
    passable: ClassVar[bool] = True
    needs_gates: ClassVar[bool] = True

    for_: Duration = Field(
        default=timedelta(), alias="for", description="How long the gates are watched; they must pass at its end."
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the watching."""
        span = f" for {show_duration(self.for_)}" if self.for_ else ""
        return (StageRule(f"watch the gates{span}", self.for_),)

    def purposes(self) -> frozenset[Purpose]:
        """Its gates prove something."""
        return frozenset({Purpose.VERIFIES})

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Nothing; the gates do it."""
        del context, stage, prefetched
        return Done()
