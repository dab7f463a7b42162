"""Which providers are notified of which phases of a plan, and the message. Pure; used by `spec.py` and by what sends."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from cutover.field_path import Json
from cutover.messaging import Message, Tone
from cutover.schema.model import Label, Model
from cutover.status.status import Phase

_LONGEST: Final = 1000
"""Characters of a message that are sent: a list of everything that is missing may be much longer."""
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
    """A provider that is notified when the plan enters one of these phases."""

    provider: Label = Field(description="Name of a provider that the administrator has configured under notify.")
    # Not `on`: YAML 1.1, which kubectl reads, takes that key for a boolean.
    phases: Annotated[tuple[Told, ...], Field(min_length=1, max_length=9)] = Field(
        description="The phases it is notified of.", json_schema_extra=_SET
    )


def message_of(plan: Json, phase: Phase) -> Message:
    """The message about a plan that has entered a phase, from its body as it was saved."""
    metadata, status = plan["metadata"], plan["status"]
    text = status.get("message") or status.get("reason") or ""
    why = (status.get("failure") or {}).get("message", "")
    if why and why not in text:
        text = f"{text}; cause: {why}"
    name = f"{metadata['namespace']}/{metadata['name']}"
    return Message(f"MigrationPlan {name}: {phase}", text[:_LONGEST], _TONES.get(phase, Tone.INFO))
