"""A shift of traffic: its stages, and what is in effect in each of them, computed from the spec and a snapshot. Pure.

Used by the `traffic` kind, which reads and writes. It knows fields by their paths alone, not what object they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from cutover.field_path import Change, Json, Path, find
from cutover.routing.branches import Mirror
from cutover.routing.routes import WHOLE, number
from cutover.saga.turn import StageRule
from cutover.schema.model import show_duration
from cutover.targets.snapshots import Snapshot

ROLES: Final = "roles"
"""Key among the facts of a snapshot: the role of each temporary field. Snapshots of older releases lack it."""
REFUSED: Final = "refused"
"""Key among the facts of a snapshot: what gateways reported against the object before the step wrote anything."""


class Role(StrEnum):
    """What a temporary field is for."""

    MIRROR = "mirror"
    MATCH = "match"
    KEEPS_OLD = "keepsOld"
    KEEPS_NEW = "keepsNew"


@dataclass(frozen=True, slots=True)
class TemporaryField:
    """One field that is set beside the weights for some stages: its value before the step, and its value during them."""

    role: Role
    path: Path
    was: Json
    ours: Json


@dataclass(frozen=True, slots=True)
class Weight:
    """One weight in a snapshot: where it stands, and what it was."""

    path: Path
    was: Json


@dataclass(frozen=True, slots=True)
class PairWeights:
    """The weights of one route in a snapshot: that of the old side and that of the new one."""

    old: Weight
    new: Weight

    @property
    def total(self) -> int:
        """What both had together."""
        return number(self.old.was) + number(self.new.was)


@dataclass(frozen=True, slots=True)
class PairChange:
    """The change of the weights of one route. Both are always written together, so that their sum never changes."""

    old: Change
    new: Change


def flat(pairs: Iterable[PairChange]) -> list[Change]:
    """All weights of all pairs, as `targets/` writes them."""
    return [change for pair in pairs for change in (pair.old, pair.new)]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage, and what is in effect in it.

    Attributes:
        rule: what the saga knows of it.
        weights: how many of the step's weights have been reached.
        share: the share of the traffic that the new side must be ready for whenever it gets more than it has.
        roles: roles of the temporary fields that are set in this stage.
        last: it only removes temporary fields, so there is nothing to judge.
    """

    rule: StageRule
    weights: int = 0
    share: float = 0
    roles: frozenset[Role] = frozenset()
    last: bool = False

    @property
    def kept(self) -> bool:
        """Whether the weights stay as they were before the stage."""
        return self.last or not self.weights


@dataclass(frozen=True, slots=True)
class Shift:
    """What a `traffic` step asks for, from its first stage to its last.

    Attributes:
        to: the new side, as messages name it.
        weights: percent of what the pair has in total at the start, ascending.
        dwell: how long the step stays at each weight.
        settle: how long after each write nothing is judged.
        matched: header routes are in place from before the first weight until the end of the step.
        mirror: a stage of its own before all others; the next stage removes it.
        sticky: visitors stay on their side from the first weight until the end; on the old side only while it has traffic.
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
            keeps = {Role.KEEPS_NEW, *([Role.KEEPS_OLD] if weight < WHOLE else [])} if self.sticky else set[Role]()
            rule = self._rule(f"weight {weight}", self.dwell, weight)
            stages.append(Stage(rule, reached, weight / WHOLE, frozenset(always | keeps)))
        if self.matched or self.sticky:
            removal = f"remove the header route to {self.to}" if self.matched else ""
            release = "remove session stickiness" if self.sticky else ""
            intent = " and ".join(filter(None, (removal, release)))
            rule = StageRule(intent, weight=self.weights[-1], cleanup=True)
            stages.append(Stage(rule, len(self.weights), self.weights[-1] / WHOLE, last=True))
        return stages

    def _rule(self, what: str, dwell: timedelta, weight: int | None = None) -> StageRule:
        return StageRule(f"{what} for {show_duration(dwell)}" if dwell else what, dwell, self.settle, weight)

    # --- weights ------------------------------------------------------------------------------------------------------

    def weight_changes(self, snapshot: Snapshot, reached: int) -> list[PairChange]:
        """The weights once so many are reached; a pair whose new side had as much from the start is left out.

        Before the first one they stay what they were, which is watched as well.
        """
        if not reached:
            return [PairChange(_unchanged(pair.old), _unchanged(pair.new)) for pair in pairs_of(snapshot)]
        changes = []
        for pair in pairs_of(snapshot):
            if shares := self._shares(pair, reached):
                change = _pair_back(pair, shares)
                changes.append(PairChange(change.old.forward(), change.new.forward()))
        return changes

    def _shares(self, pair: PairWeights, reached: int) -> list[int]:
        """What the new side has had once so many weights are reached; a weight it had from the start is skipped."""
        shares = [_share(pair.total, weight) for weight in self.weights[:reached]]
        return [share for share in shares if share > number(pair.new.was)]

    def share_at(self, which: int, total: int, new: int) -> int:
        """The new side's part of what a pair has in total, at one of the weights; one that has as much already keeps what it has."""
        return max(new, _share(total, self.weights[which]))

    def too_coarse(self, total: int) -> str:
        """Which of the weights cannot be told from another in what a pair has in total; empty when all can."""
        last, before = 0, 0
        for weight in self.weights:
            share = _share(total, weight)
            if share == last:
                as_much = f"as much as weight {before}" if share else "nothing"
                return f"weight {weight} of that would be {share}, which is {as_much}"
            if share == total and weight < WHOLE:
                return f"weight {weight} of that would be {share}, which is all of it"
            last, before = share, weight
        return ""

    # --- temporary fields ---------------------------------------------------------------------------------------------

    def temporary_changes(self, snapshot: Snapshot, stage: int) -> list[Change]:
        """The temporary fields of a stage, and the removal of those of the stage before that it does not have."""
        here, before = self._roles_around(stage)
        return [
            Change(one.path, to=one.ours if one.role in here else one.was, was=one.was, ours=one.ours)
            for one in temporary_fields_of(snapshot)
            if one.role in here or one.role in before
        ]

    def standing(self, snapshot: Snapshot, stage: int, *, applied: bool) -> list[Change]:
        """The temporary fields that were set before and stay; once a stage is `applied`, all that it has."""
        here, before = self._roles_around(stage)
        stays = here if applied else here & before
        return [
            Change(one.path, to=one.ours, was=one.was, ours=one.ours)
            for one in temporary_fields_of(snapshot)
            if one.role in stays
        ]

    def _roles_around(self, stage: int) -> tuple[frozenset[Role], frozenset[Role]]:
        """Roles of the temporary fields of a stage, and of the stage before it."""
        stages = self.stages()
        return stages[stage].roles, stages[stage - 1].roles if stage else frozenset()

    def restores(self, snapshot: Snapshot) -> list[Change]:
        """The rollback of each field, from every value it may have; the last of them is what the end of the step leaves."""
        found = [
            Change(one.path, to=one.was, was=one.was, ours=one.was, previous=(one.ours,))
            for one in temporary_fields_of(snapshot)
        ]
        pairs = (_pair_back(pair, self._shares(pair, len(self.weights))) for pair in pairs_of(snapshot))
        return found + flat(pairs)


def weights_back(
    snapshot: Snapshot, body: Json, capacity: Callable[[int], int] = lambda total: total
) -> list[PairChange]:
    """The weights to what they were, over any value that stands there now.

    Args:
        snapshot: has what they were.
        body: the object as it is now.
        capacity: how much of what a pair has in total its old side can take. Where it had more, it gets that much, and keeps what it has:
            such weights are written only over those in `body`, so that what somebody has given back since is not taken away again.
    """
    changes = []
    for pair in pairs_of(snapshot):
        old, new = (found.value if (found := find(body, one.path)) else one.was for one in (pair.old, pair.new))
        was = number(pair.old.was)
        goal = min(was, max(number(old), capacity(pair.total)))
        if goal == was:
            changes.append(PairChange(_over(pair.old, old, pair.old.was), _over(pair.new, new, pair.new.was)))
        else:
            part, rest = Weight(pair.old.path, old), Weight(pair.new.path, new)
            changes.append(PairChange(_over(part, old, goal), _over(rest, new, pair.total - goal)))
    return changes


def _over(weight: Weight, live: Json, to: Json) -> Change:
    return Change(weight.path, to=to, was=weight.was, ours=live)


def _pair_back(pair: PairWeights, shares: Sequence[int]) -> PairChange:
    """Both weights back to what they were, from each of the shares that the new side may have been given."""
    return PairChange(
        _weight_back(pair.old, [pair.total - share for share in shares]),
        _weight_back(pair.new, shares),
    )


def _weight_back(weight: Weight, values: Sequence[int]) -> Change:
    """One weight back to what it was, from each of these values; without any it was never changed."""
    *previous, ours = values or [weight.was]
    return Change(weight.path, to=weight.was, was=weight.was, ours=ours, previous=tuple(previous))


def _unchanged(weight: Weight) -> Change:
    return Change(weight.path, to=weight.was, was=weight.was, ours=weight.was)


def _weights_of(snapshot: Snapshot) -> list[tuple[Path, Json]]:
    return [(path, was) for path, was in snapshot.values if path[-1] == "weight"]


def pairs_of(snapshot: Snapshot) -> list[PairWeights]:
    """The weights of a snapshot, pair by pair. In it they stand in a row: old, new, old, new."""
    weights = [Weight(path, was) for path, was in _weights_of(snapshot)]
    return [PairWeights(old, new) for old, new in zip(weights[::2], weights[1::2], strict=True)]


def temporary_fields_of(snapshot: Snapshot) -> list[TemporaryField]:
    """The fields of a snapshot that are not weights."""
    fields = zip(snapshot.values, snapshot.ours, strict=False)
    others = [(path, was, ours) for (path, was), ours in fields if path[-1] != "weight"]
    roles = snapshot.facts.get(ROLES) or [
        Role.MATCH if isinstance(path[-1], Mapping) else Role.MIRROR for path, _, _ in others
    ]
    return [TemporaryField(Role(role), *field) for role, field in zip(roles, others, strict=True)]


def sets(change: Change) -> bool:
    """Whether the change of a temporary field sets it; otherwise it removes it."""
    return bool(change.to != change.was)


def _share(total: int, percent: int) -> int:
    """`percent` of what the pair has in total, half rounded up."""
    return (2 * total * percent + 100) // 200
