"""The fields of a `deploy` step, and what follows from them alone: the stage, the target, the written fields. No request is made here."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from cutover.field_path import Change, Json
from cutover.gates.readiness import Workload
from cutover.objects import spec_patch
from cutover.ports import DAEMON_SETS
from cutover.saga.turn import StageRule
from cutover.schema.model import Label, Model, validations
from cutover.schema.problems import WrongFields
from cutover.schema.yaml_text import YamlText
from cutover.steps.kind import Target
from cutover.steps.parts import BringsPods, HasPurposes, Passable, Purpose, RollsOut, WritesFields
from cutover.targets.patching import merge
from cutover.targets.snapshots import Snapshot

_NOTHING: Final = "sets nothing; give images, replicas or patch"
_NO_REPLICAS: Final = "a DaemonSet has no replicas, it runs one pod per node; remove replicas"


class Image(Model):
    """The image of one container."""

    container: Label = Field(description="Name of the container.")
    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] = Field(description="Image to run.")


class DeploySpec(WritesFields, RollsOut, BringsPods, HasPurposes, Passable):
    """The fields of a `deploy` step."""

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.images) || has(self.replicas) || has(self.patch)", f"deploy {_NOTHING}"),
            (
                "!has(self.replicas) || !has(self.workload.kind) || self.workload.kind != 'DaemonSet'",
                _NO_REPLICAS,
            ),
        )
    )
    key: ClassVar[str] = "deploy"

    workload: Workload = Field(description="The workload to roll out.")
    images: tuple[Image, ...] = Field(
        default=(),
        max_length=32,
        description="Images to set, by container.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["container"]},
    )
    replicas: int | None = Field(
        default=None, ge=0, le=100_000, description="Replicas to set. Default: unchanged. Not for a DaemonSet."
    )
    patch: YamlText = Field(
        default_factory=dict,
        description="Strategic merge patch of the workload's spec, for everything else: YAML as text, below `patch: |`. "
        "It begins below spec: write `template:` and the like, not `spec:`.",
    )

    @field_validator("patch")
    @classmethod
    def _possible(cls, patch: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        workload = info.data.get("workload")  # missing where it is wrong itself
        if wrong := list(spec_patch.mistakes(patch, workload.kind if workload else "workload")):
            raise WrongFields(wrong)
        return patch

    @model_validator(mode="after")
    def _makes_sense(self) -> DeploySpec:
        if not self.images and self.replicas is None and not self.patch:
            raise ValueError(_NOTHING)
        if self.replicas is not None and self.workload.kind == DAEMON_SETS.kind:
            raise ValueError(_NO_REPLICAS)
        names = [image.container for image in self.images]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"container {twice[0]} is listed twice in images; keep one")
        if doubles := sorted(spec_patch.images_in(self.patch) & set(names)):
            raise ValueError(f"the image of container {doubles[0]} is set in images and in patch; keep one")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One: the rollout."""
        parts = [f"{image.container}={image.image}" for image in self.images]
        if self.replicas is not None:
            parts.append(f"replicas {self.replicas}")
        parts.extend(spec_patch.places(self.patch))
        return (StageRule(f"roll out {', '.join(parts)}"[:512]),)

    def purposes(self) -> frozenset[Purpose]:
        """Another version, or the end of the old one."""
        return frozenset({Purpose.CONFIGURES if self.replicas != 0 else Purpose.RETIRES_OLD_VERSION})

    def touches(self) -> tuple[Target, ...]:
        """The workload."""
        return (self.rolls_out(),)

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """That of the patch; an undo brings back the account that the workload had."""
        return () if undo else (spec_patch.pod_of(self.patch),)

    def rolls_out(self) -> Target:
        """The workload."""
        return Target(self.workload.resource, self.workload.name)

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each field that the step sets; of a map that appears or goes with it, each key."""
        return [
            Change(path, to=was, was=was, ours=ours, by_key=True)
            for (path, was), ours in zip(snapshot.values, snapshot.ours, strict=True)
        ]

    def fields(self, target: Target, body: Json) -> list[str]:
        """The images, the replicas, and each field of the patch."""
        del target
        return list(spec_patch.expressions(self.joined(body["spec"]), ".spec"))

    def predicted_spec(self, target: Target, spec: Json) -> Json:
        """As merged here; what the server adds does not concern pods."""
        del target
        return merge(spec, self.joined(spec))

    def joined(self, spec: Json) -> Json:
        """The images, replicas and `patch` as one strategic merge patch of a live spec."""
        parts = spec_patch.parts_of(spec)
        images = {image.container: image.image for image in self.images if image.container in parts}
        return spec_patch.joined(self.patch, images, self.replicas, spec)
