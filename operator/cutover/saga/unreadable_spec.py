"""An active plan whose spec cannot be read, or is not the one its run began with: pause, undo nothing, continue when it can.

Rare, and apart from `advance`, because no rule of the plan is known here. Called by the driver.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from cutover.saga.draft import Draft
from cutover.saga.end import abandon, ended
from cutover.saga.requests import answer_requests, unanswered
from cutover.saga.tables import PLAN, PlanEvent
from cutover.saga.turn import NO_PROGRESS, STUCK_EVERY, Inputs, Rules, Turn
from cutover.status.phases import WITHOUT_SPEC
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import ENDED, Phase, Status

_AND_THE_SPEC: Final = "; and the plan cannot continue with this spec: "


def unreadable(status: Status, message: str, inputs: Inputs, now: datetime) -> Turn:
    """One turn of a plan without its spec.

    Such a plan is never rolled back, because how to undo its steps is defined in that spec. It can be abandoned on request. A
    deletion abandons it too: at once when the namespace goes, otherwise after a while in which the spec may be fixed.
    One that was abandoned comes here until its claims are released. Other requests keep waiting, and the message says so: an
    abort must not be lost, because the plan continues by itself once the spec can be read.
    """
    no_rules = Rules(steps=(), generation=status.observed_generation, spec_hash="", start_deadline=timedelta())
    only_abandon = tuple(request for request in inputs.requests if request.verb is RequestVerb.ABANDON)
    waiting = [request.verb for request in unanswered(status, inputs.requests) if request not in only_abandon]
    draft = Draft(no_rules, status, replace(inputs, requests=only_abandon), now)
    if status.phase in ENDED:
        return ended(draft)
    if answer_requests(draft) is RequestVerb.ABANDON:
        return abandon(draft, Reason.ABANDONED, "abandoned on request")
    later = f"; {', '.join(waiting)} will be answered as soon as the plan can continue with its spec" if waiting else ""
    _pause(draft, message + later)
    if inputs.deleted_at is None:
        return draft.turn(None, STUCK_EVERY)
    left = NO_PROGRESS - (now - max(inputs.deleted_at, draft.run.paused_at or inputs.deleted_at))
    if inputs.terminating or left <= timedelta():
        return abandon(draft, Reason.DELETED, f"the spec cannot be read: {message}")
    return draft.turn(None, STUCK_EVERY, left)


def _pause(draft: Draft, why: str) -> None:
    status = draft.status
    if (status.state, PlanEvent.LOSE_SPEC) in PLAN:
        draft.plan_event(PlanEvent.LOSE_SPEC, Reason.UNREADABLE, why)
        draft.set_run(paused_at=draft.now)
    elif status.state in WITHOUT_SPEC or status.phase not in (Phase.PAUSED, Phase.STUCK):
        # Stopped for this already, or between the steps, where the plan continues with what it does there.
        draft.set(message=why)
    else:  # stopped by something else, which stays with its message
        draft.set(message=f"{without_spec_problem(status.message)}{_AND_THE_SPEC}{why}")


def without_spec_problem(message: str) -> str:
    """The message without what was added to it here."""
    return message.partition(_AND_THE_SPEC)[0]
