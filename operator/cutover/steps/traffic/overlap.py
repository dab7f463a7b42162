"""Whether the two sides of a shift have pods in common, which no weight can keep apart. Read-only; called by the preconditions of `traffic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.objects.endpoints import Side, selects, workloads_behind
from cutover.ports import Resource
from cutover.routing.routes import Destination
from cutover.steps.kind import StepContext

_Workload = tuple[Resource, Json]


async def overlaps(context: StepContext, old: tuple[Destination, Side], new: tuple[Destination, Side]) -> list[Problem]:
    """A warning for each side that selects pods of the other one's workloads too.

    With the old side, those pods get its share as well: an answer of the old version is no longer one, and a rollback sends
    traffic to the new pods. With the new side, the old version answers requests that count as the new one's.
    """
    found = await workloads_behind(context.cluster, context.namespace, old[1], new[1])
    both = [one for one in found if all(selects(side.selector, labels_of(one)) for _, side in (old, new))]
    if not both:
        return []
    problems = []
    for field, (mine, side), (other, others) in (("from", old, new), ("to", new, old)):
        of_mine = [one for one in found if one not in both and selects(side.selector, labels_of(one))]
        of_others = [one for one in found if one not in both and selects(others.selector, labels_of(one))]
        if of_others and not of_mine:
            continue  # all its workloads are the other side's too: that one selects too much
        what = ", ".join(f"{resource.kind} {body['metadata']['name']}" for resource, body in both)
        then = "a rollback sends traffic to them" if field == "from" else "the old version still answers at weight 100"
        where = f"the labels of subset {mine.subset}" if side.subset else f"the selector of Service {side.service}"
        message = (
            f"{mine} selects the pods of {what}, as {other} does, so {then}; add to {where} {_label(of_mine, both)}"
        )
        problems.append(Problem(f"{context.place}.traffic.{field}", message, warning=True))
    return problems


def labels_of(workload: _Workload) -> Mapping[str, str]:
    """The labels of its pods."""
    return workload[1]["spec"]["template"]["metadata"].get("labels") or {}


def _label(mine: Sequence[_Workload], both: Sequence[_Workload]) -> str:
    """A label that all of these pods have and none of those, or that there must be one."""
    common = set.intersection(*(set(labels_of(one).items()) for one in mine)) if mine else set()
    own = sorted(common - set().union(*(labels_of(one).items() for one in both)))
    return f"{own[0][0]}: {own[0][1]}, which only its own pods have" if own else "a label that only its own pods have"
