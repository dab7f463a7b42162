"""Pods that lack a port which their Service refers to by name, told from templates before any of them exists. Read-only.

Called by the preconditions of the kinds that move traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.objects.endpoints import Side, all_workloads, selects
from cutover.objects.services import Port, port_names
from cutover.objects.serving import count
from cutover.objects.workloads import pod_labels
from cutover.ports import Ref, Resource
from cutover.steps.kind import StepContext
from cutover.steps.parts import RollsOut

_UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError)
"""What an invalid patch of an earlier step raises; the server's dry run reports it."""


@dataclass(frozen=True, slots=True)
class _Behind:
    """A workload whose pods are behind a side, or will be.

    Attributes:
        ref: the workload.
        template: of its pods by the time the step begins.
        changed: an earlier step changes it.
    """

    ref: Ref
    template: Json
    changed: bool


async def lacking(context: StepContext, name: str, side: Side, field: str) -> list[Problem]:
    """For each port of a side that no pod behind it will have: refused where the pods that are ready now show it.

    Elsewhere a warning, because what changes pods as they are created, such as an injector of sidecars, may add the port.

    Args:
        context: of the step.
        name: of the side, as messages name it.
        side: at the ports where it is to be given requests.
        field: of the step, for the problems.
    """
    problems, named = list[Problem](), [port for port in side.ports if port.named]
    behind = await _behind(context, side) if named else []
    for port in named if behind else ():
        if any(port.served_by(one.template) for one in behind):
            continue
        (found,) = await count(context.cluster, context.namespace, replace(side, ports=(port,)))
        to_change = any(one.changed for one in behind)
        if found.total and not to_change:
            continue  # WorkloadEntries have it, or what changes pods as they are created
        message = _says(name, side, port, behind)
        problems.append(Problem(field, message, warning=to_change or not found.without))
    return problems


def _says(name: str, side: Side, port: Port, behind: Iterable[_Behind]) -> str:
    workloads = ", ".join(str(one.ref) for one in behind)
    others = sorted(set().union(*(port_names(one.template) for one in behind)))
    has = f" (they have {', '.join(others)})" if others else ""
    message = f"Service {side.service} sends requests for port {port.number} to the port {port.target} of its pods, and no container of"
    so = f"{workloads} has a port of that name{has}, so {name} would answer none of them"
    way_out = "name that port in the containers, or make it a number in the Service (targetPort)"
    if None in side.asked and len(side.ports) > 1:
        way_out += ", or name the port that is meant in the route (destination.port)"
    return f"{message} {so}; {way_out}"


async def _behind(context: StepContext, side: Side) -> list[_Behind]:
    found = []
    for resource, body in await all_workloads(context.cluster, context.namespace):
        ref = Ref(resource, context.namespace, body["metadata"]["name"])
        spec, changed = _by_then(context, resource, ref.name, body["spec"])
        if selects(side.selector, pod_labels(spec)):
            found.append(_Behind(ref, spec["template"], changed))
    return found


def _legible(spec: Json) -> Json:
    """Raise one of `_UNREADABLE` for what is no spec of a workload: a null in a patch may have removed what each has."""
    pod_labels(spec).items()
    port_names(spec["template"])
    return spec


def _by_then(context: StepContext, resource: Resource, name: str, spec: Json) -> tuple[Json, bool]:
    """The spec of a workload as the earlier steps of the plan leave it, and whether they change it."""
    changed = False
    for kind in (kind for kind in context.before if isinstance(kind, RollsOut)):
        for target in kind.touches():
            if (target.resource, target.name) == (resource, name):
                changed = True
                with suppress(*_UNREADABLE):
                    spec = _legible(kind.predicted_spec(target, spec))
    return spec, changed
