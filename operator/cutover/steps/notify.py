"""The kind `notify`: posts a message to a provider."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

from pydantic import Field

from cutover.errors import Problem
from cutover.messaging import Delivery, Message, Tone
from cutover.saga.turn import Again, Done, Outcome, StageRule
from cutover.schema.model import Label
from cutover.steps.kind import StepContext
from cutover.steps.parts import Examines, HasPurposes, Passable, Purpose, Unbounded
from cutover.steps.shared.preconditions import unknown_provider

_PATIENCE: Final = 30.0
"""Seconds after which the plan continues, whether the message was delivered or not."""

Said = Annotated[str, Field(min_length=1, max_length=400)]


class Notify(Examines, Unbounded, HasPurposes, Passable):
    """Posts a message to a provider, and another one on rollback.

    It changes nothing in the cluster. A process posts it once per attempt, however often it reads the plan again. It is
    idempotent but for the receiver, where a message may arrive twice: once from each process that does the step, and where a receiver accepted it and its
    answer was lost. A receiver that accepts nothing never fails the step.
    """

    key: ClassVar[str] = "notify"

    provider: Label = Field(description="Name of a provider that the administrator has configured under notify.")
    message: Said = Field(description="The message.")
    undo_: Said | None = Field(
        default=None,
        alias="undo",
        description='The message when the step is undone. Default: "undone: " followed by message.',
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the message."""
        return (StageRule(f"tell {self.provider}: {self.message}"[:512]),)

    def purposes(self) -> frozenset[Purpose]:
        """It notifies users."""
        return frozenset({Purpose.NOTIFIES})

    async def examine(self, context: StepContext) -> list[Problem]:
        """The provider exists."""
        message = unknown_provider(context.messenger, self.provider)
        return [Problem(f"{context.place}.notify.provider", message)] if message else []

    async def do(self, context: StepContext, stage: int) -> Outcome:
        """Post the message, then report its delivery."""
        del stage
        # An earlier process has posted it.
        if context.applied and context.messenger.delivery(_key(context, "do")) is None:
            return Done()
        delivery = self._post(context, "do")
        if not delivery.over:
            return Again(context.next_look(), f"the message is on its way to {self.provider}")
        return Done(message=f"not delivered to {self.provider}: {delivery.error}" if delivery.error else "")

    async def undo(self, context: StepContext) -> Outcome:
        """Post the message of the undo without waiting for its delivery: other undos come after this one."""
        self._post(context, "undo")
        return Done()

    def _post(self, context: StepContext, verb: str) -> Delivery:
        """Post the message, if this process has not; its delivery."""
        plan = context.targets.owner.plan
        title = f"MigrationPlan {plan.namespace}/{plan.name}: step {context.targets.step}"
        text, tone = self.message, Tone.INFO
        if verb == "undo":
            text, tone = self.undo_ or f"undone: {self.message}", Tone.WARNING
        return context.messenger.post(self.provider, Message(title, text, tone), _PATIENCE, _key(context, verb))


def _key(context: StepContext, verb: str) -> tuple[str | int, ...]:
    """Not kept in `memo`, which is lost when the plan is changed while it is saved: a message cannot be read back."""
    owner = context.targets.owner
    return owner.uid, owner.run, context.targets.step, context.attempt, verb
