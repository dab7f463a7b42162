"""The kind `approve`: waits for a person."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from cutover.saga.turn import Done, Outcome, StageRule, Wait
from cutover.steps.kind import Kind, StepContext


class Approve(Kind):
    """Waits for a person's `approve` request. It changes nothing, so twice is harmless; the request is kept in the status."""

    key: ClassVar[str] = "approve"
    undoes: ClassVar[bool] = False
    passable: ClassVar[bool] = True
    bounded: ClassVar[bool] = False

    message: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        description="What is approved, shown to the person."
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the approval."""
        return (StageRule(f"approval: {self.message}", needs_approval=True),)

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Report whether somebody has approved."""
        del stage, prefetched
        return Done() if context.approved else Wait("AwaitingApproval", self.message)
