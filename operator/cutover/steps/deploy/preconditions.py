"""What a `deploy` step needs before the first step. Read-only; called by preflight through `Deploy.examine`."""

from __future__ import annotations

import asyncio
import math
from typing import Final

from cutover.errors import Denied, NotFound, PlanError, Problem, Rejected
from cutover.field_path import Json
from cutover.objects.config_maps import CREATE_FIRST, references
from cutover.objects.workloads import Rollout, paused, pod_labels, scalers_of
from cutover.ports import AUTOSCALERS, CONFIG_MAPS, SERVICES, Ref
from cutover.routing.resources import ROUTINGS, shares
from cutover.steps.deploy.dry_run import foresee
from cutover.steps.deploy.spec import DeploySpec
from cutover.steps.kind import StepContext, Target
from cutover.steps.shared.preconditions import may_not_patch
from cutover.targets.snapshots import too_large

_MOVES: Final = frozenset({*ROUTINGS, SERVICES})
"""What a step changes that moves traffic: a route leads to whichever pods the Service that it names selects."""


async def examine(step: DeploySpec, context: StepContext) -> list[Problem]:
    """Nothing else manages the replicas, the server accepts the change, and the rollout is not paused.

    Of a later step of the workload only what no earlier one can change is taken from the dry run: it starts from what that one leaves.
    """
    ref = step.rolls_out().ref(context.namespace)
    problems = [*await _autoscaled(step, context, ref), *await _carries(step, context, ref)]
    found = await (_dropped if step.rolls_out() in context.earlier else _refused)(step, context, ref)
    return [*problems, *found]


async def _autoscaled(step: DeploySpec, context: StepContext, ref: Ref) -> list[Problem]:
    if step.replicas is None:
        return []
    scalers = await context.cluster.list(AUTOSCALERS, context.namespace, fresh=False)
    return [
        Problem(
            f"{context.place}.deploy.replicas",
            f"HorizontalPodAutoscaler {scaler['metadata']['name']} manages the replicas of {ref}; "
            "leave replicas out, or delete the autoscaler first",
        )
        for scaler in scalers_of(ref, scalers)
    ]


async def _carries(step: DeploySpec, context: StepContext, ref: Ref) -> list[Problem]:
    """The pods that the step would take away carry traffic, and no earlier step can have moved it by then."""
    if step.rolls_out() in context.earlier or any(target.resource in _MOVES for target in context.earlier):
        return []
    try:
        needed = await still_needed(context, ref, step.replicas)
    except NotFound:
        return []  # preflight reports it for every target
    if not needed or await context.needed_elsewhere(ref):
        return []  # another plan may be about to move the traffic, and this one waits for its end
    return [Problem(f"{context.place}.deploy.replicas", needed)]


async def still_needed(context: StepContext, ref: Ref, replicas: int | None) -> str:
    """Why a workload cannot go down to so many replicas: routes lead to its pods, and fewer cannot carry their share. Empty when it can.

    A workload that gets half of the requests of a route keeps half of its pods; one that gets none may lose all. Raises NotFound.
    """
    if replicas is None:
        return ""
    spec = (await context.targets.view(ref))["spec"]
    has = spec.get("replicas", 1)
    if replicas >= has:
        return ""
    given = await shares(context.cluster, context.namespace, pod_labels(spec))
    route, share = max(given.items(), key=lambda one: one[1], default=(None, 0.0))
    least = max(1, math.ceil(round(share * has, 6)))
    if route is None or replicas >= least:
        return ""
    what = f"{route} gives its pods {share:.0%} of the requests of a route"
    way_out = "shift the traffic away in an earlier step, or leave replicas out"
    return f"{ref} cannot go from {has} to {replicas} replicas while {what}, which takes {least}; {way_out}"


async def _refused(step: DeploySpec, context: StepContext, ref: Ref) -> list[Problem]:
    where = f"{context.place}.deploy"
    try:
        foreseen = await foresee(step, context)
    except NotFound:
        return []  # preflight reports it for every target
    except PlanError as error:
        return list(error.problems)
    except (Rejected, Denied) as refused:
        if await may_not_patch(context, ref, refused):
            return []
        message = str(refused).rpartition("strict decoding error: ")[2]  # the server quotes the whole patch before that
        return [Problem(f"{where}.patch" if step.patch else where, f"the server refuses it: {message}")]
    problems = [*foreseen.problems, *await _missing_config_maps(context, foreseen.after)]
    if huge := too_large(ref, foreseen.fields):
        problems.append(Problem(f"{where}.patch", f"{huge}; change fewer fields in one step"))
    if foreseen.after.get("paused"):
        problems.append(Problem(f"{where}.workload", paused(ref, "nothing would roll out")))
    elif foreseen.body["spec"].get("paused") and (waiting := Rollout.of(foreseen.body, ref.resource).outdated):
        message = f"{ref} is paused, and {waiting} of its pods do not have its template yet; resuming it rolls that out"
        way_out = "no undo restores these pods; revert the template first, and change it in this step"
        problems.append(Problem(f"{where}.patch.paused", f"{message} too, and {way_out}", warning=True))
    return problems


async def _dropped(step: DeploySpec, context: StepContext, _: Ref) -> list[Problem]:
    try:
        return list((await foresee(step, context)).whatever_comes_before)
    except (NotFound, PlanError, Rejected, Denied):
        return []


async def _missing_config_maps(context: StepContext, spec: Json) -> list[Problem]:
    """ConfigMaps and keys that the new pods need and that do not exist; an earlier step may still write its own."""
    if spec.get("replicas") == 0:
        return []
    needs = [one for one in references(spec["template"]["spec"]) if not one.optional]
    names = sorted({one.name for one in needs if Target(CONFIG_MAPS, one.name) not in context.earlier})
    bodies = dict(zip(names, await asyncio.gather(*(_config_map(context, name) for name in names)), strict=True))
    lacking = {message: None for one in needs if one.name in bodies and (message := one.lacks(bodies[one.name]))}
    return [Problem(f"{context.place}.deploy", f"{message}, {CREATE_FIRST}") for message in lacking]


async def _config_map(context: StepContext, name: str) -> Json | None:
    try:
        return await context.cluster.get(Ref(CONFIG_MAPS, context.namespace, name))
    except NotFound:
        return None
