"""What a `deploy` step will change, by a dry run of the server. Writes nothing. Used before the first step and at the first write."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cutover.errors import Conflict, Denied, PlanError, Problem
from cutover.field_path import ABSENT, Change, Json, Path, differences, find, readable
from cutover.objects import spec_patch
from cutover.objects.kept import Lost, mistaken, unkept
from cutover.objects.workloads import pod_labels
from cutover.ports import Ref
from cutover.routing.resources import carried
from cutover.steps.deploy.spec import DeploySpec
from cutover.steps.kind import StepContext
from cutover.targets.patching import merge

_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What the step will change, by the server's dry run.

    Attributes:
        body: the workload before.
        fields: each with its value before and after.
        after: its spec after.
        problems: what the server would not keep of the patch, or would put in the place of something else.
        whatever_comes_before: those of them that no earlier step can change.
        carried: the weight that the pods had before the step; read only where it is asked for, and the step raises the replicas.
    """

    body: Json
    fields: tuple[tuple[Path, Json, Json], ...]
    after: Json
    problems: tuple[Problem, ...] = ()
    whatever_comes_before: tuple[Problem, ...] = ()
    carried: int = 0

    @property
    def mistakes(self) -> list[Problem]:
        """Those of its problems that nobody can want."""
        return [problem for problem in self.problems if not problem.warning]


async def foresee(step: DeploySpec, context: StepContext, *, weigh: bool = False) -> Foreseen:
    """Ask the server what would change, and with `weigh` the routes how much weight the pods have.

    The dry run names the version it is compared with; otherwise another writer's change could be taken for ours. Raises
    PlanError for a container that does not exist.
    """
    ref = step.rolls_out().ref(context.namespace)
    # Read, and not seen in a stream: the snapshot needs the owners of its fields too, which no stream keeps.
    account, body = context.targets.owner.account, await context.targets.with_owners(ref)
    for _ in range(_TRIES):
        spec = body["spec"]
        version = {"resourceVersion": body["metadata"]["resourceVersion"]}
        patch = _patch_of(step, context, ref, spec)
        trial = context.cluster.dry_run(ref, {"metadata": version, "spec": patch}, account)
        try:
            if weigh and step.replicas is not None and step.replicas > spec.get("replicas", 1):
                carries = carried(context.cluster, context.namespace, pod_labels(spec), fresh=False)
                after, weights = await asyncio.gather(trial, carries)
            else:
                after, weights = await trial, {}
        except Conflict:
            body = await context.cluster.get(ref)
            continue
        fields = tuple(differences(spec, after["spec"], ("spec",)))
        place, lost = f"{context.place}.deploy", list(unkept(patch, spec, after["spec"]))
        dropped = tuple(Problem(place, one.message) for one in lost if one.kind is Lost.DROPPED)
        problems = (
            *(Problem(place, message) for message in mistaken(patch, spec, after["spec"])),
            *dropped,
            *(Problem(place, one.message) for one in lost if one.kind is Lost.IGNORED),
            *(Problem(place, one.message, warning=True) for one in lost if one.kind in (Lost.CHANGED, Lost.STAYS)),
        )
        return Foreseen(body, fields, after["spec"], problems, dropped, sum(weights.values()))
    raise Conflict(f"{ref} changed at each of {_TRIES} dry runs")


async def would_set(step: DeploySpec, context: StepContext) -> list[tuple[Ref, Change]]:
    """The fields that the step sets, with their values now and then. Raises PlanError, as `foresee`.

    A plan that was applied before may have no account any more; then the patch is merged here.
    """
    ref = step.rolls_out().ref(context.namespace)
    try:
        foreseen = await foresee(step, context)
        before, after = foreseen.body["spec"], foreseen.after
    except Denied:
        before = (await context.targets.view(ref))["spec"]
        after = merge(before, step.joined(before))
    named = {readable(path): path for path in spec_patch.paths(step.joined(before))}
    named |= {readable(path): path for path, _, _ in differences(before, after)}
    return [
        (ref, Change(("spec", *path), to=_value(after, path), was=_value(before, path), ours=_value(after, path)))
        for path in named.values()
    ]


def _value(spec: Json, path: Path) -> Json:
    found = find(spec, path)
    return found.value if found else ABSENT


def _patch_of(step: DeploySpec, context: StepContext, ref: Ref, spec: Json) -> Json:
    parts = spec_patch.parts_of(spec)
    place, has = f"{context.place}.deploy", f"it has {', '.join(sorted(parts))}"
    missing = [
        Problem(f"{place}.images[{image.container}]", f"{ref} has no container {image.container}; {has}")
        for image in step.images
        if image.container not in parts
    ]
    if missing:
        raise PlanError(*missing)
    return step.joined(spec)
