"""What an abandoned plan leaves that it would have taken away itself at its end: header routes, mirrors. Reads only.

Called by `commands.py` while the snapshots are still there: afterwards nobody can tell such a field from one of the user's.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cutover.errors import Denied, NotFound
from cutover.field_path import find, readable
from cutover.plan.spec import Plan
from cutover.ports import Ref
from cutover.saga.tables import TOUCHED
from cutover.status.status import Status, StepState
from cutover.targets.foreign import restore_command
from cutover.targets.targets import Targets


async def said(plan: Plan, status: Status, targets_of: Callable[[str], Targets]) -> str:
    """What is left, and the command for each object that takes it away; empty when nothing is.

    Args:
        plan: its spec.
        status: which of its steps have begun; one that is done has taken away itself what it had set for a while.
        targets_of: a step, by its name.
    """
    sentences = []
    for line, step in zip(status.steps, plan.steps, strict=False):
        if line.state not in TOUCHED or line.state is StepState.DONE:
            continue
        targets = targets_of(step.name)
        for ref in (target.ref(targets.owner.namespace) for target in step.kind.touches()):
            with suppress(NotFound, Denied):
                sentences += await _of_object(step.kind, targets, ref)
    return "; ".join(sentences)


async def _of_object(kind: Any, targets: Targets, ref: Ref) -> list[str]:
    snapshot = await targets.saved(ref)
    body = await targets.cluster.get(ref)
    if snapshot is None or body["metadata"]["uid"] != snapshot.uid:
        return []
    left = [
        (mark.path, found, mark.to)
        for mark in kind.restores(snapshot)
        if mark.ours == mark.was  # what the end of the step leaves is what was there before
        and (found := find(body, mark.path)) is not None
        and found.value != mark.to
        and found.value in mark.expects
    ]
    if not left:
        return []
    what = ", ".join(readable(path) for path, _, _ in left)
    way = restore_command(ref, *((found, was) for _, found, was in left))
    return [f"{what} of {ref} would have stood there for a while only, and stays; to have it as it was: {way}"]
