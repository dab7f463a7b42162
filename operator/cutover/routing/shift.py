"""The shift of a shift of traffic: its stages, and what stands in each of them, from the spec and a snapshot. Pure.

Used by the `traffic` kind, which reads and writes. It knows fields by their paths alone, not what object they are of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from cutover.field_path import Change, Json, Path, find
from cutover.routing.branches import Mirror
from cutover.routing.routes import number
from cutover.saga.turn import StageRule
from cutover.schema.model import show_duration
from cutover.targets.snapshots import Snapshot

ROLES: Final = "roles"
"""Among the facts of a snapshot: of each field beside the weights what it is for. One that an older release took has none."""
REFUSED: Final = "refused"
"""Among the facts of a snapshot: what was said against the object before the step wrote anything."""
_ALL: Final = 100


class Role(StrEnum):
    """What something that is put beside the weights is for."""

    MIRROR = "mirror"
    MATCH = "match"
    KEEPS_OLD = "keepsOld"
    KEEPS_NEW = "keepsNew"


@dataclass(frozen=True, slots=True)
class TemporaryField:
    """One field that is put beside the weights for a while: what it was, and what it is meanwhile."""

    role: Role
    path: Path
    was: Json
    ours: Json


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, and what is in effect in it.

    Attributes:
        rule: as the saga knows it.
        weights: how many of the weights have been reached.
        share: of the traffic, for which the new side must be ready whenever it gets more than it has.
        roles: of what is put beside the weights, and is there.
        last: it only takes away what stood beside the weights, so there is nothing to judge.
    """

    rule: StageRule
    weights: int = 0
    share: float = 0
    roles: frozenset[Role] = frozenset()
    last: bool = False

    @property
    def kept(self) -> bool:
        """Whether the weights are those that stood there before it began."""
        return self.last or not self.weights


@dataclass(frozen=True, slots=True)
class Shift:
    """All that a step says about its way from the first weight to the last, and what comes before and after.

    Attributes:
        to: the new side, as messages name it.
        weights: percent of what the pair holds at the start, ascending.
        dwell: how long it stays at each weight.
        settle: how long after each write nothing is judged.
        matched: header routes stand from before the first weight until the end.
        mirror: comes before all else, and the next stage takes it away.
        sticky: visitors stay on their side from the first weight until the end; on the old one only while it has some.
    """

    to: str
    weights: tuple[int, ...]
    dwell: timedelta
    settle: timedelta
    matched: bool
    mirror: Mirror | None
    sticky: bool = False

    def stages(self) -> list[Stage]:
        """The stages in their order."""
        stages = []
        if self.mirror:
            rule = self._rule(f"mirror {self.mirror.percent}% to {self.to}", self.mirror.dwell)
            stages.append(Stage(rule, share=self.mirror.percent / 100, roles=frozenset({Role.MIRROR})))
        always = {Role.MATCH} if self.matched else set[Role]()
        if always:
            stages.append(Stage(self._rule(f"header route to {self.to}", self.dwell), roles=frozenset(always)))
        for reached, weight in enumerate(self.weights, 1):
            keeps = {Role.KEEPS_NEW, *([Role.KEEPS_OLD] if weight < _ALL else [])} if self.sticky else set[Role]()
            rule = self._rule(f"weight {weight}", self.dwell, weight)
            stages.append(Stage(rule, reached, weight / _ALL, frozenset(always | keeps)))
        if self.matched or self.sticky:
            away = f"take the header route to {self.to} away" if self.matched else ""
            free = "let visitors go where the weights say" if self.sticky else ""
            rule = StageRule(" and ".join(filter(None, (away, free))), weight=self.weights[-1], cleans=True)
            stages.append(Stage(rule, len(self.weights), self.weights[-1] / _ALL, last=True))
        return stages

    def _rule(self, what: str, dwell: timedelta, weight: int | None = None) -> StageRule:
        return StageRule(f"{what} for {show_duration(dwell)}" if dwell else what, dwell, self.settle, weight)

    def changes(self, snapshot: Snapshot, reached: int) -> list[Change]:
        """The weights once so many are reached; none where the new side has had as much from the start.

        Before the first one they stay what they were, which is watched as well.
        """
        if not reached:
            return [Change(path, to=was, was=was, ours=was) for path, was in weights_of(snapshot)]
        changes = []
        for (old_path, old), (new_path, new) in pairs_of(snapshot):
            if ours := self._shares(old, new, reached):
                total = number(old) + number(new)
                changes.append(_one(old_path, old, [total - share for share in ours]).forward())
                changes.append(_one(new_path, new, ours).forward())
        return changes

    def temporary_changes(self, snapshot: Snapshot, stage: int) -> list[Change]:
        """What a stage has beside the weights, and what the one before it had and it takes away."""
        here, before = self._around(stage)
        return [
            Change(one.path, to=one.ours if one.role in here else one.was, was=one.was, ours=one.ours)
            for one in temporary_fields_of(snapshot)
            if one.role in here or one.role in before
        ]

    def standing(self, snapshot: Snapshot, stage: int, *, applied: bool) -> list[Change]:
        """What has been put there before and stays; once a stage is `applied`, all that it has."""
        here, before = self._around(stage)
        stays = here if applied else here & before
        return [
            Change(one.path, to=one.ours, was=one.was, ours=one.ours)
            for one in temporary_fields_of(snapshot)
            if one.role in stays
        ]

    def _around(self, stage: int) -> tuple[frozenset[Role], frozenset[Role]]:
        """What stands in a stage, and in the one before it."""
        stages = self.stages()
        return stages[stage].roles, stages[stage - 1].roles if stage else frozenset()

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """The way back of each field, from every value it may have; the last of them is what the end leaves."""
        found = [
            Change(one.path, to=one.was, was=one.was, ours=one.was, previous=(one.ours,))
            for one in temporary_fields_of(snapshot)
        ]
        for (old_path, old), (new_path, new) in pairs_of(snapshot):
            ours = self._shares(old, new, len(self.weights))
            total = number(old) + number(new)
            found.append(_one(old_path, old, [total - share for share in ours]))
            found.append(_one(new_path, new, ours))
        return found

    def too_coarse(self, total: int) -> str:
        """Which of the weights cannot be told from another in what a pair holds together; empty when all can."""
        last, before = 0, 0
        for weight in self.weights:
            share = _share(total, weight)
            if share == last:
                as_much = f"as much as weight {before}" if share else "nothing"
                return f"weight {weight} of that would be {share}, which is {as_much}"
            if share == total and weight < _ALL:
                return f"weight {weight} of that would be {share}, which is all of it"
            last, before = share, weight
        return ""

    def _shares(self, old: Json, new: Json, reached: int) -> list[int]:
        """What the new side has had once so many weights are reached; one it had from the start is passed over."""
        total = number(old) + number(new)
        shares = [_share(total, weight) for weight in self.weights[:reached]]
        return [share for share in shares if share > number(new)]


def back(snapshot: Snapshot, body: Json) -> list[Change]:
    """The weights to what they were, over whatever stands there."""
    return [
        Change(path, to=was, was=was, ours=found.value if (found := find(body, path)) else was)
        for path, was in weights_of(snapshot)
    ]


def _one(path: Path, was: Json, shares: Sequence[int]) -> Change:
    """One weight on its way back, from each of the shares it may have been given; none leaves it as it was."""
    *previous, ours = shares or [was]
    return Change(path, to=was, was=was, ours=ours, previous=tuple(previous))


def weights_of(snapshot: Snapshot) -> list[tuple[Path, Json]]:
    """Each weight of a snapshot, with what it was."""
    return [(path, was) for path, was in snapshot.values if path[-1] == "weight"]


def pairs_of(snapshot: Snapshot) -> list[tuple[tuple[Path, Json], tuple[Path, Json]]]:
    """The weights two by two: the old side's and the new one's."""
    weights = weights_of(snapshot)
    return list(zip(weights[::2], weights[1::2], strict=True))


def temporary_fields_of(snapshot: Snapshot) -> list[TemporaryField]:
    """The other fields of a snapshot."""
    fields = zip(snapshot.values, snapshot.ours, strict=False)
    others = [(path, was, ours) for (path, was), ours in fields if path[-1] != "weight"]
    roles = snapshot.facts.get(ROLES) or [
        Role.MATCH if isinstance(path[-1], Mapping) else Role.MIRROR for path, _, _ in others
    ]
    return [TemporaryField(Role(role), *field) for role, field in zip(roles, others, strict=True)]


def adds(change: Change) -> bool:
    """Whether it puts something there, and does not take it away."""
    return bool(change.to != change.was)


def _share(total: int, percent: int) -> int:
    """`percent` of what the pair holds, half rounded up."""
    return (2 * total * percent + 100) // 200
