"""The saga: what may happen to a plan, and what is to be done next. Pure, and the first file to read.

`advance` takes the rules of a plan, its status, what came in, and the time; it returns the new status, at most one
command, when to look again, and what to tell people. It knows no kind, no clock, no I/O. Two tables hold every legal
transition; a pair that is not in them is refused by name and changes nothing.

The order of every turn: end of the world first (deleted, aborted, failed guard or gate, out of time), then people's other
wishes, then the step in hand. The driver saves the returned status *before* it carries out the command; a command is
therefore always one that the saved status already announces, and after a crash the same command comes out again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from cutover.saga.backward import backward
from cutover.saga.draft import Draft
from cutover.saga.end import abandon, ended, reclaiming, releasing
from cutover.saga.forward import forward, paused, retry
from cutover.saga.requests import answer_requests, pause_or_resume, unanswered
from cutover.saga.start import claiming, examine_again, pending, take_spec
from cutover.saga.stop_conditions import check_stop_conditions
from cutover.saga.tables import PlanEvent
from cutover.saga.turn import NO_PROGRESS, STUCK_EVERY, Inputs, Rules, Turn
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import ENDED, Phase, Status

_BACKWARD = (Phase.ROLLING_BACK, Phase.STUCK)
_BESIDES = "; and the plan cannot go on with this spec: "


def unreadable(status: Status, message: str, inputs: Inputs, now: datetime) -> Turn:
    """An active plan whose spec cannot be read, or is not the one that was begun: stop, undo nothing, go on when it can.

    Such a plan is never rolled back, because how to undo its steps stands in that spec. It can be abandoned, and a deletion
    gives it up: at once when the namespace goes, else after a while in which somebody may mend the spec. One that was
    abandoned comes here until it has let go. What else people ask for is kept until the spec can be read: an abort must
    not be lost, for the plan goes on by itself then. The message says so.
    """
    nothing = Rules(steps=(), generation=status.observed_generation, spec_hash="", start_deadline=timedelta())
    only_abandon = tuple(request for request in inputs.requests if request.verb is RequestVerb.ABANDON)
    asked = [request.verb for request in unanswered(status, inputs.requests) if request not in only_abandon]
    draft = Draft(nothing, status, replace(inputs, requests=only_abandon), now)
    if status.phase in ENDED:
        return ended(draft, None)
    if answer_requests(draft) is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    later = f"; {', '.join(asked)} will be answered as soon as the plan can go on with its spec" if asked else ""
    _stop(draft, message + later)
    if inputs.deleted_at is None:
        return draft.turn(None, STUCK_EVERY)
    left = NO_PROGRESS - (now - max(inputs.deleted_at, draft.run.paused_at or inputs.deleted_at))
    if inputs.terminating or left <= timedelta():
        return abandon(draft, Reason.DELETED, f"the spec cannot be read: {message}")
    return draft.turn(None, STUCK_EVERY, left)


def _stop(draft: Draft, why: str) -> None:
    status = draft.status
    event = {Phase.RUNNING: PlanEvent.PAUSE, Phase.WAITING: PlanEvent.PAUSE, Phase.ROLLING_BACK: PlanEvent.GET_STUCK}
    if status.reason in (Reason.CLAIMING, Reason.RECLAIMING, Reason.RELEASING, Reason.UNREADABLE):
        # Stopped already, or between the steps; what is to be gone on with is said by the reason.
        draft.set(message=why)
    elif status.phase in event:
        draft.plan_event(event[status.phase], Reason.UNREADABLE, why)
        draft.set_run(paused_at=draft.now)
    elif status.phase in (Phase.PAUSED, Phase.STUCK):  # for another reason, which stays
        draft.set(message=f"{_without(status.message)}{_BESIDES}{why}")


def _without(message: str) -> str:
    return message.partition(_BESIDES)[0]


def advance(rules: Rules, status: Status, inputs: Inputs, now: datetime) -> Turn:
    """One turn of one plan.

    Args:
        rules: the plan as the saga knows it.
        status: what was last saved, or saved and then added to in memory.
        inputs: what came in.
        now: the time, UTC.

    Returns:
        The status to save before anything else, and the command it announces.

    Raises:
        Broken: a transition that is in neither table.
    """
    draft = Draft(rules, replace(status, message=_without(status.message)), inputs, now)
    take_spec(draft)
    verb = answer_requests(draft)
    if draft.status.phase in ENDED:
        return examine_again(draft) if verb is RequestVerb.RETRY else ended(draft, verb)
    if draft.status.phase is Phase.PENDING:
        return pending(draft, verb)
    if draft.status.reason == Reason.RELEASING:
        return releasing(draft)
    if draft.status.reason == Reason.RECLAIMING:
        return reclaiming(draft, verb)
    if draft.status.phase not in _BACKWARD:
        check_stop_conditions(draft, verb)
    if draft.status.phase is Phase.ABANDONED:
        return ended(draft, None)
    if draft.status.phase in _BACKWARD:
        return backward(draft, verb)
    if verb is RequestVerb.RETRY:
        return retry(draft)
    pause_or_resume(draft, verb)
    if draft.status.phase is Phase.PAUSED:
        return paused(draft)
    return claiming(draft) if draft.status.reason == Reason.CLAIMING else forward(draft)
