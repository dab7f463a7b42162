"""Who is told of which phases of a plan, and in which words. Pure; used by `plan.py` and by what sends."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from cutover.field_path import Json
from cutover.ports import Message, Tone
from cutover.schema.model import Label, Model
from cutover.status.status import Phase

_LONGEST: Final = 1000
"""Characters of a status that are sent: all that is missing may be many times that."""
_TONES: Final = {
    Phase.SUCCEEDED: Tone.SUCCESS,
    Phase.ROLLING_BACK: Tone.WARNING,
    Phase.PAUSED: Tone.WARNING,
    Phase.STUCK: Tone.FAILURE,
    Phase.ROLLED_BACK: Tone.FAILURE,
    Phase.REFUSED: Tone.FAILURE,
    Phase.ABANDONED: Tone.FAILURE,
}
_SET: Final[dict[str, Any]] = {"x-kubernetes-list-type": "set"}

Told = Literal[
    "Running", "Waiting", "RollingBack", "Paused", "Stuck", "Succeeded", "RolledBack", "Refused", "Abandoned"
]


class Notification(Model):
    """A provider that is told when the plan comes into one of these phases."""

    provider: Label = Field(description="Name of a provider that the administrator has configured under notify.")
    # Not `on`: kubectl reads that key as the truth value of YAML 1.1.
    phases: Annotated[tuple[Told, ...], Field(min_length=1, max_length=9)] = Field(
        description="The phases that are told of.", json_schema_extra=_SET
    )


def message_of(plan: Json, phase: Phase) -> Message:
    """What is said of a plan that has come into a phase: its body as it was saved."""
    metadata, status = plan["metadata"], plan["status"]
    says = status.get("message") or status.get("reason") or ""
    why = (status.get("failure") or {}).get("message", "")
    if why and why not in says:
        says = f"{says}; because {why}"
    name = f"{metadata['namespace']}/{metadata['name']}"
    return Message(f"MigrationPlan {name}: {phase}", says[:_LONGEST], _TONES.get(phase, Tone.INFO))
