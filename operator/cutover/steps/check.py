"""The kind `check`: changes nothing; its gates must pass for a while."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field

from cutover.saga.turn import StageRule
from cutover.schema.model import Duration, show_duration
from cutover.steps.parts import ChangesNothing, HasPurposes, NeedsGates, Purpose


class Check(NeedsGates, HasPurposes, ChangesNothing):
    """Evaluates the gates of the step for some time (soak).

    Idempotent, because it changes nothing.
    """

    key: ClassVar[str] = "check"

    for_: Duration = Field(
        default=timedelta(),
        alias="for",
        description="How long the gates are evaluated; they must pass at the end of that time.",
    )

    def stages(self) -> tuple[StageRule, ...]:
        """One: the evaluation of the gates."""
        span = f" for {show_duration(self.for_)}" if self.for_ else ""
        return (StageRule(f"evaluate the gates{span}", self.for_),)

    def purposes(self) -> frozenset[Purpose]:
        """Its gates verify something."""
        return frozenset({Purpose.VERIFIES})
