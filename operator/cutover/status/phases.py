"""The phase of each state, groups of states, and the state of a status that an earlier version has saved without one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cutover.status.reasons import Reason
from cutover.status.state import State
from cutover.status.status import Phase

PHASES: Final[Mapping[State, Phase]] = {
    state: phase
    for phase, states in {
        Phase.PENDING: (
            State.PREFLIGHT,
            State.UNANSWERED,
            State.TARGET_BUSY,
            State.BEFORE_WINDOW,
            State.PAUSED_BEFORE_START,
            State.SUSPENDED_BEFORE_START,
            State.OUTDATED_CRD_BEFORE_START,
        ),
        Phase.RUNNING: (State.CLAIMING, State.PROGRESSING, State.RELEASING),
        Phase.WAITING: (State.WAITING, State.OUTSIDE_WINDOW),
        Phase.PAUSED: (
            State.PAUSED_BY_PERSON,
            State.SUSPENDED,
            State.OUTDATED_CRD,
            State.PAUSED_WITHOUT_SPEC,
            State.GATE_FAILED,
            State.FAILED,
            State.INTERRUPTED,
            State.PAST_POINT_OF_NO_RETURN,
        ),
        Phase.ROLLING_BACK: (State.ROLLING_BACK, State.RECLAIMING, State.RELEASING_ROLLED_BACK),
        Phase.STUCK: (State.STUCK, State.STUCK_WITHOUT_SPEC),
        Phase.SUCCEEDED: (State.SUCCEEDED,),
        Phase.ROLLED_BACK: (State.ROLLED_BACK,),
        Phase.REFUSED: (State.REFUSED, State.APPLIED_THEN_CHANGED),
        Phase.ABANDONED: (State.ABANDONED,),
    }.items()
    for state in states
}
"""What users see of a state. Nothing else sets the phase of a plan."""


def states_in(*phases: Phase) -> frozenset[State]:
    """The states whose phase is one of these."""
    return frozenset(state for state, phase in PHASES.items() if phase in phases)


ON_PURPOSE: Final = frozenset({
    State.PAUSED_BEFORE_START,
    State.PAUSED_BY_PERSON,
    State.SUSPENDED_BEFORE_START,
    State.SUSPENDED,
})  # fmt: skip
"""A user has stopped the plan, so nothing is wrong with it."""
STOPPED: Final = frozenset({
    State.SUSPENDED_BEFORE_START,
    State.SUSPENDED,
    State.OUTDATED_CRD_BEFORE_START,
    State.OUTDATED_CRD,
})  # fmt: skip
"""The plan continues by itself once what stops it is over."""
AT_A_STEP: Final = states_in(Phase.WAITING) | {State.PROGRESSING}
RELEASING: Final = frozenset({State.RELEASING, State.RELEASING_ROLLED_BACK})
WITHOUT_SPEC: Final = frozenset({State.PAUSED_WITHOUT_SPEC, State.STUCK_WITHOUT_SPEC})

_BEFORE_STATES: Final[Mapping[tuple[Phase, str], State]] = {
    (Phase.PENDING, Reason.UNANSWERED): State.UNANSWERED,
    (Phase.PENDING, Reason.TARGET_BUSY): State.TARGET_BUSY,
    (Phase.PENDING, Reason.OUTSIDE): State.BEFORE_WINDOW,
    (Phase.PENDING, Reason.PAUSED_BY_PERSON): State.PAUSED_BEFORE_START,
    (Phase.PENDING, Reason.SUSPENDED): State.SUSPENDED_BEFORE_START,
    (Phase.PENDING, Reason.OUTDATED_CRD): State.OUTDATED_CRD_BEFORE_START,
    (Phase.RUNNING, Reason.CLAIMING): State.CLAIMING,
    (Phase.RUNNING, Reason.RELEASING): State.RELEASING,
    (Phase.WAITING, Reason.OUTSIDE): State.OUTSIDE_WINDOW,
    (Phase.PAUSED, Reason.PAUSED_BY_PERSON): State.PAUSED_BY_PERSON,
    (Phase.PAUSED, Reason.SUSPENDED): State.SUSPENDED,
    (Phase.PAUSED, Reason.OUTDATED_CRD): State.OUTDATED_CRD,
    (Phase.PAUSED, Reason.UNREADABLE): State.PAUSED_WITHOUT_SPEC,
    (Phase.PAUSED, Reason.GATE_FAILED): State.GATE_FAILED,
    (Phase.PAUSED, Reason.NO_RETURN): State.PAST_POINT_OF_NO_RETURN,
    (Phase.ROLLING_BACK, Reason.RECLAIMING): State.RECLAIMING,
    (Phase.ROLLING_BACK, Reason.RELEASING): State.RELEASING_ROLLED_BACK,
    (Phase.STUCK, Reason.UNREADABLE): State.STUCK_WITHOUT_SPEC,
    (Phase.REFUSED, Reason.APPLIED_THEN_CHANGED): State.APPLIED_THEN_CHANGED,
}
_OTHERWISE: Final[Mapping[Phase, State]] = {
    Phase.PENDING: State.PREFLIGHT,
    Phase.RUNNING: State.PROGRESSING,
    Phase.WAITING: State.WAITING,
    Phase.ROLLING_BACK: State.ROLLING_BACK,
    Phase.STUCK: State.STUCK,
    Phase.SUCCEEDED: State.SUCCEEDED,
    Phase.ROLLED_BACK: State.ROLLED_BACK,
    Phase.REFUSED: State.REFUSED,
    Phase.ABANDONED: State.ABANDONED,
}


def state_before_states(phase: Phase, reason: str, *, failed: bool) -> State:
    """The state of a plan whose status was saved before there were states.

    Args:
        phase: as it was saved.
        reason: as it was saved; of many plans it is one of a kind, a gate or preflight, and then says nothing here.
        failed: a failure was saved too, so a plan that is Paused has failed, and was not interrupted by another writer.
    """
    paused = State.FAILED if failed else State.INTERRUPTED
    return _BEFORE_STATES.get((phase, reason)) or _OTHERWISE.get(phase, paused)
