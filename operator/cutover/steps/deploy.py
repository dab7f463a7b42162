"""The kind `deploy`: sets images and replicas of a workload and waits until that very rollout is complete."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from cutover.errors import NotFound, Problem
from cutover.fields import Change, Json, Path
from cutover.gates.readiness import Workload
from cutover.model import Label, Model, validations
from cutover.ports import AUTOSCALERS, DEPLOYMENTS
from cutover.saga.turn import Again, Done, Failed, Outcome, StageRule, Wait
from cutover.steps.base import Kind, Target, Work
from cutover.targets import Snapshot
from cutover.workloads import Rollout

_LOOK_AGAIN = 30.0
"""Seconds; the workload is streamed, so this only mends a lost event."""


class Image(Model):
    """The image of one container."""

    container: Label = Field(description="Name of the container.")
    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] = Field(description="Image to run.")


class Deploy(Kind):
    """Rolls out a workload.

    Changes: the images and replicas named here, nothing else. Twice is harmless, because each field is brought to a value
    and a field that has it is not written. Undo brings back the values from the snapshot and waits for the old pods.
    """

    model_config = ConfigDict(
        json_schema_extra=validations(
            ("has(self.images) || has(self.replicas)", "deploy sets nothing; give images or replicas"),
        )
    )
    key: ClassVar[str] = "deploy"
    passable: ClassVar[bool] = True

    workload: Workload = Field(description="What is rolled out.")
    images: tuple[Image, ...] = Field(
        default=(),
        max_length=32,
        description="Images to set, by container.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["container"]},
    )
    replicas: int | None = Field(default=None, ge=0, le=100_000, description="Replicas to set; left out, they stay.")

    @model_validator(mode="after")
    def _something_to_do(self) -> Deploy:
        if not self.images and self.replicas is None:
            raise ValueError("it sets nothing; give images or replicas")
        names = [image.container for image in self.images]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"container {twice[0]} stands in images more than once; keep one")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One: the rollout."""
        parts = [f"{image.container}={image.image}" for image in self.images]
        if self.replicas is not None:
            parts.append(f"replicas {self.replicas}")
        return (StageRule(f"roll out {', '.join(parts)}"[:512]),)

    def touches(self) -> tuple[Target, ...]:
        """The workload."""
        return (self.rolls_out(),)

    def rolls_out(self) -> Target:
        """The workload."""
        return Target(DEPLOYMENTS, self.workload.name)

    async def examine(self, work: Work) -> list[Problem]:
        """Containers exist, nothing else steers the replicas, nobody has paused the rollout."""
        ref = self.rolls_out().ref(work.namespace)
        try:
            body = await work.cluster.get(ref)
        except NotFound:
            return []  # said by preflight for every target
        place = f"{work.place}.deploy"
        known = {item["name"] for item in _containers(body)}
        problems = [
            Problem(
                f"{place}.images[{image.container}]",
                f"{ref} has no container {image.container}; it has {', '.join(sorted(known))}",
            )
            for image in self.images
            if image.container not in known
        ]
        if body["spec"].get("paused"):
            problems.append(
                Problem(
                    f"{place}.workload",
                    f"{ref} is paused (spec.paused: true), so nothing would roll out; "
                    f"run kubectl rollout resume deployment/{ref.name}",
                )
            )
        if self.replicas is not None:
            for scaler in await work.cluster.list(AUTOSCALERS, work.namespace):
                aim = scaler["spec"]["scaleTargetRef"]
                if aim.get("kind") == ref.resource.kind and aim.get("name") == ref.name:
                    name = scaler["metadata"]["name"]
                    problems.append(
                        Problem(
                            f"{place}.replicas",
                            f"HorizontalPodAutoscaler {name} steers the replicas of {ref}; "
                            "leave replicas out, or delete the autoscaler first",
                        )
                    )
        return problems

    async def do(self, work: Work, stage: int, looked: Any) -> Outcome:
        """Set the fields, then look how far the rollout is."""
        del stage, looked
        ref = self.rolls_out().ref(work.namespace)
        body = await work.targets.view(ref)
        fields = self._fields(body)
        snapshot = await work.targets.snapshot(ref, body, [path for path, _ in fields])
        changes = [Change(path, to, (snapshot.value(path), to)) for path, to in fields]
        return _progress(await work.targets.change(ref, snapshot.uid, changes), forward=True)

    async def undo(self, work: Work, looked: Any) -> Outcome:
        """Set the fields back, then wait until the old pods are available again."""
        del looked
        ref = self.rolls_out().ref(work.namespace)
        snapshot = await work.targets.saved(ref)
        if snapshot is None:
            await work.targets.fence(ref)
            return Done()
        return _progress(await work.targets.change(ref, snapshot.uid, self.marks(snapshot)), forward=False)

    def marks(self, snapshot: Snapshot) -> list[Change]:
        """Each field that was set."""
        return [Change(path, was, (was, self._ours(path))) for path, was in snapshot.values]

    def _ours(self, path: Path) -> Json:
        part = path[-2]
        if isinstance(part, Mapping):
            return next(image.image for image in self.images if image.container == part["name"])
        return self.replicas

    def _fields(self, body: Json) -> list[tuple[Path, Json]]:
        fields: list[tuple[Path, Json]] = []
        for image in self.images:
            part = "initContainers" if image.container in _names(body, "initContainers") else "containers"
            fields.append((("spec", "template", "spec", part, {"name": image.container}, "image"), image.image))
        if self.replicas is not None:
            fields.append((("spec", "replicas"), self.replicas))
        return fields


def _containers(body: Json) -> list[Json]:
    pod = body["spec"]["template"]["spec"]
    return [*pod.get("containers", ()), *pod.get("initContainers", ())]


def _names(body: Json, part: str) -> set[str]:
    return {item["name"] for item in body["spec"]["template"]["spec"].get(part) or ()}


def _progress(body: Json, *, forward: bool) -> Outcome:
    rollout = Rollout.of(body)
    if rollout.complete:
        return Done(ready=rollout.text)
    if rollout.current and rollout.stalled:
        message = f"the rollout does not progress ({rollout.stalled}); {rollout.text} pods are ready"
        return Failed("RolloutStalled", message) if forward else Wait("RolloutStalled", message)
    return Again(_LOOK_AGAIN, f"{rollout.text} pods of the new template are ready", rollout.text)
