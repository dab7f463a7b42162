"""The kind `approve`: waits for an approval."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from cutover.saga.turn import Done, Outcome, StageRule, Wait
from cutover.steps.kind import Kind, StepContext


class Approve(Kind):
    """Waits for the approval of a user (request approve).

    Idempotent, because it changes nothing: the approval is kept in the status.
    """

    key: ClassVar[str] = "approve"
    undoes: ClassVar[bool] = False
    passable: ClassVar[bool] = True
    bounded: ClassVar[bool] = False

    message: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        description="What is approved, shown to the approver."
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the approval."""
        return (StageRule(f'approval "{self.message}"', needs_approval=True),)

    async def do(self, context: StepContext, stage: int, prefetched: Any) -> Outcome:
        """Report whether the stage is approved."""
        del stage, prefetched
        return Done() if context.approved else Wait("AwaitingApproval", self.message)
