"""The kind `wait`: lets time pass."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from pydantic import Field, field_validator

from cutover.saga.turn import StageRule
from cutover.schema.model import Duration, show_duration, validations
from cutover.steps.parts import ChangesNothing


class Delay(ChangesNothing):
    """Lets time pass.

    Idempotent, because it changes nothing.
    """

    key: ClassVar[str] = "wait"

    for_: Duration = Field(
        alias="for",
        description="How long to wait.",
        json_schema_extra=validations(
            ("duration(self) > duration('0s')", "waiting for 0s does nothing; give a duration or remove the step")
        ),
    )

    @field_validator("for_")
    @classmethod
    def _some_time(cls, span: timedelta) -> timedelta:
        if not span:
            raise ValueError("waiting for 0s does nothing; give a duration or remove the step")
        return span

    def stages(self) -> tuple[StageRule, ...]:
        """One: the time."""
        return (StageRule(f"wait for {show_duration(self.for_)}", self.for_),)
