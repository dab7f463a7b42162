"""Carries out one command of the saga and turns every error into an outcome.

Called by the driver alone, and only after the status that announces the command has been saved.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from cutover.engine import claiming, postconditions
from cutover.engine.command_context import CommandContext
from cutover.engine.drift import has_written
from cutover.engine.old_pods import old_pods_left
from cutover.engine.outcomes import outcome_of
from cutover.engine.releasing import has_succeeded, release
from cutover.errors import Broken, NotFound, OutsideError, PlanError
from cutover.plan.permissions import role_command
from cutover.preflight import accounts
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Pause, Verb, Wait
from cutover.steps.kind import Kind
from cutover.steps.parts import LooksAhead
from cutover.targets import snapshots
from cutover.targets.fields import Foreign
from cutover.targets.finalizer import set_finalizer

log = logging.getLogger(__name__)

_SOON: Final = 2.0
"""Seconds until an undo is tried again that missed an object which is none of its targets."""
_AS_ACCOUNT: Final = frozenset({Verb.CLAIM, Verb.RECLAIM, Verb.DO, Verb.UNDO, Verb.ENFORCE, Verb.RELEASE})
"""Commands that write as the plan's account. What is denied to the operator itself is not explained by what that account lacks."""


async def carry_out(context: CommandContext, command: Command, prefetched: Any) -> Outcome:
    """Carry out a command, or check its progress. Raises Superseded when another process drives the plan, and nothing else."""
    try:
        return await _act(context, command, prefetched)
    except (OutsideError, PlanError, Foreign, Broken) as error:
        if isinstance(error, Broken):
            log.exception("an invariant does not hold", extra={"plan": str(context.ref)})
        if command.verb in _AS_ACCOUNT:
            error = await accounts.explained(context.plan, context.ref, context.cluster, error)
        return outcome_of(command, error)


async def _act(context: CommandContext, command: Command, prefetched: Any) -> Outcome:
    match command.verb:
        case Verb.EXAMINE:
            return await claiming.examine(context)
        case Verb.CLAIM:
            return await claiming.claim(context)
        case Verb.RECLAIM:
            return await claiming.reclaim(context)
        case Verb.RELEASE:
            return await _end(context)
        case Verb.SWEEP:
            owner = context.targets().owner
            await snapshots.drop_expired(context.cluster, context.ref, owner.uid, owner.run)
            return Done()
        case Verb.ENFORCE:
            return await postconditions.enforce(context)
        case Verb.REMOVE_FINALIZER:
            await set_finalizer(context.cluster, context.ref, context.body, wanted=False)
            return Done()
    kind = context.plan.steps[command.step].kind
    if command.verb is Verb.UNDO:
        return await _undo(context, kind, command, prefetched)
    return await _do(context, kind, command, prefetched)


async def _do(context: CommandContext, kind: Kind, command: Command, prefetched: Any) -> Outcome:
    # The account comes first: without it the kind could not write, and would take the refusal for one of the server.
    if missing := await _account_problems(context, command):
        return Failed("AccountUnusable", "; ".join(missing))
    if lost := await _missing_snapshot(context, command.step):
        return Pause("SnapshotLost", f"{lost}; restore it and resume, or set the fields by hand and abandon the plan")
    begins = not await _has_begun(context, command.step)
    if begins and (waits := await old_pods_left(context, command.step)):
        return waits
    if begins and (not_now := await _not_now(context, command.step)):
        return not_now
    return await kind.do(context.step_context(command.step, prefetched), command.stage)


async def _has_begun(context: CommandContext, at: int) -> bool:
    """Whether a step has done something, as far as the saved status knows.

    A snapshot alone is nothing yet: its first write may have got no answer, or the attempt that took it is undone.
    """
    step, current = context.status.steps[at], context.status.current
    if step.made or (current and current.applied_at):
        return True
    return step.snapshot_taken and await has_written(context, at)


async def _not_now(context: CommandContext, at: int) -> Again | None:
    """Whether what is done stands, before a step begins; asked with more care where it cannot be undone, or may take pods away."""
    step = context.plan.steps[at]
    certain = step.irreversible or step.workload() is not None
    return await postconditions.ask_before(context, certain=certain, afresh=step.irreversible)


async def _end(context: CommandContext) -> Outcome:
    """Release; a run that goes to its success only while all that it has done stands."""
    if not has_succeeded(context):
        return await release(context, {})
    asked = await postconditions.versions(context)
    return await postconditions.ask_before(context, certain=True) or await release(context, asked)


async def _undo(context: CommandContext, kind: Kind, command: Command, prefetched: Any) -> Outcome:
    at = command.step
    if missing := await _account_problems(context, command):
        await _must_be_left(context, at)  # an undo of what is gone needs no account
        return Wait("AccountUnusable", "; ".join(missing))
    if lost := await _missing_snapshot(context, at):
        return Wait("SnapshotLost", f"{lost}; set the fields by hand, then abandon the plan")
    try:
        return await kind.undo(context.step_context(at, prefetched))
    except NotFound as missing:  # perhaps of something else that it reads, such as a route
        await _must_be_left(context, at)
        return Again(_SOON, str(missing))


async def _must_be_left(context: CommandContext, at: int) -> None:
    """Raises NotFound when all targets of a step are gone: then nothing is left to restore."""
    gone: NotFound | None = None
    for ref in context.targets_of(at):
        try:
            await context.cluster.get(ref)
        except NotFound as missing:
            gone = missing
        else:
            return
    if gone is not None:
        raise gone


async def _missing_snapshot(context: CommandContext, at: int) -> str:
    """The message when a snapshot that a step has taken is gone; empty when none is.

    Another one is never taken: it would store what the step itself has written.
    """
    step = context.status.steps[at]
    targets = context.targets(step.name)
    for ref in context.targets_of(at):
        if step.snapshot_taken and await targets.saved(ref) is None:
            return f"{targets.snapshot_of(ref)}, the snapshot of {ref}, is gone, so its former values are not known"
    return ""


async def prefetch(context: CommandContext, command: Command) -> Any:
    """Read what a command needs to know, while the status is being saved. Errors are left to the command itself."""
    try:
        await _account_problems(context, command)
        kind = context.plan.steps[command.step].kind
        if not isinstance(kind, LooksAhead):
            return None
        if command.verb is Verb.DO:
            return await kind.prefetch(context.step_context(command.step), command.stage)
        return await kind.prefetch_undo(context.step_context(command.step))
    except (OutsideError, PlanError, Foreign, Broken):
        return None


async def _account_problems(context: CommandContext, command: Command) -> list[str]:
    """Why the account of the plan may not be used; empty when it may.

    Checked once before the first write of a step and of its undo, because impersonation itself does not check it.
    """
    key, step = (command.step, command.verb), context.plan.steps[command.step]
    if key in context.run_cache.account_checked or not step.writes():
        return []
    plan, ref, cluster = context.plan, context.ref, context.cluster
    account = plan.service_account_name
    of_pods = sorted(step.pod_accounts(account, undo=command.verb is Verb.UNDO))
    problems = await accounts.unusable(cluster, ref.namespace, (account, *of_pods))
    if denied := await accounts.use_denied(plan, ref, cluster, of_pods):
        problems.append(f"{denied}; to grant it: {role_command(ref)}")
    if not problems:
        context.run_cache.account_checked.add(key)
    return problems
