"""Whether what a step did is still so: the answer of `Kind.postcondition`. Plain values.

Kinds return them; the engine turns them into what happens to the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Stands:
    """Everything that the step did is as it left it.

    Attributes:
        after: seconds until it has to be asked again although no event came; None: an event of what is streamed tells.
        unsettled: what is wrong and may still pass by itself; until then nothing may build on the step, such as taking
            capacity away. Empty: nothing.
    """

    after: float | None = None
    unsettled: str = ""


@dataclass(frozen=True, slots=True)
class Differs:
    """Another writer has changed what the step wrote. Only a user knows which is right, so the plan pauses.

    Attributes:
        reason: CamelCase.
        message: the field with both values, who wrote it, and the way out.
    """

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failing:
    """What the step did no longer works, such as a side that carries weight and has no ready pod. The step fails.

    Attributes:
        reason: CamelCase.
        message: what is wrong, with its numbers.
    """

    reason: str
    message: str


Standing: TypeAlias = Stands | Differs | Failing
