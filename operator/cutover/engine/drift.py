"""What a run has written, by the snapshots of its steps, and what other writers have changed of it. Writes nothing but lost claims.

Called by `postconditions.py`, by `inputs.py` (`target_problem`), and by the commands that begin a step or claim again.
"""

from __future__ import annotations

from dataclasses import dataclass

from cutover.engine.command_context import CommandContext
from cutover.errors import Conflict, Denied, NotFound, Rejected
from cutover.field_path import Change, Found, Json, Path, find, overlap, stand
from cutover.ports import APPLIED_LABEL, PLAN_LABEL, Ref
from cutover.preflight import accounts
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import Failed, Pause
from cutover.status.state import State
from cutover.steps.parts import WritesFields
from cutover.targets.fields import Foreign


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that no longer has the value which a step has left; `found` is None where its list item or map is gone."""

    ref: Ref
    change: Change
    found: Found | None

    @property
    def known(self) -> bool:
        """It has another value that this plan knows: the one before the step, or one of an earlier stage."""
        return self.found is not None and self.change.knows(self.found.value)


async def written_fields(context: CommandContext, ref: Ref) -> list[Change]:
    """The fields this run has written on an object so far, each as set by the last step that wrote it."""
    found: list[Change] = []
    for at in reversed(range(len(context.plan.steps))):
        if context.status.steps[at].state in TOUCHED:
            for change in await _fields_of_step(context, at, ref) or ():
                if not any(overlap(change.path, known.path) for known in found):
                    found.append(change)
    return found


def is_released(context: CommandContext, body: Json) -> bool:
    """Whether a run that releases its targets as a success has released this one: from then on anybody may change it."""
    if context.status.state is not State.RELEASING:
        return False
    labels = body["metadata"].get("labels") or {}
    return PLAN_LABEL not in labels and labels.get(APPLIED_LABEL) == context.applied_label


async def has_written(context: CommandContext, at: int) -> bool:
    """Whether a field of a step that has taken its snapshots no longer has the value from before it. Raises NotFound."""
    for ref in context.targets_of(at):
        written = await _fields_of_step(context, at, ref)
        if written and not stand(await context.targets().view(ref), written):
            return True
    return False


async def differences(context: CommandContext, at: int, *, read: bool = False) -> list[Difference]:
    """The fields of a done step that differ from what it has left, without those that a later step has taken over.

    Of streamed objects, unless they are to be `read`. A step whose snapshot is gone has none: what it wrote is not known.

    Raises:
        NotFound: a target is gone, or it was deleted and created again.
    """
    found, targets = list[Difference](), context.targets(context.plan.steps[at].name)
    kind = context.plan.steps[at].kind
    if not isinstance(kind, WritesFields):
        return found
    for ref in context.targets_of(at):
        if snapshot := await targets.saved(ref):
            body = await (context.cluster.get(ref) if read else targets.view(ref))
            if is_released(context, body):
                continue
            if body["metadata"]["uid"] != snapshot.uid:
                raise NotFound(_replaced(ref))
            differ = [one for one in kind.forward(snapshot) if not _has(body, one)]
            found += await _without_later(
                context, at, ref, [Difference(ref, one, find(body, one.path)) for one in differ]
            )
    return found


async def _without_later(context: CommandContext, at: int, ref: Ref, differ: list[Difference]) -> list[Difference]:
    """Without the fields that later steps have taken over."""
    later = await _later_fields(context, at, ref) if differ else []
    return [one for one in differ if not any(overlap(one.change.path, path) for path in later)]


def _has(body: Json, change: Change) -> bool:
    found = find(body, change.path)
    return found is not None and change.stands_in(found.value)


async def target_problem(context: CommandContext) -> Failed | Pause | None:
    """Whether a target is gone, or our labels were removed from it; claims it again when nothing else was changed.

    Reads only targets that are not streamed as claimed, or not known to this process yet. Raises Unavailable.
    """
    uid = context.body["metadata"]["uid"]
    for ref in context.all_targets():
        try:
            body = context.cluster.seen(ref) or await context.cluster.get(ref)
            if body["metadata"]["uid"] not in (await _uids(context, ref) or [body["metadata"]["uid"]]):
                return Failed("TargetGone", _replaced(ref))
            if (body["metadata"].get("labels") or {}).get(PLAN_LABEL) == uid:
                continue
            await context.targets().claim_again(ref, await written_fields(context, ref))
        except NotFound:
            return Failed("TargetGone", f"{ref} is gone")
        except Foreign as foreign:
            return Pause(
                "ClaimLost", f"the label {PLAN_LABEL} was removed from {ref}, and {foreign}; fix it and resume"
            )
        except (Denied, Rejected) as refused:
            why = await accounts.explained(context.plan, context.ref, context.cluster, refused)
            return Pause("ClaimLost", f"{ref} cannot be claimed again: {why}")
        except Conflict:
            continue  # another write is in progress; its event starts the next turn
    return None


def _replaced(ref: Ref) -> str:
    return f"{ref} is gone: it was deleted, and another object was created under its name"


async def _uids(context: CommandContext, ref: Ref) -> list[str]:
    """The uid of an object by the snapshots that this run has taken of it."""
    found = []
    for at, step in enumerate(context.status.steps):
        if step.state in TOUCHED and step.snapshot_taken and ref in context.targets_of(at):
            snapshot = await context.targets(step.name).saved(ref)
            found += [snapshot.uid] if snapshot else []
    return found


async def overwritten_by_later_step(context: CommandContext, at: int) -> bool:
    """Whether a later step has taken over a field of a step: from its snapshot on the field belongs to that one.

    Also where the snapshot of the step itself is gone: its undo reports that, and what it wrote is not known.
    """
    for ref in context.targets_of(at):
        ours = await _fields_of_step(context, at, ref)
        if ours is None:
            return True
        later = await _later_fields(context, at, ref)
        if any(overlap(own.path, path) for own in ours for path in later):
            return True
    return False


async def _later_fields(context: CommandContext, at: int, ref: Ref) -> list[Path]:
    """The fields of an object that later steps have taken over; all of it where the snapshot of one is lost."""
    found = list[Path]()
    for later in range(at + 1, len(context.plan.steps)):
        step = context.status.steps[later]
        if step.state not in TOUCHED or ref not in context.targets_of(later):
            continue
        theirs = await _fields_of_step(context, later, ref)
        if theirs is None and step.snapshot_taken:
            return [()]
        found += [change.path for change in theirs or ()]
    return found


async def _fields_of_step(context: CommandContext, at: int, ref: Ref) -> list[Change] | None:
    """The fields a step has written on an object; None when it has taken no snapshot of it, or that is gone."""
    kind = context.plan.steps[at].kind
    if not isinstance(kind, WritesFields) or ref not in context.targets_of(at):
        return None
    snapshot = await context.step_context(at).targets.saved(ref)
    return kind.restores(snapshot) if snapshot is not None else None
