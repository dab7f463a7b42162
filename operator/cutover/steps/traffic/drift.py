"""What others do to the fields of a shift: what is repaired, what counts as a request to stop, what a gateway does not serve.

Read-only; `kind.py` decides what to write. A weight is compared each time, because it is traffic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from cutover.field_path import Change, Json, find, readable, stand
from cutover.ports import Ref
from cutover.routing.routes import Destination, number
from cutover.routing.routing import Routing
from cutover.routing.shift import REFUSED, PairChange
from cutover.saga.turn import Failed, Pause
from cutover.steps.kind import StepContext
from cutover.steps.shared.other_writers import count_repair, foreign_writer
from cutover.targets.snapshots import Snapshot


async def removed_by_others(context: StepContext, ref: Ref, ours: list[Change]) -> Pause | None:
    """Whether another writer has removed a temporary field that this step had set, which is a request to stop."""

    def removed(body: Json) -> Change | None:
        return next((one for one in ours if (at := find(body, one.path)) and at.value == one.was), None)

    if not ours or context.reapply or not removed(await context.targets.view(ref)):
        return None
    if not (
        one := removed(await context.cluster.get(ref))
    ):  # a stream may be behind, and nobody is blamed without a read
        return None
    message = f"another writer has removed {readable(one.path)} from {ref}, which this plan had set"
    return Pause("TakenAway", f"{message}; resume sets it again, abort rolls everything back")


@dataclass(frozen=True, slots=True)
class Drift:
    """The weights to write, based on the object as it is now; or why to stop.

    Attributes:
        body: the object that was compared.
        weights: the wanted weights, each to be written only over the value in `body`.
        stop: another writer lowered the new side, or does not stop changing weights.
    """

    body: Json
    weights: list[PairChange]
    stop: Pause | None = None

    async def outdated(self, context: StepContext, ref: Ref) -> bool:
        """Whether another writer has set a weight since the comparison, so that another one is needed before the write."""
        now = await context.cluster.get(ref)
        return now["metadata"]["uid"] == self.body["metadata"]["uid"] and any(
            (found := find(now, one.path)) is not None and found.value not in one.expects
            for pair in self.weights
            for one in (pair.old, pair.new)
        )


async def detect(context: StepContext, ref: Ref, to: Destination, wanted: list[PairChange], *, kept: bool) -> Drift:
    """Compare the weights of an object with those that the stage wants.

    Args:
        context: as for `do`.
        ref: the object.
        to: the new side, for messages.
        wanted: the weights of the stage.
        kept: the stage before wants the same weights, so that lower ones can only be another writer's.
    """
    kept = kept or context.applied
    body = await context.targets.view(ref)
    weights, lowered, raised = _compare(context, wanted, body, kept=kept)
    if lowered:  # a stream may be behind, and nobody is blamed without a read
        body = await context.cluster.get(ref)
        weights, lowered, raised = _compare(context, wanted, body, kept=kept)
    stop = None
    if lowered:
        message = (
            f"another writer has lowered {to} to weight {lowered.now} in {ref}, where this plan has {lowered.goal}"
        )
        stop = Pause("LoweredByHand", f"{message}; resume raises it again, abort rolls everything back")
    elif raised and count_repair(context):
        stop = await foreign_writer(context, ref, "the weights")
    return Drift(body, weights, stop)


@dataclass(frozen=True, slots=True)
class _Lowered:
    """The weight of the new side as it is, and as this plan wants it."""

    now: int
    goal: int


def _compare(
    context: StepContext, wanted: list[PairChange], body: Json, *, kept: bool
) -> tuple[list[PairChange], _Lowered | None, bool]:
    """The changes based on the values in `body`; the first pair that another writer has lowered; whether another writer has raised one."""
    weights, any_raised = list[PairChange](), False
    for pair in wanted:
        old, new = find(body, pair.old.path), find(body, pair.new.path)
        if old is None or new is None:
            return wanted, None, False  # `targets.change` reports it
        weights.append(PairChange(_only_over(pair.old, old.value), _only_over(pair.new, new.value)))
        lowered, raised = _moved(context, pair, number(old.value), number(new.value), kept=kept)
        if lowered:
            return weights, lowered, False
        any_raised |= raised
    return weights, None, any_raised


def _moved(context: StepContext, pair: PairChange, old: int, new: int, *, kept: bool) -> tuple[_Lowered | None, bool]:
    """Whether another writer has lowered the new side of a pair, or raised it above what the stage wants."""
    goal = number(pair.new.to)
    if new == goal and old == number(pair.old.to):
        return None, False
    if new >= goal:
        return None, True
    # Below the goal it must have the weight that it had before this stage; a user may have requested the stage again.
    before = goal if kept else number(pair.new.previous[-1] if pair.new.previous else pair.new.was)
    return (None if context.reapply or new == before else _Lowered(new, goal)), False


def _only_over(change: Change, live: Json) -> Change:
    """The change as one that is written only over this value."""
    return replace(change, was=live, ours=live, previous=())


async def raises_new_side(
    context: StepContext, ref: Ref, weights: Iterable[PairChange], temporary: list[Change]
) -> bool:
    """Whether the new side gets more traffic than it has; what takes traffic from it waits for nothing."""
    body = await context.targets.view(ref)
    return not stand(body, temporary) or any(
        (found := find(body, pair.new.path)) is None or number(found.value) < number(pair.new.to) for pair in weights
    )


def not_served(where: Routing, body: Json, snapshot: Snapshot, restores: list[Change]) -> Failed | None:
    """Whether the object is as this plan wrote it, and a gateway refuses it that did not refuse it before.

    It waits for no gateway: some never report anything, and a later report is read at the next check.
    """
    before = snapshot.facts.get(REFUSED)  # snapshots of an older release lack it
    if before is None or stand(body, restores) or not (message := where.refused(body, before)):
        return None
    return Failed(
        "NotServed", f"{message}; so the traffic is not where this plan has it: fix that, then run the plan again"
    )
