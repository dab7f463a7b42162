"""The two sides of a shift: what stands behind each, and whether it is ready for its share of the traffic.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from cutover.errors import PlanError, Problem
from cutover.objects.endpoints import Side, count_ready, resolve, wanted
from cutover.routing.routes import Destination, number
from cutover.routing.shift import pairs_of
from cutover.steps.base import Work
from cutover.targets.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Bearings:
    """What stands behind the two sides, and how many ready endpoints the old one had at the run's start."""

    old: Side
    new: Side
    old_ready: int


def forget(work: Work) -> None:
    """What the sides are is to be looked up anew."""
    work.memory.pop(_memo(work), None)


async def bearings(work: Work, old: Destination, new: Destination) -> Bearings:
    """What the sides are, remembered since the run's start; a process that took over looks again. Raises PlanError."""
    known = work.memory.get(_memo(work))
    if isinstance(known, Bearings):
        return known
    sides, problems = list[Side](), list[Problem]()
    for field, side in (("from", old), ("to", new)):
        resolved = await resolve(work.cluster, work.namespace, side.host, side.subset)
        if isinstance(resolved, Side):
            sides.append(resolved)
        else:
            problems.append(Problem(f"{work.place}.traffic.{field}", resolved))
    if problems:
        raise PlanError(*problems)
    before, after = sides
    found = Bearings(before, after, (await count_ready(work.cluster, work.namespace, before))[0])
    work.memory[_memo(work)] = found
    return found


def _memo(work: Work) -> str:
    return f"{work.place}.bearings"


async def count(work: Work, side: dict[str, Any]) -> int:
    """Ready endpoints of a side as a snapshot remembers it."""
    return (await count_ready(work.cluster, work.namespace, Side(**side)))[0]


async def short_of_old(work: Work, snapshot: Snapshot, old: Destination, ready: int | None) -> str:
    """What the old side lacks to take back what it had; empty when nothing is lacking."""
    share = max(number(was) / max(1, number(was) + number(new)) for (_, was), (_, new) in pairs_of(snapshot))
    if not share:
        return ""
    counted = await count(work, snapshot.facts["from"]) if ready is None else ready
    return await short(work, snapshot, ("from", old), counted, share)


async def short(work: Work, snapshot: Snapshot, of: tuple[str, Destination], ready: int, share: float) -> str:
    """What a side lacks to take a share of the traffic; empty when it is ready for it."""
    which, side = of
    exact = round(share * snapshot.facts["fromReady"], 6)  # 0.55 * 100 is a little more than 55
    needed = max(1, math.ceil(exact))
    if ready >= needed:
        return ""
    asked = await wanted(work.cluster, work.namespace, Side(**snapshot.facts[which]))
    if 0 < asked <= ready:
        return ""
    return f"{side} has {ready} ready endpoints, and needs {needed if not asked else min(needed, asked)}"
