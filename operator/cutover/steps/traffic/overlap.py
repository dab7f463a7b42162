"""Whether the two sides of a shift have pods in common, which no weight can keep apart. Read-only.

Called by the preconditions of `traffic`, and on the way back: only pods of its own are a reason to give the old side its traffic again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.objects.endpoints import Side, selects, workloads_behind
from cutover.objects.serving import pods_of
from cutover.objects.workloads import pod_labels, pod_ready
from cutover.ports import WORKLOAD_ENTRIES, Resource
from cutover.routing.routes import Destination
from cutover.steps.kind import StepContext

_Workload = tuple[Resource, Json]


async def overlaps(context: StepContext, old: tuple[Destination, Side], new: tuple[Destination, Side]) -> list[Problem]:
    """A warning for each side that selects pods of the other one's workloads too.

    With the old side, those pods get its share as well: an answer of the old version is no longer one, and a rollback sends
    traffic to the new pods. With the new side, the old version answers requests that count as the new one's.
    """
    found = await workloads_behind(context.cluster, context.namespace, old[1], new[1], fresh=False)
    both = [one for one in found if _selected(one, old) and _selected(one, new)]
    if not both:
        return []
    apart = [one for one in found if one not in both]
    problems = []
    for field, mine, other in (("from", old, new), ("to", new, old)):
        of_mine = [one for one in apart if _selected(one, mine)]
        if of_mine or not any(_selected(one, other) for one in apart):
            message = _says(field, mine, other[0], both, _label(of_mine, both))
            problems.append(Problem(f"{context.place}.traffic.{field}", message, warning=True))
        # Otherwise all its workloads are the other side's too: that one selects too much.
    return problems


async def without_its_own(context: StepContext, old: tuple[Destination, Side], new: tuple[Destination, Side]) -> str:
    """Why traffic that goes back to the old side would stay at the new version: all that is ready there is of the new side as well.

    Empty when it has some of its own, none at all, or no workload of its own. Where a label keeps the sides apart, as it should,
    nothing is read.
    """
    (name, mine), (other, theirs) = old, new
    here, there = mine.selector, theirs.selector
    if here is None or there is None or any(here.get(key, value) != value for key, value in there.items()):
        return ""
    cluster, namespace = context.cluster, context.namespace
    found, pods, entries = await asyncio.gather(
        workloads_behind(cluster, namespace, mine),
        pods_of(cluster, namespace, here, fresh=True),
        cluster.list(WORKLOAD_ENTRIES, namespace, fresh=True),
    )
    labels = [pod["metadata"].get("labels") or {} for pod in pods if pod_ready(pod)]
    labels += [entry["spec"].get("labels") or {} for entry in entries]
    ready = [one for one in labels if selects(here, one)]
    has_own = any(not _selected(workload, new) for workload in found)
    if not has_own or not ready or not all(selects(there, one) for one in ready):
        return ""
    return f"{name} has no ready endpoint but those that {other} selects too, so the new version would go on answering"


def _says(field: str, mine: tuple[Destination, Side], other: Destination, both: Sequence[_Workload], label: str) -> str:
    name, side = mine
    what = ", ".join(f"{resource.kind} {body['metadata']['name']}" for resource, body in both)
    then = "a rollback sends traffic to them" if field == "from" else "the old version still answers at weight 100"
    where = f"the labels of subset {name.subset}" if side.subset else f"the selector of Service {side.service}"
    return f"{name} selects the pods of {what}, as {other} does, so {then}; add to {where} {label}"


def _selected(workload: _Workload, by: tuple[Destination, Side]) -> bool:
    return selects(by[1].selector, pod_labels(workload[1]["spec"]))


def _label(mine: Sequence[_Workload], both: Sequence[_Workload]) -> str:
    """A label that all of these pods have and none of those, or that there must be one."""
    common = set.intersection(*(set(pod_labels(one[1]["spec"]).items()) for one in mine)) if mine else set()
    own = sorted(common - set().union(*(pod_labels(one[1]["spec"]).items() for one in both)))
    return f"{own[0][0]}: {own[0][1]}, which only its own pods have" if own else "a label that only its own pods have"
