"""The course of a shift of traffic: its stages, and what stands in each of them, from the spec and a snapshot. Pure.

Used by the `traffic` kind, which reads and writes. It knows fields by their paths alone, not what object they are of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from cutover.branches import Mirror
from cutover.fields import Change, Json, Path
from cutover.model import show_duration
from cutover.routes import number
from cutover.saga.turn import StageRule
from cutover.snapshots import Snapshot


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, and what is in effect in it.

    Attributes:
        rule: as the saga knows it.
        weights: how many of the weights have been reached.
        share: of the traffic, for which the new side must be ready whenever it gets more than it has.
        mirrored: requests are mirrored to the new side.
        matched: the header routes are there.
        last: it only takes away what stood beside the weights, so there is nothing to judge.
    """

    rule: StageRule
    weights: int = 0
    share: float = 0
    mirrored: bool = False
    matched: bool = False
    last: bool = False

    @property
    def kept(self) -> bool:
        """Whether the weights are those that stood there before it began."""
        return self.last or not self.weights

    def has(self, path: Path) -> bool:
        """Whether what is put beside the weights at this path is there."""
        return self.matched if is_route(path) else self.mirrored


@dataclass(frozen=True, slots=True)
class Course:
    """All that a step says about its way from the first weight to the last, and what comes before and after.

    Attributes:
        to: the new side, as messages name it.
        weights: percent of what the pair holds at the start, ascending.
        dwell: how long it stays at each weight.
        settle: how long after each write nothing is judged.
        matched: header routes stand from before the first weight until the end.
        mirror: comes before all else, and the next stage takes it away.
    """

    to: str
    weights: tuple[int, ...]
    dwell: timedelta
    settle: timedelta
    matched: bool
    mirror: Mirror | None

    def stages(self) -> list[Stage]:
        """The stages in their order."""
        stages = []
        if self.mirror:
            rule = self._rule(f"mirror {self.mirror.percent}% to {self.to}", self.mirror.dwell)
            stages.append(Stage(rule, share=self.mirror.percent / 100, mirrored=True))
        if self.matched:
            stages.append(Stage(self._rule(f"header route to {self.to}", self.dwell), matched=True))
        for reached, weight in enumerate(self.weights, 1):
            rule = self._rule(f"weight {weight}", self.dwell, weight)
            stages.append(Stage(rule, reached, weight / 100, matched=self.matched))
        if self.matched:
            rule = StageRule(f"take the header route to {self.to} away", weight=self.weights[-1], cleans=True)
            stages.append(Stage(rule, len(self.weights), self.weights[-1] / 100, last=True))
        return stages

    def _rule(self, what: str, dwell: timedelta, weight: int | None = None) -> StageRule:
        return StageRule(f"{what} for {show_duration(dwell)}" if dwell else what, dwell, self.settle, weight)

    def changes(self, snapshot: Snapshot, reached: int) -> list[Change]:
        """The weights once so many are reached; none where the new side has had as much from the start.

        Before the first one they stay what they were, which is watched as well.
        """
        if not reached:
            return [Change(path, was, (was,)) for path, was in weights_of(snapshot)]
        changes = []
        for (old_path, old), (new_path, new) in pairs_of(snapshot):
            if ours := self._shares(old, new, reached):
                total = number(old) + number(new)
                changes.append(Change(old_path, total - ours[-1], (old, *(total - share for share in ours))))
                changes.append(Change(new_path, ours[-1], (new, *ours)))
        return changes

    def changes_beside(self, snapshot: Snapshot, stage: int) -> list[Change]:
        """What a stage has beside the weights, and what the one before it had and it takes away."""
        stages = self.stages()
        here, before = stages[stage], stages[max(0, stage - 1)]
        return [
            Change(path, ours if here.has(path) else was, (was, ours))
            for path, was, ours in beside(snapshot)
            if here.has(path) or before.has(path)
        ]

    def marks(self, snapshot: Snapshot) -> list[Change]:
        """The way back of each field, from every value it may have; the last of them is what the end leaves."""
        found = [Change(path, was, (was, ours, was)) for path, was, ours in beside(snapshot)]
        for (old_path, old), (new_path, new) in pairs_of(snapshot):
            ours = self._shares(old, new, len(self.weights))
            total = number(old) + number(new)
            found.append(Change(old_path, old, (old, *(total - share for share in ours))))
            found.append(Change(new_path, new, (new, *ours)))
        return found

    def _shares(self, old: Json, new: Json, reached: int) -> list[int]:
        """What the new side has had once so many weights are reached; one it had from the start is passed over."""
        total = number(old) + number(new)
        shares = [_share(total, weight) for weight in self.weights[:reached]]
        return [share for share in shares if share > number(new)]


def weights_of(snapshot: Snapshot) -> list[tuple[Path, Json]]:
    """Each weight of a snapshot, with what it was."""
    return [(path, was) for path, was in snapshot.values if path[-1] == "weight"]


def pairs_of(snapshot: Snapshot) -> list[tuple[tuple[Path, Json], tuple[Path, Json]]]:
    """The weights two by two: the old side's and the new one's."""
    weights = weights_of(snapshot)
    return list(zip(weights[::2], weights[1::2], strict=True))


def beside(snapshot: Snapshot) -> list[tuple[Path, Json, Json]]:
    """The other fields of a snapshot: path, what it was, what it is for a while."""
    fields = zip(snapshot.values, snapshot.ours, strict=False)
    return [(path, was, ours) for (path, was), ours in fields if path[-1] != "weight"]


def is_route(path: Path) -> bool:
    """Whether it is a header route; else it is a field of a mirror."""
    return isinstance(path[-1], Mapping)


def puts(change: Change) -> bool:
    """Whether it puts something there, and does not take it away."""
    return bool(change.to != change.expects[0])


def _share(total: int, percent: int) -> int:
    """`percent` of what the pair holds, half rounded up."""
    return (2 * total * percent + 100) // 200
