"""Checks before the first step that several kinds share. Read-only; checks of one kind stand in its own file or folder."""

from __future__ import annotations

from cutover.errors import Denied, NotFound, Rejected
from cutover.field_path import Json
from cutover.messaging import Messenger
from cutover.ports import Ref
from cutover.steps.kind import StepContext, Target


async def dry_run_problem(context: StepContext, ref: Ref, patch: Json) -> str:
    """Why the server would refuse a strategic merge patch of an object, by a dry run; empty when it accepts it.

    Not asked for a target of an earlier step: it is different by then. What preflight reports for every target is left to preflight.
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
    """Whether the account may not patch the object at all, which preflight reports for every target."""
    if not isinstance(refused, Denied):
        return False
    return not await context.cluster.may(
        context.targets.owner.account, context.namespace, "patch", ref.resource, ref.name
    )


async def may_name(context: StepContext, *refs: Ref) -> bool:
    """Whether a message may name objects: those of the plan's namespace, and others that its account may get.

    Foreign objects are seen by the operator's own streams; their names are not for everybody who may write a plan.
    """
    account, foreign = context.targets.owner.account, [ref for ref in refs if ref.namespace != context.namespace]
    return all([await context.cluster.may_get(account, context.namespace, ref) for ref in foreign])


def unknown_provider(messenger: Messenger, name: str) -> str:
    """Why a provider of messages cannot be used; empty when it exists."""
    if messenger.knows(name):
        return ""
    known = ", ".join(messenger.names()) or "none"
    return f"there is no provider {name} for messages; the administrator has configured: {known}"
