"""How much of its former traffic the old side of a shift can take back now. Reads only; used by the kind `traffic`.

What its workload wants is no measure here: an autoscaler wants little for a side that gets no requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Change, Json
from cutover.objects.serving import Count
from cutover.routing.routes import Destination, number
from cutover.routing.shift import flat, pairs_of, weights_back
from cutover.steps.kind import StepContext
from cutover.steps.traffic.overlap import without_its_own
from cutover.steps.traffic.sides import as_now, both
from cutover.steps.traffic.spec import TrafficSpec
from cutover.targets.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Capacity:
    """What the old side can take.

    Attributes:
        old: its ready endpoints.
        new: those of the new side; where it has none, any of the old side answers more requests.
        whole: hundredths of the endpoints that are enough for all traffic of the pair.
        lost: why nothing that is sent to the old side arrives, or only at pods of the new version; empty when it does.
    """

    old: Count
    new: Count
    whole: int
    lost: str = ""

    def of(self, total: int) -> int:
        """The old side's part of the weight that a pair has in total."""
        if not self.old.total or self.lost:
            return 0
        return min(total, 100 * self.old.total * total // self.whole) if self.new.total and self.whole else total

    def needed(self, snapshot: Snapshot) -> int:
        """Endpoints that it needs for all that it had."""
        if not self.new.total:
            return 1
        shares = (-(-number(pair.old.was) * self.whole // (100 * max(1, pair.total))) for pair in pairs_of(snapshot))
        return max(1, *shares)


EVERYTHING: Final = Capacity(Count(1), Count(0), whole=0)
"""Where no weight has to move."""


async def capacity(step: TrafficSpec, context: StepContext, snapshot: Snapshot) -> Capacity:
    """Count both sides."""
    now = await as_now(context, step.ends, both(snapshot), afresh=(0,))
    (before, after), (lost, _) = now.sides, now.lost
    ready, shared = await asyncio.gather(
        now.count(context),
        without_its_own(context, (step.from_, before), (step.to, after)),
    )
    return Capacity(ready.old, ready.new, snapshot.facts["fromReady"] * step.backward.share, lost or shared)


@dataclass(frozen=True, slots=True)
class WeightsBack:
    """What can be written now.

    Attributes:
        weights: all weights as they should be now.
        short: what the old side lacks to have all of its weight again; empty when it lacks nothing.
        has: what the old side has of the weights of all pairs.
        gets: what it will have.
    """

    weights: list[Change]
    short: str
    has: int
    gets: int

    @property
    def worthwhile(self) -> bool:
        """Whether it is worth doing ahead of its turn: all of it, or at least twice what the old side has."""
        return not self.short or self.gets > 2 * self.has


def affordable(snapshot: Snapshot, body: Json, found: Capacity, old: Destination) -> WeightsBack:
    """As much of its former weights as the old side can take."""
    weights, short = weights_back(snapshot, body, found.of), ""
    pairs = [*zip(weights, pairs_of(snapshot), strict=True)]
    has, gets = (sum(number(getattr(change.old, at)) for change in weights) for at in ("ours", "to"))
    if any(number(change.old.to) < number(pair.old.was) for change, pair in pairs):
        part = 100 * gets // sum(pair.total for _, pair in pairs)
        much = f"only {part}% of the traffic is switched back" if part else "traffic cannot be switched back yet"
        short = f"{much}: {found.lost or f'{old} has {found.old} and needs {found.needed(snapshot)}'}"
    return WeightsBack(flat(weights), short, has, gets)
