"""A condition of a plan, as all Kubernetes resources have them; see `status.py`, and `conditions.py` for what each says."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from cutover.status.spelling import AS_KUBERNETES_SPELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A condition, as all Kubernetes resources have them.

    Attributes:
        type: Type of the condition, such as Succeeded, Ready, Reconciling or Stalled.
        status: Whether the condition is true, false or unknown.
        reason: Why, in CamelCase.
        message: Why, in a sentence.
        last_transition_time: When the status of this condition last changed.
        observed_generation: Generation of the plan that the condition is about.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int
