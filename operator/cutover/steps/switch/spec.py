"""The fields of a `switch` step, and what follows from them alone: the stage, the target, the written field. No request is made here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, StringConstraints, field_validator

from cutover.errors import Problem
from cutover.field_path import Change, Json
from cutover.ports import SERVICES, Ref
from cutover.saga.turn import StageRule
from cutover.schema.model import Duration, Name
from cutover.steps.kind import StepContext, Target
from cutover.steps.parts import WritesFields
from cutover.steps.shared.backward import DRAIN, Backward, DrainTime
from cutover.steps.shared.ready_sides import UNREADY_DEADLINE
from cutover.targets.snapshots import Snapshot

_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
LabelValue = Annotated[
    str, StringConstraints(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$")
]


class SwitchSpec(WritesFields):
    """The fields of a `switch` step."""

    key: ClassVar[str] = "switch"

    service: Name = Field(description="Name of the Service.")
    selector: dict[str, LabelValue] = Field(
        min_length=1,
        max_length=16,
        description="Labels of the new pods, set in the Service's selector. Labels not named here stay.",
    )
    min_ready: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Ready pods that the new side needs before traffic is switched to it. Default: as many as the old side had at the start.",
    )

    drain: DrainTime = DRAIN
    backward: Backward = Field(
        default=Backward(), description="What the old side needs before traffic goes back to it."
    )

    unready_deadline: Duration = UNREADY_DEADLINE

    @field_validator("selector", mode="before")
    @classmethod
    def _labels_at_once(cls, given: Any) -> Any:
        for word in ("matchLabels", "matchExpressions"):
            if isinstance(given, Mapping) and word in given:
                raise ValueError(
                    f"a Service's selector has no {word}; write the labels directly, such as version: green"
                )
        for key in given if isinstance(given, Mapping) else ():
            if not _KEY.fullmatch(str(key)):
                words = "letters, digits, -, _ and ., up to 63 characters, after a domain and a slash if it has one"
                raise ValueError(f"{key!r} is not a valid label key; use {words}")
        return given

    def stages(self) -> tuple[StageRule, ...]:
        """One: the switch."""
        return (StageRule(f"point Service {self.service} to pods with {shown(self.selector)}"[:512]),)

    def touches(self) -> tuple[Target, ...]:
        """The Service."""
        return (Target(SERVICES, self.service),)

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """The selector."""
        ((path, was),), (ours,) = snapshot.values, snapshot.ours
        return [Change(path, to=was, was=was, ours=ours)]

    def fields(self, target: Target, body: Json) -> list[str]:
        """The selector."""
        del target, body
        return [".spec.selector"]

    def ref(self, context: StepContext) -> Ref:
        """The Service by its full address."""
        return self.touches()[0].ref(context.namespace)

    def unfit(self, body: Json, place: str) -> list[Problem]:
        """Why the selector of this Service cannot be switched."""
        spec = body["spec"]
        if spec.get("type") == "ExternalName":
            message = f"Service {self.service} is of type ExternalName, so it has no pods; name another Service"
        elif not spec.get("selector"):
            message = f"Service {self.service} has no selector, so its endpoints are set by hand; add one first"
        else:
            return []
        return [Problem(f"{place}.service", message)]


def shown(labels: Mapping[str, str]) -> str:
    """Labels as messages show them."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
