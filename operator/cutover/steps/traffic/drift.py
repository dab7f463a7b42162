"""What others make of the fields of a shift meanwhile: what is put right, what is a wish to stop, and what a gateway refuses.

Reads only. Used by the kind `traffic`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cutover.field_path import Change, Json, find, readable, stand
from cutover.ports import Ref
from cutover.routing.routes import Destination, number
from cutover.routing.routing import Routing
from cutover.routing.shift import REFUSED
from cutover.saga.turn import Failed, Pause
from cutover.steps.kind import StepContext
from cutover.steps.other_writers import count_repair, foreign_writer
from cutover.targets.snapshots import Snapshot


async def removed_by_others(context: StepContext, ref: Ref, ours: list[Change]) -> Pause | None:
    """Whether somebody has taken away what we put beside the weights, which is a wish to stop."""

    def gone(body: Json) -> Change | None:
        return next((one for one in ours if (at := find(body, one.path)) and at.value == one.was), None)

    if (
        not ours
        or context.reapply
        or not gone(await context.targets.view(ref))
        or not (one := gone(await context.cluster.get(ref)))
    ):
        return None
    says = f"somebody has taken {readable(one.path)} out of {ref}, which this plan had put there"
    return Pause("TakenAway", f"{says}; resume puts it back, abort takes everything back")


@dataclass(frozen=True, slots=True)
class Drift:
    """The weights as they are to be written, and the look at the object they come from; or why to stop."""

    body: Json
    weights: list[Change]
    stop: Pause | None = None

    async def outdated(self, context: StepContext, ref: Ref) -> bool:
        """Whether somebody has set a weight since that look, so that another one is needed before anything is written."""
        now = await context.cluster.get(ref)
        return now["metadata"]["uid"] == self.body["metadata"]["uid"] and any(
            (found := find(now, one.path)) is not None and found.value not in one.expects for one in self.weights
        )


async def detect(context: StepContext, ref: Ref, to: Destination, changes: list[Change], *, kept: bool) -> Drift:
    """What somebody else has done to the weights meanwhile.

    With `kept` the weights are those of the stage before.
    """
    kept = kept or context.applied
    body = await context.targets.view(ref)
    rebased, lowered, raised = _compare(context, changes, body, kept=kept)
    if lowered:  # a stream may be behind; nobody is held up without a fresh look
        body = await context.cluster.get(ref)
        rebased, lowered, raised = _compare(context, changes, body, kept=kept)
    stop = None
    if lowered:
        says = f"somebody has lowered {to} to weight {lowered.now} in {ref}, where this plan has {lowered.goal}"
        stop = Pause("LoweredByHand", f"{says}; resume raises it again, abort takes everything back")
    elif raised and count_repair(context):
        stop = await foreign_writer(context, ref, "the weights")
    return Drift(body, rebased, stop)


@dataclass(frozen=True, slots=True)
class _Lowered:
    """The weight of the new side as it is, and as this plan has it."""

    now: int
    goal: int


def _compare(
    context: StepContext, changes: list[Change], body: Json, *, kept: bool
) -> tuple[list[Change], _Lowered | None, bool]:
    """The changes from what stands there, what somebody has lowered, and whether somebody has raised."""
    rebased, raised = list[Change](), False
    for old, new in zip(changes[::2], changes[1::2], strict=True):
        found = [find(body, change.path) for change in (old, new)]
        if found[0] is None or found[1] is None:
            return changes, None, False  # said by `targets.change`
        live_old, live_new = found[0].value, found[1].value
        # Written only over what was prefetched at: a weight is traffic, and never left to chance.
        rebased += [_over_exactly(old, live_old), _over_exactly(new, live_new)]
        goal = number(new.to)
        if number(live_new) == goal and number(live_old) == number(old.to):
            continue
        before = goal if kept else number(new.previous[-1] if new.previous else new.was)
        if number(live_new) >= goal:
            raised = True
        elif not context.reapply and number(live_new) != before:
            return rebased, _Lowered(number(live_new), goal), False
    return rebased, None, raised


def _over_exactly(change: Change, live: Json) -> Change:
    return replace(change, was=live, ours=live, previous=())


async def raises_new_side(context: StepContext, ref: Ref, weights: list[Change], others: list[Change]) -> bool:
    """Whether the new side gets more than it has; what takes from it waits for nothing."""
    body = await context.targets.view(ref)
    return not stand(body, others) or any(
        (found := find(body, weight.path)) is None or number(found.value) < number(weight.to) for weight in weights
    )


def not_served(where: Routing, body: Json, snapshot: Snapshot, marks: list[Change]) -> Failed | None:
    """Whether what stands in the object is ours and somebody refuses it who did not refuse what was there before.

    Nobody is waited for: some never say anything, and who says it later is heard at the next look.
    """
    before = snapshot.facts.get(REFUSED)  # a snapshot that an older release took does not know
    if before is None or stand(body, marks) or not (says := where.refused(body, before)):
        return None
    return Failed(
        "NotServed", f"{says}; so the traffic is not where this plan has it: mend that, then run the plan again"
    )
