"""The saga: what may happen to a plan, and what is done next. Pure, and the first file to read.

`advance` takes the rules of a plan, its status, what came in, and the time; it returns the new status, at most one
command, when the next turn is due, and the events to publish. It knows no kind, no clock, no I/O. The two tables of `tables.py`
hold every legal transition; a pair that is not in them is refused by name and changes nothing.

The driver saves the returned status *before* it carries out the command. So a command is always one that the saved status
already announces, and after a crash the same command comes out again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from cutover.saga.backward import backward
from cutover.saga.draft import Draft
from cutover.saga.end import ended, reclaiming, releasing
from cutover.saga.forward import forward, paused, retry
from cutover.saga.requests import answer_requests, pause_or_resume
from cutover.saga.start import claiming, examine_again, pending, take_spec
from cutover.saga.stop_conditions import check_stop_conditions
from cutover.saga.turn import Inputs, Rules, Turn
from cutover.saga.unreadable_spec import without_spec_problem
from cutover.status.reasons import Reason
from cutover.status.requests import RequestVerb
from cutover.status.status import ENDED, Phase, Status

_BACKWARD = (Phase.ROLLING_BACK, Phase.STUCK)


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
    draft = Draft(rules, replace(status, message=without_spec_problem(status.message)), inputs, now)
    # A new spec comes before the requests: those that were there already are not for it, and are marked Ignored.
    take_spec(draft)
    verb = answer_requests(draft)
    if draft.status.phase in ENDED:
        return examine_again(draft) if verb is RequestVerb.RETRY else ended(draft, verb)
    if draft.status.phase is Phase.PENDING:
        return pending(draft, verb)
    if draft.status.reason == Reason.RELEASING:
        return releasing(draft, verb)
    if draft.status.reason == Reason.RECLAIMING:
        return reclaiming(draft, verb)
    # Deletion, abort, failed guards and gates and timeouts come before the current step: its outcome must not move the
    # plan on in the very turn in which it has to stop.
    if draft.status.phase not in _BACKWARD:
        check_stop_conditions(draft, verb)
    if draft.status.phase is Phase.ABANDONED:
        return ended(draft, None)
    if draft.status.phase in _BACKWARD:
        return backward(draft, verb)
    # From here on the plan goes forward: other requests first, then the current step.
    if verb is RequestVerb.RETRY:
        return retry(draft)
    pause_or_resume(draft, verb)
    if draft.status.phase is Phase.PAUSED:
        return paused(draft)
    return claiming(draft) if draft.status.reason == Reason.CLAIMING else forward(draft)
