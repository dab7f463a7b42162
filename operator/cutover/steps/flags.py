"""The kind `flags`: sets keys of a ConfigMap and restarts the workloads that read it, until every pod runs with the values.

A pod reads a variable when its container starts, and the kubelet brings a mounted file up to date some time later, unseen.
So a pod is certain to run with a value only if it was made after the value was written. To tell such pods from others takes
neither a clock nor a time: the restart writes a mark into the pod template after the ConfigMap was written, and a pod that
carries the mark was made from that template.

Undo writes the old values, then takes the mark off again. That alone is the restart back: the template is what it was, byte for
byte, its pods are made anew, and no second rollout is needed to tidy up. One sort of pods would escape it: made from the old
template, but started (or started again) while our values stood, because the restart had not come to its end. Which ones were
running before is kept in the snapshot; if others of the old template are found, the template gets a second mark first, and
loses it when every pod carries that.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, TypeAlias

from pydantic import Field, field_validator, model_validator

from cutover.errors import NotFound, PlanError, Problem
from cutover.field_path import ABSENT, Change, Json, find
from cutover.gates.readiness import Workload
from cutover.objects.config_maps import hindrances, reads
from cutover.objects.gitops import manager_of
from cutover.objects.workloads import Rollout, ending, fingerprint, paused
from cutover.ports import CONFIG_MAPS, WORKLOADS, Ref
from cutover.saga.turn import Again, Done, Failed, Outcome, StageRule
from cutover.schema.model import Name
from cutover.steps.kind import Duty, Kind, StepContext, Target
from cutover.steps.other_writers import foreign_writer, forget_set, fought_over, note_set
from cutover.steps.preconditions import refusal
from cutover.steps.restart import MARK, RESTART, judge, mark, mark_of, needs_help, running_pods
from cutover.steps.rollouts import hindered, is_back, patient, stood
from cutover.targets.patching import merge
from cutover.targets.snapshots import Snapshot, too_large
from cutover.targets.targets import Foreign

_KEY: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LONGEST: Final = 40
"""Characters of one value in what is shown to people."""
_CLOSED: Final[Mapping[str, Duty]] = {
    **dict.fromkeys(("true", "on", "yes", "1", "enabled"), Duty.CLOSES),
    **dict.fromkeys(("false", "off", "no", "0", "disabled"), Duty.OPENS),
}

Value = Annotated[str, Field(max_length=16_384)]


class Flags(Kind):
    """Sets keys of a ConfigMap and restarts the workloads that read it.

    Changes: the keys named here, then one annotation of each workload's pod template. Twice is harmless, because each field is
    brought to a value kept in the snapshots, all of which are taken before the first write. Undo brings the old values back
    (a key that was not there goes), then the annotation, and waits for the old pods.
    """

    key: ClassVar[str] = "flags"

    config_map: Name = Field(description="Name of the ConfigMap.")
    set_: dict[str, Value] = Field(
        alias="set", min_length=1, max_length=64, description="Keys of its data with their new values; others stay."
    )
    reload: tuple[Workload, ...] = Field(
        default=(),
        max_length=16,
        description="Workloads to restart, all at once: each that reads one of the keys, as variable or file.",
    )
    leave: tuple[Workload, ...] = Field(
        default=(),
        max_length=16,
        description="Workloads that read one of the keys and are left alone: their pods may go on with the old value.",
    )

    @field_validator("set_", mode="before")
    @classmethod
    def _keys_of_data(cls, given: Any) -> Any:
        for key, value in given.items() if isinstance(given, Mapping) else ():
            if not isinstance(key, str) or not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} is no key of a ConfigMap; use letters, digits, -, _ and ., at most 253")
            if value is None:
                raise ValueError(f'{key} has no value; write one in quotes, such as "false": a step takes no key away')
        return given

    @model_validator(mode="after")
    def _makes_sense(self) -> Flags:
        for field, named in (("reload", self.reload), ("leave", self.leave)):
            names = [_named(workload) for workload in named]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{twice[0]} stands in {field} more than once; keep one")
        if both := sorted(_named(workload) for workload in set(self.reload) & set(self.leave)):
            raise ValueError(f"{both[0]} stands in reload and in leave; keep one")
        return self

    def stages(self) -> tuple[StageRule, ...]:
        """One: the values, and the restarts."""
        values = ", ".join(f"{key}={_shown(value)}" for key, value in self.set_.items())
        restarts = "".join(f", restart {_named(workload)}" for workload in self.reload)
        return (StageRule(f"set {values} in ConfigMap {self.config_map}{restarts}"[:512]),)

    def duties(self) -> frozenset[Duty]:
        """Another configuration; a key named after maintenance says by its value whether that begins or ends."""
        said = {_CLOSED.get(value.lower()) for key, value in self.set_.items() if "maintenance" in key.lower()}
        return frozenset({Duty.CONFIGURES, *(duty for duty in said if duty)})

    def touches(self) -> tuple[Target, ...]:
        """The ConfigMap, then the workloads."""
        workloads = (Target(workload.resource, workload.name) for workload in self.reload)
        return (Target(CONFIG_MAPS, self.config_map), *workloads)

    def rolls_out(self) -> Target | None:
        """The workload, if there is just one."""
        restarted = self.touches()[1:]
        return restarted[0] if len(restarted) == 1 else None

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """Each key, or the annotation with both its values."""
        return [
            Change(path, to=was, was=was, ours=ours, previous=(_second(ours),) if path == MARK else ())
            for (path, was), ours in zip(snapshot.values, snapshot.ours, strict=True)
        ]

    def fields(self, target: Target, body: Json) -> list[str]:
        """The keys, and of workloads the annotation."""
        del body
        if target.resource == CONFIG_MAPS:
            return [f".data[{json.dumps(key)}]" for key in self.set_]
        return [f".spec.template.metadata.annotations[{json.dumps(RESTART)}]"]

    def shaped(self, target: Target, spec: Json) -> Json:
        """A workload that is restarted gets another template."""
        if target.resource == CONFIG_MAPS:
            return spec
        return merge(spec, {"template": {"metadata": {"annotations": {RESTART: "restarted"}}}})

    # --- beforehand ---------------------------------------------------------------------------------------------------

    async def examine(self, context: StepContext) -> list[Problem]:
        """The ConfigMap takes the values, all its readers are named, and each restart would come to an end."""
        place, (flags, *workloads) = f"{context.place}.flags", self._refs(context)
        problems = list[Problem]()
        found, huge = dict[str, str](), ""
        try:
            body = await context.cluster.get(flags)
            found, before = hindrances(body, self.set_), body.get("data") or {}
            values = [(("data", key), before.get(key, ABSENT), value) for key, value in self.set_.items()]
            huge = too_large(flags, values)
        except NotFound:
            pass  # said by preflight for every target
        for key, says in found.items():
            problems.append(Problem(f"{place}.{f'set.{key}' if key else 'configMap'}", says))
        if huge:
            way_out = "set fewer keys in one step, or let a deploy step point the readers to another ConfigMap"
            problems.append(Problem(f"{place}.set", f"{huge}; {way_out}"))
        if not found and (says := await refusal(context, flags, {"data": self.set_})):
            problems.append(Problem(f"{place}.set", says))
        for ref in workloads:
            problems += await self._examine_restart(context, ref, f"{place}.reload[{ref.name}]")
        return problems + await self._left_out(context)

    async def _examine_restart(self, context: StepContext, ref: Ref, where: str) -> list[Problem]:
        try:
            spec = (await context.cluster.get(ref))["spec"]
        except NotFound:
            return []
        strategy = spec.get("updateStrategy") or {}
        says = ""
        if spec.get("paused"):
            says = paused(ref, "nothing would restart")
        elif strategy.get("type") == "OnDelete":
            says = f"pods of {ref} change only when somebody deletes them (updateStrategy OnDelete); use RollingUpdate"
        elif kept := (strategy.get("rollingUpdate") or {}).get("partition", 0):
            says = f"{ref} has partition {kept}, so its first {kept} pods would keep the old values; set the partition to 0"
        else:
            says = await refusal(
                context, ref, {"spec": {"template": {"metadata": {"annotations": {RESTART: _token(context)}}}}}
            )
        return [Problem(where, says)] if says else []

    async def _left_out(self, context: StepContext) -> list[Problem]:
        """Workloads that read one of the keys and are not named: without them nobody could say that every pod is done."""
        named = {(workload.resource, workload.name) for workload in (*self.reload, *self.leave)}
        listed = await asyncio.gather(*(context.cluster.list(resource, context.namespace) for resource in WORKLOADS))
        problems = []
        for resource, bodies in zip(WORKLOADS, listed, strict=True):
            for body in bodies:
                name = body["metadata"]["name"]
                how = reads(body, self.config_map, self.set_)
                if how and (resource, name) not in named:
                    says = f"{resource.kind} {name} reads ConfigMap {self.config_map} ({how}); add it to reload, or to leave if its pods may keep the old value"
                    problems.append(Problem(f"{context.place}.flags.reload", says))
        return problems

    # --- forward ------------------------------------------------------------------------------------------------------

    async def do(self, context: StepContext, stage: int, looked: Any) -> Outcome:
        """Write the values, restart, and see that each pod carries the mark and no other is left."""
        del stage, looked
        taken = await self._snapshots(context)
        flags, *workloads = taken
        if says := await self._put_back(context, taken):
            return Failed("ForeignWriter", says)
        if await fought_over(context, flags, values := self.forward(taken[flags])):
            return await foreign_writer(context, flags, "the values of this step")
        body = await context.targets.change(flags, taken[flags].uid, values)
        note_set(context)
        bodies = {ref: await context.targets.change(ref, taken[ref].uid, self.forward(taken[ref])) for ref in workloads}
        for ref, workload in bodies.items():
            rollout = Rollout.of(workload, ref.resource)
            if not rollout.complete and (hindrance := hindered(context, ref, rollout)):
                return hindrance
        outcome = await judge(context, bodies, {ref: taken[ref].ours[0] for ref in bodies})
        if isinstance(outcome, Again) and (who := manager_of(body)):
            return replace(outcome, message=f"{outcome.message}; {who} owns {flags} and may put it back")
        return outcome

    def _refs(self, context: StepContext) -> list[Ref]:
        return [target.ref(context.namespace) for target in self.touches()]

    async def _saved(self, context: StepContext) -> dict[Ref, Snapshot]:
        return {ref: kept for ref in self._refs(context) if (kept := await context.targets.saved(ref))}

    async def _snapshots(self, context: StepContext) -> dict[Ref, Snapshot]:
        """What stands in each target before the first write to any, and which containers run; those that exist count."""
        refs = self._refs(context)
        if all(context.targets.remembers(ref) for ref in refs):
            return await self._saved(context)
        if left_out := await self._left_out(context):
            raise PlanError(*left_out)
        bodies = await asyncio.gather(*(context.cluster.get(ref) for ref in refs))
        pods = await asyncio.gather(
            *(running_pods(context, ref, body) for ref, body in zip(refs[1:], bodies[1:], strict=True))
        )
        keys = [("data", key) for key in self.set_]
        taken = {refs[0]: await context.targets.snapshot(refs[0], bodies[0], keys, ours=tuple(self.set_.values()))}
        for ref, body, running in zip(refs[1:], bodies[1:], pods, strict=True):
            facts = {
                "running": sorted({fingerprint(pod) for pod in running} - {""}),
                "stood": stood(body, ref.resource),
            }
            taken[ref] = await context.targets.snapshot(ref, body, [MARK], facts, [_token(context)])
        return taken

    async def _put_back(self, context: StepContext, taken: Mapping[Ref, Snapshot]) -> str:
        """Who has put an old value back after a restart began: pods that carry the mark may have read it already."""
        flags, *workloads = taken
        begun = [mark(await context.targets.view(ref)) == taken[ref].ours[0] for ref in workloads]
        if not any(begun) or not self._lost(await context.targets.view(flags), taken[flags]):
            return ""
        body = await context.cluster.get(flags)  # a stream may be behind
        if not (lost := self._lost(body, taken[flags])):
            return ""
        who, what = manager_of(body) or "somebody", f"{', '.join(lost)} of {flags}"
        return f"{who} has put {what} back while pods restarted; make it leave that alone, or change it there"

    def _lost(self, body: Json, snapshot: Snapshot) -> list[str]:
        """Keys that have their value of before again."""
        return [
            str(change.path[-1])
            for change in self.forward(snapshot)
            if (found := find(body, change.path)) and found.value == change.was != change.to
        ]

    # --- back ---------------------------------------------------------------------------------------------------------

    async def undo(self, context: StepContext, looked: Any) -> Outcome:
        """Write the old values, take the mark off, and see that no pod carries it. What is gone is passed over."""
        del looked
        forget_set(context)
        refs, taken = self._refs(context), await self._saved(context)
        if len(taken) < len(refs):  # not all were taken, so nothing was written
            for ref in refs:
                await context.targets.fence(ref)
            return Done()
        flags, *workloads = refs
        gone: dict[Ref, str] = {}
        if await self._ours_stand(context, taken[flags]):
            for ref in workloads:
                await _bring(context, ref, taken[ref], self._mark_late, gone)
        await _bring(context, flags, taken[flags], self._values_back, gone)
        found = {ref: await _bring(context, ref, taken[ref], self._mark_back, gone) for ref in workloads}
        bodies = {ref: body for ref, body in found.items() if body is not None}
        before = {ref: taken[ref].values[0][1] for ref in bodies}
        back = {ref for ref, body in bodies.items() if is_back(context, Rollout.of(body, ref.resource), taken[ref])}
        left = {ref: body for ref, body in bodies.items() if ref not in back}
        outcome = needs_help(context, left) or await judge(context, bodies, before, back)
        if not isinstance(outcome, Done):
            return patient(context, outcome) if isinstance(outcome, Again) else outcome
        for ref in (ref for ref in refs if ref not in gone):
            await context.targets.confirm(ref, taken[ref].uid, self.restores(taken[ref]))
        return replace(outcome, message=f"passed over: {'; '.join(gone.values())}") if gone else outcome

    async def _ours_stand(self, context: StepContext, snapshot: Snapshot) -> bool:
        """Whether a pod that starts now reads one of our values."""
        try:
            body = await context.targets.view(self._refs(context)[0])
        except NotFound:
            return False
        changes = [change for change in self.forward(snapshot) if change.to != change.was]
        return any((found := find(body, change.path)) and found.value == change.to for change in changes)

    async def _mark_late(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """A restart that was never begun, though our values stood: without the mark nobody would look for such pods later."""
        begun = mark(await context.targets.view(ref)) != snapshot.values[0][1]
        return [] if begun else self.forward(snapshot)

    async def _values_back(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        del context, ref
        return self.restores(snapshot)

    async def _mark_back(self, context: StepContext, ref: Ref, snapshot: Snapshot) -> list[Change]:
        """Off, unless a pod of the old template may have started with our values: then the second mark comes first."""
        (off,), ours = self.restores(snapshot), snapshot.ours[0]
        second = replace(off, to=_second(ours))
        body = await context.targets.view(ref)
        if mark(body) == ours:
            pods, known = await running_pods(context, ref, body), snapshot.facts["running"]
            old = [pod for pod in pods if mark_of(pod) not in (ours, second.to) and not ending(pod)]
            return [off] if all(fingerprint(pod) in known for pod in old) else [second]
        if mark(body) == second.to:
            all_new = {mark_of(pod) for pod in await running_pods(context, ref, body)} <= {second.to}
            return [off] if all_new and is_back(context, Rollout.of(body, ref.resource), snapshot) else [second]
        return [off]


_Way: TypeAlias = Callable[[StepContext, Ref, Snapshot], Awaitable[list[Change]]]
"""What is to be written to a target on rollback; nothing to leave it."""


async def _bring(context: StepContext, ref: Ref, snapshot: Snapshot, way: _Way, gone: dict[Ref, str]) -> Json | None:
    """Write to one target; that it is gone is noted, and hinders no other. The object, if it was to be written."""
    try:
        changes = await way(context, ref, snapshot)
        return await context.targets.change(ref, snapshot.uid, changes) if changes else None
    except NotFound as missing:
        gone[ref] = str(missing)
    except Foreign as foreign:
        if foreign.reason != "TargetReplaced":
            raise
        gone[ref] = str(foreign)
    return None


def _token(context: StepContext) -> str:
    """The value of the mark: of this step in this run alone."""
    owner = context.targets.owner
    return f"{owner.plan.name}/{context.targets.step}, run {owner.run} ({owner.uid[:8]})"


def _second(ours: Json) -> str:
    return f"{ours}, back"


def _named(workload: Workload) -> str:
    return f"{workload.kind} {workload.name}"


def _shown(value: str) -> str:
    return value if value.isprintable() and len(value) <= _LONGEST else f"({len(value)} characters)"
