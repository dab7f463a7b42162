"""The fields of a `flags` step, and what follows from them alone: the stage, the targets, the written fields. No request is made here."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import Field, field_validator, model_validator

from cutover.field_path import Change, Json
from cutover.gates.readiness import Workload
from cutover.ports import CONFIG_MAPS, Ref
from cutover.saga.turn import StageRule
from cutover.schema.model import Name
from cutover.steps.flags.restart import RESTART, RESTARTED_BY, second_id
from cutover.steps.kind import StepContext, Target
from cutover.steps.parts import HasPurposes, Purpose, RollsOut, WritesFields
from cutover.targets.patching import merge
from cutover.targets.snapshots import Snapshot

_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LONGEST: Final = 40
"""Characters of one value in messages."""
_MAINTENANCE: Final[Mapping[str, Purpose]] = {
    **dict.fromkeys(("true", "on", "yes", "1", "enabled"), Purpose.STARTS_MAINTENANCE),
    **dict.fromkeys(("false", "off", "no", "0", "disabled"), Purpose.ENDS_MAINTENANCE),
}

Value = Annotated[str, Field(max_length=16_384)]


class FlagsSpec(WritesFields, RollsOut, HasPurposes):
    """The fields of a `flags` step."""

    key: ClassVar[str] = "flags"
    set_again: ClassVar[bool] = False  # pods that started in between may have read the other value

    config_map: Name = Field(description="Name of the ConfigMap.")
    set_: dict[str, Value] = Field(
        alias="set",
        min_length=1,
        max_length=64,
        description="Keys of its data with their new values. Keys not named here stay.",
    )
    reload: tuple[Workload, ...] = Field(
        default=(),
        max_length=16,
        description="Workloads to restart, all at once: every workload that reads one of the keys, as a variable or a file.",
    )
    leave: tuple[Workload, ...] = Field(
        default=(),
        max_length=16,
        description="Workloads that read one of the keys and are not restarted: their pods may keep the old value.",
    )

    @field_validator("set_", mode="before")
    @classmethod
    def _keys_of_data(cls, given: Any) -> Any:
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise ValueError(
                    f"{key!r} is not a valid key of a ConfigMap; use letters, digits, -, _ and ., at most 253"
                )
            if value is None:
                raise ValueError(
                    f'{key} has no value; write one in quotes, such as "false": a step cannot remove a key'
                )
        return given

    @model_validator(mode="after")
    def _makes_sense(self) -> FlagsSpec:
        for field, named in (("reload", self.reload), ("leave", self.leave)):
            names = [_named(workload) for workload in named]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} is listed twice in {field}; keep one")
        if both := sorted(_named(workload) for workload in set(self.reload) & set(self.leave)):
            raise ValueError(f"{both[0]} is listed in reload and in leave; keep one")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One: the values, and the restarts."""
        values = ", ".join(f"{key}={_shown(value)}" for key, value in self.set_.items())
        restarts = "".join(f", restart {_named(workload)}" for workload in self.reload)
        return (StageRule(f"set {values} in ConfigMap {self.config_map}{restarts}"[:512]),)

    def purposes(self) -> frozenset[Purpose]:
        """Another configuration; the value of a key named after maintenance tells whether maintenance starts or ends."""
        found = {_MAINTENANCE.get(value.lower()) for key, value in self.set_.items() if "maintenance" in key.lower()}
        return frozenset({Purpose.CONFIGURES, *(purpose for purpose in found if purpose)})

    def touches(self) -> tuple[Target, ...]:
        """The ConfigMap, then the workloads."""
        workloads = (Target(workload.resource, workload.name) for workload in self.reload)
        return (Target(CONFIG_MAPS, self.config_map), *workloads)

    def rolls_out(self) -> Target | None:
        """The workload, if there is exactly one."""
        restarted = self.touches()[1:]
        return restarted[0] if len(restarted) == 1 else None

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each key, or the annotation with both of its values."""
        return [
            Change(path, to=was, was=was, ours=ours, previous=(second_id(ours),) if path == RESTARTED_BY else ())
            for (path, was), ours in zip(snapshot.values, snapshot.ours, strict=True)
        ]

    def fields(self, target: Target, body: Json) -> list[str]:
        """The keys, and of workloads the annotation."""
        del body
        if target.resource == CONFIG_MAPS:
            return [f".data[{json.dumps(key)}]" for key in self.set_]
        return [f".spec.template.metadata.annotations[{json.dumps(RESTART)}]"]

    def predicted_spec(self, target: Target, spec: Json) -> Json:
        """A restarted workload gets another pod template."""
        if target.resource == CONFIG_MAPS:
            return spec
        return merge(spec, {"template": {"metadata": {"annotations": {RESTART: "restarted"}}}})

    def refs(self, context: StepContext) -> list[Ref]:
        """The ConfigMap, then the workloads, by their full addresses."""
        return [target.ref(context.namespace) for target in self.touches()]


def _named(workload: Workload) -> str:
    return f"{workload.kind} {workload.name}"


def _shown(value: str) -> str:
    return value if value.isprintable() and len(value) <= _LONGEST else f"({len(value)} characters)"
