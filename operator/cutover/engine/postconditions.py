"""Whether what a run has done is still so, and the repair where a kind is enforced. The rule: what is done stays true, or the plan says so.

Asked of all done steps in each turn, and again before each command that goes forward and before the release. The fields of
every step are compared here; what else must be true a kind answers itself (`Kind.postcondition`). A field that a later step
has taken over is that step's. Objects that are streamed cost no request, but before an irreversible step, for a stream may be
behind; nobody is blamed without a read.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from cutover.engine.command_context import CommandContext
from cutover.engine.drift import Difference, differences, is_released, overwritten_by_later_step
from cutover.engine.outcomes import outcome_of
from cutover.errors import Denied, NotFound, OutsideError, PlanError, Unavailable
from cutover.field_path import readable
from cutover.ports import Ref
from cutover.saga.draft import position
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Pause, Verb
from cutover.status.state import State
from cutover.status.status import Phase, StepState
from cutover.steps.parts import Enforced, WritesFields
from cutover.steps.standing import Differs, Failing, Standing, Stands
from cutover.targets.fields import Foreign
from cutover.targets.foreign import restore_command, shown
from cutover.targets.writers import writer_of

_UNREAD_EVERY: Final = 5.0
"""Seconds until what the operator may not read is tried again."""


@dataclass(frozen=True, slots=True)
class Standings:
    """What became of all that the run has done.

    Attributes:
        problem: a step that no longer stands, as what has to become of the plan. One that no longer works comes first, because
            requests may be lost; then the first one that differs.
        problem_at: its position.
        to_restore: an enforced step differs, or one that a user wants applied again, so that comes first.
        after: seconds until it must be asked again although no event came.
        unsettled: what is wrong and may still pass; until then nothing may build on it.
    """

    problem: Failed | Pause | None = None
    problem_at: int = -1
    to_restore: bool = False
    after: float | None = None
    unsettled: str = ""


@dataclass(frozen=True, slots=True)
class _ToRestore:
    """Its fields are to be set again."""


_Found: TypeAlias = Standing | _ToRestore


async def ask(
    context: CommandContext, *, current: bool = False, certain: bool = False, afresh: bool = False
) -> Standings:
    """Ask all done steps, and the current one too: an earlier stage of it may be in effect while the next one waits.

    Args:
        context: the plan as it is now.
        current: the current step too, whose own fields its stage compares.
        certain: something follows that may lose requests or cannot be taken back, so what is not streamed is read.
        afresh: the targets are read as well, one request each.

    Raises:
        Unavailable: the API server gave no answer.
    """
    found, releasing = Standings(), await _release_has_begun(context)
    at_current = position(context.status) if current and context.status.current else -1
    for at, step in enumerate(context.status.steps):
        under_way = at == at_current and step.state in (StepState.DOING, StepState.WAITING)
        if step.state is not StepState.DONE and not under_way:
            continue
        match await _standing(context, at, certain=certain, afresh=afresh):
            case Failing() if releasing:
                continue  # whether it works is no longer for this run: others may have claimed what is released
            case Failing(reason=reason, message=message):
                return replace(found, problem=Failed(reason, message), problem_at=at)
            case Differs(reason=reason, message=message) if found.problem is None:
                found = replace(found, problem=Pause(reason, message), problem_at=at)
            case _ToRestore():
                found = replace(found, to_restore=True)
            case Stands(after=after, unsettled=unsettled) if not releasing:
                soonest = min((one for one in (after, found.after) if one is not None), default=None)
                found = replace(found, after=soonest, unsettled=found.unsettled or unsettled)
    return found


async def ask_before(context: CommandContext, *, certain: bool = False, afresh: bool = False) -> Again | None:
    """Ask just before a command goes forward: other writers may have been there while its announcement was saved.

    Returns:
        When to look again, where the command must not be carried out now. What follows from it the next turn decides.
    """
    found = await ask(context, certain=certain, afresh=afresh)
    if found.problem or found.to_restore:
        return Again(0.0, found.problem.message if found.problem else "fields that another writer changed come first")
    return Again(found.after, found.unsettled) if found.unsettled else None


async def versions(context: CommandContext) -> dict[Ref, str]:
    """The version of each target before it is asked, so that what follows can tell that it is still that one."""
    found = dict[Ref, str]()
    for ref in context.all_targets():
        with suppress(NotFound):
            found[ref] = (await context.targets().view(ref))["metadata"]["resourceVersion"]
    return found


async def enforce(context: CommandContext) -> Outcome:
    """Restore what done steps have set, by carrying out their last stage again. Idempotent, as that stage is."""
    for at, step in enumerate(context.status.steps):
        if step.state is not StepState.DONE or not isinstance(await _fields(context, at), _ToRestore):
            continue
        kind = context.plan.steps[at].kind
        mine = replace(context.step_context(at), applied=True, reapply=step.reapply)
        outcome = await kind.do(mine, len(kind.stages()) - 1)
        if not isinstance(outcome, Done):
            return outcome
        for ref in context.targets_of(at):
            version = (await mine.targets.view(ref))["metadata"]["resourceVersion"]
            context.run_cache.enforced[(at, ref)] = version
    return Done()


async def _standing(context: CommandContext, at: int, *, certain: bool, afresh: bool) -> _Found:
    done = context.status.steps[at].state is StepState.DONE
    try:
        found = await _fields(context, at, afresh=afresh) if done else Stands()
        if not isinstance(found, Stands) or await overwritten_by_later_step(context, at):
            return found
        mine = replace(context.step_context(at), applied=True, certain=certain)
        return await context.plan.steps[at].kind.postcondition(mine)
    except Unavailable:
        raise
    except Denied as denied:  # nothing is known, so nothing has failed, and nothing may build on it
        unread = f"it cannot be read whether step {context.plan.steps[at].name} still stands: {denied}"
        return Stands(_UNREAD_EVERY, unread if certain else "")
    except (OutsideError, PlanError, Foreign) as error:
        return _from_error(error)


def _from_error(error: OutsideError | PlanError | Foreign) -> Standing:
    match outcome_of(Command(Verb.ENFORCE), error):
        case Pause(reason=reason, message=message):
            return Differs(reason, message)
        case Failed(reason=reason, message=message):
            return Failing(reason, message)
        case Again(after=after):
            return Stands(after)
        case _:
            return Stands()


async def _fields(context: CommandContext, at: int, *, afresh: bool = False) -> _Found:
    """Whether the fields of a done step have the values that it has left."""
    differ = await differences(context, at, read=afresh)
    if not differ:
        return Stands()
    kind, step = context.plan.steps[at].kind, context.status.steps[at]
    if isinstance(kind, Enforced):
        return Stands() if await _restored_as_far_as_it_goes(context, at, differ) else _ToRestore()
    differ = await differences(context, at, read=True)
    if not differ:
        return Stands()
    again = (
        isinstance(kind, WritesFields)
        and kind.set_again
        and all(one.known for one in differ)
        and not await overwritten_by_later_step(context, at)
    )
    if again and step.reapply and context.status.phase is not Phase.PAUSED:
        return _ToRestore()
    return await _differs(context, differ[0], again=again)


async def _restored_as_far_as_it_goes(context: CommandContext, at: int, differ: Sequence[Difference]) -> bool:
    """Whether a later step has taken over a field, so that none is restored, or what differs was left so by the repair.

    A weight of 0 that somebody leaves out is no other weight, and the repair knows that.
    """
    if await overwritten_by_later_step(context, at):
        return True
    targets, known = context.targets(), context.run_cache.enforced
    versions = {one.ref: (await targets.view(one.ref))["metadata"]["resourceVersion"] for one in differ}
    return all(known.get((at, ref)) == version for ref, version in versions.items())


async def _differs(context: CommandContext, one: Difference, *, again: bool) -> Differs:
    ours, place = one.change.to, readable(one.change.path)
    body = await context.cluster.get(one.ref)
    who = writer_of(body, one.change.path)
    if one.found is None:
        what = f"{one.ref} no longer has {place}, which this plan has set to {shown(ours)}; {who} has changed it"
        return Differs("ForeignChange", f"{what}; set it back and resume, or abort to roll everything back")
    what = (
        f"{place} of {one.ref} is {shown(one.found.value)}, and this plan has set {shown(ours)}; {who} has changed it"
    )
    if again:
        return Differs("ForeignChange", f"{what}; resume sets it again, abort rolls everything back")
    return Differs(
        "ForeignChange", f"{what}; to set it back: {restore_command(one.ref, (one.found, ours))} and then resume"
    )


async def _release_has_begun(context: CommandContext) -> bool:
    """Whether the run has released one of its targets already. The fields of the others are compared until they are released too."""
    for ref in context.all_targets() if context.status.state is State.RELEASING else ():
        with suppress(NotFound):
            if is_released(context, await context.targets().view(ref)):
                return True
    return False
