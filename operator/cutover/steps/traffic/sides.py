"""The two sides of a shift: what each resolves to, and whether it is ready for its share of the traffic.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cutover.errors import PlanError, Problem
from cutover.objects.endpoints import Side, count_ready, resolve, wanted
from cutover.routing.routes import Destination
from cutover.routing.shift import pairs_of
from cutover.steps.kind import StepContext
from cutover.targets.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the two sides resolve to, and how many ready endpoints the old one had at the start of the run."""

    old: Side
    new: Side
    old_ready: int


def forget(context: StepContext) -> None:
    """Forget the sides, so that they are resolved again."""
    context.memo.pop(_memo(context), None)


async def endpoints(context: StepContext, old: Destination, new: Destination) -> Endpoints:
    """The sides, remembered from the start of the run; a new process resolves them again. Raises PlanError."""
    known = context.memo.get(_memo(context))
    if isinstance(known, Endpoints):
        return known
    sides, problems = list[Side](), list[Problem]()
    for field, side in (("from", old), ("to", new)):
        resolved = await resolve(context.cluster, context.namespace, side.host, side.subset)
        if isinstance(resolved, Side):
            sides.append(resolved)
        else:
            problems.append(Problem(f"{context.place}.traffic.{field}", resolved))
    if problems:
        raise PlanError(*problems)
    before, after = sides
    found = Endpoints(before, after, (await count_ready(context.cluster, context.namespace, before))[0])
    context.memo[_memo(context)] = found
    return found


def _memo(context: StepContext) -> str:
    return f"{context.place}.endpoints"


async def count(context: StepContext, side: dict[str, Any]) -> int:
    """Ready endpoints of a side as the snapshot has it."""
    return (await count_ready(context.cluster, context.namespace, Side(**side)))[0]


async def short_of_old(context: StepContext, snapshot: Snapshot, old: Destination, ready: int | None) -> str:
    """What the old side lacks to take its former share; empty when it is ready."""
    share = max(pair.old_share for pair in pairs_of(snapshot))
    if not share:
        return ""
    counted = await count(context, snapshot.facts["from"]) if ready is None else ready
    return await short(context, snapshot, ("from", old), counted, share)


async def short(context: StepContext, snapshot: Snapshot, of: tuple[str, Destination], ready: int, share: float) -> str:
    """What a side lacks to take a share of the traffic; empty when it is ready for it."""
    which, side = of
    exact = round(share * snapshot.facts["fromReady"], 6)  # 0.55 * 100 is slightly more than 55 as a float
    needed = max(1, math.ceil(exact))
    if ready >= needed:
        return ""
    asked = await wanted(context.cluster, context.namespace, Side(**snapshot.facts[which]))
    if 0 < asked <= ready:
        return ""
    endpoints = "ready endpoint" if ready == 1 else "ready endpoints"
    return f"{side} has {ready} {endpoints} and needs {needed if not asked else min(needed, asked)}"
