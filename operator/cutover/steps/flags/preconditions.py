"""What a `flags` step needs before the first step. Read-only; called by preflight through `Flags.examine`."""

from __future__ import annotations

import asyncio

from cutover.errors import NotFound, Problem
from cutover.field_path import ABSENT
from cutover.objects.config_maps import reads, value_problems
from cutover.objects.workloads import paused
from cutover.ports import WORKLOADS, Ref
from cutover.steps.flags.restart import RESTART, restart_id
from cutover.steps.flags.spec import FlagsSpec
from cutover.steps.kind import StepContext
from cutover.steps.shared.preconditions import dry_run_problem
from cutover.targets.snapshots import too_large


async def examine(step: FlagsSpec, context: StepContext) -> list[Problem]:
    """The ConfigMap accepts the values, all its readers are named, and each restart can complete."""
    place, (flags, *workloads) = f"{context.place}.flags", step.refs(context)
    problems = list[Problem]()
    found, huge = dict[str, str](), ""
    try:
        body = await context.cluster.get(flags)
        found, before = value_problems(body, step.set_), body.get("data") or {}
        values = [(("data", key), before.get(key, ABSENT), value) for key, value in step.set_.items()]
        huge = too_large(flags, values)
    except NotFound:
        pass  # preflight reports it for every target
    for key, message in found.items():
        problems.append(Problem(f"{place}.{f'set.{key}' if key else 'configMap'}", message))
    if huge:
        way_out = "set fewer keys in one step, or let a deploy step point the readers to another ConfigMap"
        problems.append(Problem(f"{place}.set", f"{huge}; {way_out}"))
    if not found and (message := await dry_run_problem(context, flags, {"data": step.set_})):
        problems.append(Problem(f"{place}.set", message))
    for ref in workloads:
        problems += await _examine_restart(context, ref, f"{place}.reload[{ref.name}]")
    return problems + await unlisted_readers(step, context)


async def _examine_restart(context: StepContext, ref: Ref, where: str) -> list[Problem]:
    try:
        spec = (await context.cluster.get(ref))["spec"]
    except NotFound:
        return []
    strategy = spec.get("updateStrategy") or {}
    message = ""
    if spec.get("paused"):
        message = paused(ref, "nothing would restart")
    elif strategy.get("type") == "OnDelete":
        message = f"pods of {ref} change only when a user deletes them (updateStrategy OnDelete); use RollingUpdate"
    elif kept := (strategy.get("rollingUpdate") or {}).get("partition", 0):
        message = (
            f"{ref} has partition {kept}, so its first {kept} pods would keep the old values; set the partition to 0"
        )
    else:
        message = await dry_run_problem(
            context, ref, {"spec": {"template": {"metadata": {"annotations": {RESTART: restart_id(context)}}}}}
        )
    return [Problem(where, message)] if message else []


async def unlisted_readers(step: FlagsSpec, context: StepContext) -> list[Problem]:
    """Workloads that read one of the keys and are not named: without them it could not be told whether every pod has the new value."""
    named = {(workload.resource, workload.name) for workload in (*step.reload, *step.leave)}
    listed = await asyncio.gather(*(context.cluster.list(resource, context.namespace) for resource in WORKLOADS))
    problems = []
    for resource, bodies in zip(WORKLOADS, listed, strict=True):
        for body in bodies:
            name = body["metadata"]["name"]
            how = reads(body, step.config_map, step.set_)
            if how and (resource, name) not in named:
                message = f"{resource.kind} {name} reads ConfigMap {step.config_map} ({how}); add it to reload, or to leave if its pods may keep the old value"
                problems.append(Problem(f"{context.place}.flags.reload", message))
    return problems
