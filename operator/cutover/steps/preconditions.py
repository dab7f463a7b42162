"""Checks that several kinds make before the first step. Read-only; what one kind alone checks stands beside it."""

from __future__ import annotations

from cutover.errors import Denied, NotFound, Rejected
from cutover.field_path import Json
from cutover.ports import Messenger, Ref
from cutover.steps.kind import StepContext, Target


async def dry_run_problem(context: StepContext, ref: Ref, patch: Json) -> str:
    """What the server says against a strategic merge patch of an object, asked by a dry run; empty when it takes it.

    Not asked of what an earlier step writes: it looks different by then. What preflight says of every target is left to it.
    """
    if Target(ref.resource, ref.name) in context.earlier:
        return ""
    try:
        await context.cluster.dry_run(ref, patch, context.targets.owner.account)
    except NotFound:
        return ""
    except (Rejected, Denied) as refused:
        return "" if await may_not_patch(context, ref, refused) else f"the server refuses it: {refused}"
    return ""


async def may_not_patch(context: StepContext, ref: Ref, refused: Rejected | Denied) -> bool:
    """Whether the account may not patch the object at all, which preflight says of every target."""
    if not isinstance(refused, Denied):
        return False
    return not await context.cluster.may(
        context.targets.owner.account, context.namespace, "patch", ref.resource, ref.name
    )


def unknown_provider(messenger: Messenger, name: str) -> str:
    """What is said of a provider of messages that is not there; empty when it is."""
    if messenger.knows(name):
        return ""
    known = ", ".join(messenger.names()) or "none"
    return f"there is no provider {name} for messages; the administrator has configured: {known}"
