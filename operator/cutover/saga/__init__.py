"""The saga: what may happen to a plan, and what is done next. Pure, and the first file to read.

`advance` takes the rules of a plan, its status, what came in, and the time; it returns the new status, at most one
command, when the next turn is due, and the events to publish. It knows no kind, no clock, no I/O. The two tables of `tables.py`
hold every legal transition; a pair that is not in them is refused by name and changes nothing.

The driver saves the returned status *before* it carries out the command. So a command is always one that the saved status
already announces, and after a crash the same command comes out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from cutover.saga.backward import backward
from cutover.saga.draft import Draft
from cutover.saga.end import ended, reclaiming, releasing, succeeded
from cutover.saga.forward import forward, paused, retry
from cutover.saga.requests import answer_requests, pause_or_resume
from cutover.saga.start import claiming, pending, refused, take_spec
from cutover.saga.stop_conditions import check_stop_conditions, check_target_problem
from cutover.saga.turn import Inputs, Rules, Turn
from cutover.saga.unreadable_spec import without_spec_problem
from cutover.status.phases import AT_A_STEP, RELEASING, states_in
from cutover.status.requests import RequestVerb
from cutover.status.state import State
from cutover.status.status import Phase, Status


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
    # What was done may have been changed while it is released; then the run is no success yet.
    if draft.state is State.RELEASING:
        check_target_problem(draft)
    # Deletion, abort, failed guards and gates and timeouts come before the current step: its outcome must not move the
    # plan on in the very turn in which it has to stop. Each may lead to another state.
    if draft.state in _UNDER_WAY:
        check_stop_conditions(draft, verb)
    if draft.state in _UNDER_WAY:
        if verb is RequestVerb.RETRY:
            return retry(draft)
        pause_or_resume(draft, verb)
    return _IN_STATE[draft.state](draft, verb)


_PAUSED: Final = states_in(Phase.PAUSED)
_UNDER_WAY: Final = AT_A_STEP | _PAUSED | {State.CLAIMING}
"""The plan goes forward, or does so again once it is resumed."""

_IN_STATE: Final[Mapping[State, Callable[[Draft, RequestVerb | None], Turn]]] = {
    **dict.fromkeys(states_in(Phase.PENDING), pending),
    State.CLAIMING: claiming,
    **dict.fromkeys(AT_A_STEP, forward),
    **dict.fromkeys(_PAUSED, paused),
    **dict.fromkeys(RELEASING, releasing),
    **dict.fromkeys((State.ROLLING_BACK, State.STUCK, State.STUCK_WITHOUT_SPEC), backward),
    State.RECLAIMING: reclaiming,
    State.SUCCEEDED: succeeded,
    State.REFUSED: refused,
    State.APPLIED_THEN_CHANGED: refused,
    State.ROLLED_BACK: ended,
    State.ABANDONED: ended,
}
"""What is done next in each state, once nothing that came in has led to another one."""
