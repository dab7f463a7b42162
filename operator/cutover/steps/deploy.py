"""The kind `deploy`: changes fields of a workload's spec and waits until that very rollout is complete."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from cutover.errors import Conflict, Denied, NotFound, PlanError, Problem, Rejected
from cutover.field_path import ABSENT, Change, Json, Path, differences
from cutover.gates.readiness import Workload
from cutover.objects import spec_patch
from cutover.objects.config_maps import WAY_OUT, references
from cutover.objects.workloads import Rollout, paused, scalers_of
from cutover.ports import AUTOSCALERS, CONFIG_MAPS, DAEMON_SETS, Ref
from cutover.routing.routings import carried
from cutover.saga.turn import Again, Done, Failed, Outcome, StageRule, Wait
from cutover.schema.model import Label, Model, validations
from cutover.steps.kind import Duty, Kind, StepContext, Target
from cutover.steps.other_writers import foreign_writer, forget_set, fought_over, note_set
from cutover.steps.preconditions import lacks_the_right
from cutover.steps.rollouts import held_up, hindered, hindered_back, is_back, needs_hands, patient, stood
from cutover.targets.patching import merge
from cutover.targets.snapshots import Snapshot, too_large

_LOOK_AGAIN: Final = 30.0
"""Seconds; the workload is streamed, so this only mends a lost event."""
_TRIES: Final = 4
_REPLICAS: Final[Path] = ("spec", "replicas")
_PAUSED: Final[Path] = ("spec", "paused")
_NOTHING: Final = "sets nothing; give images, replicas or patch"
_NO_REPLICAS: Final = "a DaemonSet has no replicas, it runs one pod a node; drop replicas"


class Image(Model):
    """The image of one container."""

    container: Label = Field(description="Name of the container.")
    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] = Field(description="Image to run.")


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """What the step will change, as the server told it.

    Attributes:
        body: the workload before.
        fields: each with its value before and after.
        after: its spec after.
        carried: weight that the pods carried before the step; only asked when the step raises the replicas.
    """

    body: Json
    fields: tuple[tuple[Path, Json, Json], ...]
    after: Json
    carried: int = 0


class Deploy(Kind):
    """Rolls out a workload.

    Changes: the images and replicas named here, and what `patch` changes; which fields these are, a dry run of the server
    tells before the first write, and the snapshot keeps each with its old value and ours. Twice is harmless, because each
    field is brought to a value and a field that has it is not written; after a crash the snapshot that exists is the one
    that counts. Undo brings back the values from the snapshot and waits for the old pods.
    """

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
    passable: ClassVar[bool] = True

    workload: Workload = Field(description="What is rolled out.")
    images: tuple[Image, ...] = Field(
        default=(),
        max_length=32,
        description="Images to set, by container.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["container"]},
    )
    replicas: int | None = Field(
        default=None, ge=0, le=100_000, description="Replicas to set; left out, they stay. Not for a DaemonSet."
    )
    patch: dict[str, Any] = Field(
        default_factory=dict,
        max_length=64,
        description="Strategic merge patch on the workload's spec, for all the rest.",
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )

    @field_validator("patch")
    @classmethod
    def _possible(cls, patch: dict[str, Any]) -> dict[str, Any]:
        if says := spec_patch.wrong(patch):
            raise ValueError(says)
        return patch

    @model_validator(mode="after")
    def _makes_sense(self) -> Deploy:
        if not self.images and self.replicas is None and not self.patch:
            raise ValueError(f"it {_NOTHING}")
        if self.replicas is not None and self.workload.kind == DAEMON_SETS.kind:
            raise ValueError(_NO_REPLICAS)
        names = [image.container for image in self.images]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"container {twice[0]} stands in images more than once; keep one")
        if doubles := sorted(spec_patch.images_in(self.patch) & set(names)):
            raise ValueError(f"the image of container {doubles[0]} stands in images and in patch; keep one")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One: the rollout."""
        parts = [f"{image.container}={image.image}" for image in self.images]
        if self.replicas is not None:
            parts.append(f"replicas {self.replicas}")
        parts.extend(spec_patch.places(self.patch))
        return (StageRule(f"roll out {', '.join(parts)}"[:512]),)

    def duties(self) -> frozenset[Duty]:
        """Another version, or none of it any more."""
        return frozenset({Duty.CONFIGURES if self.replicas != 0 else Duty.RETIRES})

    def touches(self) -> tuple[Target, ...]:
        """The workload."""
        return (self.rolls_out(),)

    def rolls_out(self) -> Target:
        """The workload."""
        return Target(self.workload.resource, self.workload.name)

    def fields(self, target: Target, body: Json) -> list[str]:
        """The images, the replicas, and each place at which the patch says something."""
        del target
        return list(spec_patch.expressions(self._joined(body["spec"]), ".spec"))

    def shaped(self, target: Target, spec: Json) -> Json:
        """As merged here; what the server adds to it says nothing about pods."""
        del target
        return merge(spec, self._joined(spec))

    def _joined(self, spec: Json) -> Json:
        parts = spec_patch.parts_of(spec)
        images = {image.container: image.image for image in self.images if image.container in parts}
        return spec_patch.joined(self.patch, images, self.replicas, spec)

    async def examine(self, context: StepContext) -> list[Problem]:
        """Nothing else steers the replicas, the server takes the change, and nobody has paused the rollout.

        Only the first step that touches a workload is tried out: a later one starts from what this one leaves.
        """
        ref = self.rolls_out().ref(context.namespace)
        problems = await self._steered(context, ref)
        if self.rolls_out() not in context.earlier:
            problems += await self._refused(context, ref)
        return problems

    async def _steered(self, context: StepContext, ref: Ref) -> list[Problem]:
        if self.replicas is None:
            return []
        scalers = await context.cluster.list(AUTOSCALERS, context.namespace)
        return [
            Problem(
                f"{context.place}.deploy.replicas",
                f"HorizontalPodAutoscaler {scaler['metadata']['name']} steers the replicas of {ref}; "
                "leave replicas out, or delete the autoscaler first",
            )
            for scaler in scalers_of(ref, scalers)
        ]

    async def _refused(self, context: StepContext, ref: Ref) -> list[Problem]:
        where = f"{context.place}.deploy"
        try:
            foreseen = await self._foresee(context)
        except NotFound:
            return []  # said by preflight for every target
        except PlanError as error:
            return list(error.problems)
        except (Rejected, Denied) as refused:
            if await lacks_the_right(context, ref, refused):
                return []
            says = str(refused).rpartition("strict decoding error: ")[2]  # before it stands all of the patch
            return [Problem(f"{where}.patch" if self.patch else where, f"the server refuses it: {says}")]
        problems = await self._unfed(context, foreseen.after)
        if huge := too_large(ref, foreseen.fields):
            problems.append(Problem(f"{where}.patch", f"{huge}; change less of it in one step"))
        if foreseen.after.get("paused"):
            problems.append(Problem(f"{where}.workload", paused(ref, "nothing would roll out")))
        elif foreseen.body["spec"].get("paused") and (waiting := Rollout.of(foreseen.body, ref.resource).outdated):
            says = f"{ref} is paused, and {waiting} of its pods do not have its template yet; the end of the pause rolls that out"
            way_out = "no undo brings these pods back; put the template back first, and change it in this step"
            problems.append(Problem(f"{where}.patch.paused", f"{says} too, and {way_out}", warning=True))
        return problems

    async def _unfed(self, context: StepContext, spec: Json) -> list[Problem]:
        """ConfigMaps and keys for want of which the new pods would not start; what an earlier step writes may come yet."""
        if spec.get("replicas") == 0:
            return []
        needs = [one for one in references(spec["template"]["spec"]) if not one.optional]
        names = sorted({one.name for one in needs if Target(CONFIG_MAPS, one.name) not in context.earlier})
        bodies = dict(zip(names, await asyncio.gather(*(_config_map(context, name) for name in names)), strict=True))
        lacking = {says: None for one in needs if one.name in bodies and (says := one.lacks(bodies[one.name]))}
        return [Problem(f"{context.place}.deploy", f"{says}, {WAY_OUT}") for says in lacking]

    async def look(self, context: StepContext, stage: int) -> Any:
        """Ask what will change, unless the snapshot says it already."""
        del stage
        known = context.targets.remembers(self.rolls_out().ref(context.namespace))
        return None if known else await self._foresee(context)

    async def do(self, context: StepContext, stage: int, looked: Any) -> Outcome:
        """Set the fields, then look how far the rollout is."""
        del stage
        ref = self.rolls_out().ref(context.namespace)
        known = await context.targets.saved(ref) if context.targets.remembers(ref) else None
        snapshot = known or await self._snapshot(context, looked)
        changes = self.forward(snapshot)
        if await fought_over(context, ref, changes):
            return await foreign_writer(context, ref, "the fields of this step")
        body = await context.targets.change(ref, snapshot.uid, changes)
        rollout = Rollout.of(body, ref.resource)
        note_set(context)
        if rollout.at_rest:
            return Done(ready=rollout.text)
        outcome, why = hindered(context, ref, rollout), await held_up(context, ref, body)
        if outcome:
            return replace(outcome, message=f"{outcome.message}{why}") if isinstance(outcome, Failed) else outcome
        return Again(_LOOK_AGAIN, f"{rollout.text} pods of the new template are ready{why}", rollout.text)

    async def undo(self, context: StepContext, looked: Any) -> Outcome:
        """Set the fields back, wait until the old pods are available again, and read the fields back.

        A Deployment that was paused is paused again only then: paused, it would not bring the old pods back.
        """
        del looked
        forget_set(context)
        ref = self.rolls_out().ref(context.namespace)
        snapshot = await context.targets.saved(ref)
        if snapshot is None:
            await context.targets.fence(ref)
            return Done()
        if busy := await self._still_carries(context, ref, snapshot):
            return Wait("StillCarriesTraffic", busy)
        changes = self.restores(snapshot)
        sooner = [change for change in changes if change.path != _PAUSED or not change.to]
        body = await context.targets.change(ref, snapshot.uid, sooner)
        rollout = Rollout.of(body, ref.resource)
        if is_back(context, rollout, snapshot):
            await context.targets.change(ref, snapshot.uid, changes)
            await context.targets.confirm(ref, snapshot.uid, changes)
            return Done(ready=rollout.text)
        says = f"{rollout.text} pods of the old template are ready"
        again = Again(_LOOK_AGAIN, says, rollout.text, reached=rollout.reached)
        if sooner != changes and not rollout.current:  # the pause may be ours already, and only not seen yet
            return again
        return (
            hindered_back(context, ref, rollout) or needs_hands(context, ref, body, rollout) or patient(context, again)
        )

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each field that was set."""
        return [
            Change(path, to=was, was=was, ours=ours)
            for (path, was), ours in zip(snapshot.values, snapshot.ours, strict=True)
        ]

    # --- pieces -------------------------------------------------------------------------------------------------------

    async def _snapshot(self, context: StepContext, looked: Any) -> Snapshot:
        """What the fields are before the first write, and what they will be."""
        ref = self.rolls_out().ref(context.namespace)
        try:
            foreseen = looked if isinstance(looked, _Foreseen) else await self._foresee(context)
        except (PlanError, Rejected, Denied):
            # A process that died in the middle may have written already what is now refused a second time.
            if known := await context.targets.saved(ref):
                return known
            raise
        paths, ours = [path for path, _, _ in foreseen.fields], [after for _, _, after in foreseen.fields]
        facts = {"carried": foreseen.carried, "stood": stood(foreseen.body, ref.resource)}
        return await context.targets.snapshot(ref, foreseen.body, paths, facts, ours)

    async def _foresee(self, context: StepContext) -> _Foreseen:
        """Let the server say what would change. Raises PlanError for a container that is not there.

        The dry run is bound to the version it is compared with, so that nobody else's change is taken for ours.
        """
        ref = self.rolls_out().ref(context.namespace)
        account, body = context.targets.owner.account, await context.targets.view(ref)
        for _ in range(_TRIES):
            spec = body["spec"]
            version = {"resourceVersion": body["metadata"]["resourceVersion"]}
            trial = context.cluster.dry_run(ref, {"metadata": version, "spec": self._wish(context, ref, spec)}, account)
            try:
                if self.replicas is not None and self.replicas > spec.get("replicas", 1):
                    labels = spec["template"]["metadata"].get("labels") or {}
                    carries = carried(context.cluster, context.namespace, labels, fresh=False)
                    after, weights = await asyncio.gather(trial, carries)
                else:
                    after, weights = await trial, {}
            except Conflict:
                body = await context.cluster.get(ref)
                continue
            fields = tuple(differences(spec, after["spec"], ("spec",)))
            return _Foreseen(body, fields, after["spec"], sum(weights.values()))
        raise Conflict(f"{ref} changed at each of {_TRIES} tries to learn what would change")

    def _wish(self, context: StepContext, ref: Ref, spec: Json) -> Json:
        parts = spec_patch.parts_of(spec)
        place, has = f"{context.place}.deploy", f"it has {', '.join(sorted(parts))}"
        missing = [
            Problem(f"{place}.images[{image.container}]", f"{ref} has no container {image.container}; {has}")
            for image in self.images
            if image.container not in parts
        ]
        if missing:
            raise PlanError(*missing)
        return self._joined(spec)

    async def _still_carries(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> str:
        """Why replicas cannot go down yet: the pods carry more weight than before the step. Empty when they may."""
        was = next((value for path, value in snapshot.values if path == _REPLICAS), None)
        if was is None:
            return ""
        body = await context.targets.view(ref)
        spec, least = body["spec"], 1 if was is ABSENT else was
        if spec.get("replicas", 1) <= least:
            return ""
        now = await carried(context.cluster, context.namespace, spec["template"]["metadata"].get("labels") or {})
        before = snapshot.facts.get("carried", 0)
        if sum(now.values()) <= before:
            return ""
        given = ", ".join(f"{weight} by {giver}" for giver, weight in sorted(now.items()))
        return (
            f"{ref} cannot go from {spec.get('replicas', 1)} to {least} replicas while it is given weight {given} "
            f"({before} before this step); give the weight back to where it was"
        )


async def _config_map(context: StepContext, name: str) -> Json | None:
    try:
        return await context.cluster.get(Ref(CONFIG_MAPS, context.namespace, name))
    except NotFound:
        return None
