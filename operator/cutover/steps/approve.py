"""The kind `approve`: waits for an approval."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cutover.saga.turn import Done, Outcome, StageRule, Wait
from cutover.steps.kind import StepContext
from cutover.steps.parts import ChangesNothing, Unbounded


class Approve(Unbounded, ChangesNothing):
    """Waits for the approval of a user (request approve).

    Idempotent, because it changes nothing: the approval is kept in the status.
    """

    key: ClassVar[str] = "approve"

    message: Annotated[str, Field(min_length=1, max_length=400)] = Field(
        description="What is approved, shown to the approver."
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the approval."""
        return (StageRule(f'approval "{self.message}"', needs_approval=True),)

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Report whether the stage is approved."""
        del stage
        return Done() if context.approved else Wait("AwaitingApproval", self.message)
