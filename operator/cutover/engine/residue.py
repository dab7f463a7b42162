"""What an abandoned plan leaves behind that it would have removed at its end: header routes, mirrors. Reads only.

Called by `claiming.py` while the snapshots still exist: without them such a field cannot be told from one of the user's.
"""

from __future__ import annotations

from contextlib import suppress

from cutover.engine.command_context import CommandContext
from cutover.errors import Denied, NotFound
from cutover.field_path import find, readable
from cutover.ports import Ref
from cutover.saga.tables import TOUCHED
from cutover.status.status import StepState
from cutover.steps.parts import WritesFields
from cutover.targets.foreign import restore_command
from cutover.targets.targets import Targets


async def residue_of(context: CommandContext) -> str:
    """What is left, and for each object the command that removes it; empty when nothing is.

    A step that is done has itself removed what it had set for a while.
    """
    sentences = []
    for line, step in zip(context.status.steps, context.plan.steps, strict=False):
        kind = step.kind
        if line.state not in TOUCHED or line.state is StepState.DONE or not isinstance(kind, WritesFields):
            continue
        targets = context.targets(step.name)
        for ref in (target.ref(targets.owner.namespace) for target in kind.touches()):
            with suppress(NotFound, Denied):
                sentences += await _of_object(kind, targets, ref)
    return "; ".join(sentences)


async def _of_object(kind: WritesFields, targets: Targets, ref: Ref) -> list[str]:
    snapshot = await targets.saved(ref)
    body = await targets.cluster.get(ref)
    if snapshot is None or body["metadata"]["uid"] != snapshot.uid:
        return []
    left = [
        (change.path, found, change.to)
        for change in kind.restores(snapshot)
        if change.ours == change.was  # the end of the step would have restored it
        and (found := find(body, change.path)) is not None
        and found.value != change.to
        and found.value in change.expects
    ]
    if not left:
        return []
    what = ", ".join(readable(path) for path, _, _ in left)
    restore = restore_command(ref, *((found, was) for _, found, was in left))
    return [f"left on {ref}, set only for a while: {what}; to restore it: {restore}"]
