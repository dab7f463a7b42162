"""Every legal transition of a plan and of a step. A pair that is not here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from cutover.status.phases import AT_A_STEP, STOPPED, states_in
from cutover.status.state import State
from cutover.status.status import ACTIVE, ENDED, Phase, StepState


class PlanEvent(StrEnum):
    """What can happen to a plan as a whole. The texts complete "a plan in state Releasing cannot ..."."""

    SEEN = "be seen"  # for the first time, or with a new spec after the end of a run
    EXAMINE = "be examined"  # what it needs is missing, or may be missing again after it waited for something else
    GET_NO_ANSWER = "wait for an answer"  # something that it needs cannot be read
    BUSY = "wait for a busy target"  # another plan has claimed one
    WAIT_FOR_WINDOW = "wait for a window"
    FIND_APPLIED = "find itself applied"  # its targets carry the label of this spec
    FIND_CHANGED = "find itself applied and changed since"
    REFUSE = "be refused"
    BEGIN = "begin"  # all prerequisites are met
    CLAIMED = "have claimed its targets"
    WAIT = "wait"  # a step waits for an approval
    CONTINUE = "continue"  # the step no longer waits
    PAUSE = "be paused"  # on request
    SUSPEND = "be suspended"
    OUTDATE = "wait for the CRD"  # it lacks what this version needs
    LOSE_SPEC = "lose its spec"
    FAIL_GATE = "pause at a gate"
    FAIL = "pause at a failure"
    INTERRUPT = "be interrupted"  # by another writer, or by an attempt that cannot be undone
    RESUME = "resume"
    RESUME_CLAIMING = "resume claiming"  # no step has begun
    RESUME_RELEASING = "resume its release"  # all steps are done
    ROLL_BACK = "start rolling back"
    GET_STUCK = "get stuck"  # an undo cannot continue
    GET_UNSTUCK = "continue rolling back"
    STOP_ROLLBACK = "stop rolling back"  # at a step that is irreversible
    RELEASE = "release its targets"  # all is done, or undone
    FINISH = "finish"
    ABANDON = "be abandoned"
    ROLL_BACK_SUCCESS = "be rolled back after its success"
    KEEP_SUCCESS = "keep its success"  # the requested rollback is not possible


_NOT_BEGUN: Final = states_in(Phase.PENDING)
_EXAMINING: Final = frozenset({State.PREFLIGHT, State.UNANSWERED, State.TARGET_BUSY})
_MAY_STOP: Final = _NOT_BEGUN - {State.PAUSED_BEFORE_START}
"""Once a user has paused a plan, nothing else stops it too."""
_FORWARD: Final = AT_A_STEP | {State.CLAIMING}
_PAUSED: Final = states_in(Phase.PAUSED)
_STOPPED: Final = STOPPED & _PAUSED
_ON_PURPOSE: Final = _STOPPED | {State.PAUSED_BY_PERSON}

_PLAN: Final[tuple[tuple[PlanEvent, frozenset[State], State], ...]] = (
    (PlanEvent.SEEN, _NOT_BEGUN | states_in(*ENDED), State.PREFLIGHT),
    (PlanEvent.EXAMINE, _NOT_BEGUN, State.PREFLIGHT),
    (PlanEvent.GET_NO_ANSWER, _EXAMINING, State.UNANSWERED),
    (PlanEvent.BUSY, _EXAMINING | {State.CLAIMING}, State.TARGET_BUSY),
    (PlanEvent.WAIT_FOR_WINDOW, _EXAMINING | {State.BEFORE_WINDOW}, State.BEFORE_WINDOW),
    (PlanEvent.WAIT_FOR_WINDOW, frozenset({State.PROGRESSING}), State.OUTSIDE_WINDOW),
    (PlanEvent.FIND_APPLIED, _EXAMINING, State.SUCCEEDED),
    (PlanEvent.FIND_CHANGED, _EXAMINING, State.APPLIED_THEN_CHANGED),
    (PlanEvent.REFUSE, _NOT_BEGUN, State.REFUSED),
    (PlanEvent.BEGIN, _EXAMINING, State.CLAIMING),
    (PlanEvent.CLAIMED, frozenset({State.CLAIMING}), State.PROGRESSING),
    (PlanEvent.CLAIMED, frozenset({State.RECLAIMING}), State.ROLLING_BACK),
    (PlanEvent.WAIT, frozenset({State.PROGRESSING}), State.WAITING),
    (PlanEvent.CONTINUE, frozenset({State.WAITING, State.OUTSIDE_WINDOW}), State.PROGRESSING),
    (PlanEvent.PAUSE, _MAY_STOP, State.PAUSED_BEFORE_START),
    (PlanEvent.PAUSE, _FORWARD | _STOPPED, State.PAUSED_BY_PERSON),
    (PlanEvent.SUSPEND, _MAY_STOP, State.SUSPENDED_BEFORE_START),
    (PlanEvent.SUSPEND, _FORWARD | _STOPPED, State.SUSPENDED),
    (PlanEvent.OUTDATE, _MAY_STOP, State.OUTDATED_CRD_BEFORE_START),
    (PlanEvent.OUTDATE, _FORWARD | _STOPPED, State.OUTDATED_CRD),
    (PlanEvent.LOSE_SPEC, AT_A_STEP, State.PAUSED_WITHOUT_SPEC),
    (PlanEvent.LOSE_SPEC, frozenset({State.ROLLING_BACK}), State.STUCK_WITHOUT_SPEC),
    (PlanEvent.FAIL_GATE, AT_A_STEP, State.GATE_FAILED),
    (PlanEvent.FAIL, _FORWARD | {State.RELEASING}, State.FAILED),
    (PlanEvent.INTERRUPT, _FORWARD | _ON_PURPOSE | {State.RELEASING}, State.INTERRUPTED),
    (PlanEvent.RESUME, _PAUSED, State.PROGRESSING),
    (PlanEvent.RESUME_CLAIMING, _ON_PURPOSE | {State.FAILED, State.INTERRUPTED}, State.CLAIMING),
    (PlanEvent.RESUME_RELEASING, frozenset({State.FAILED, State.INTERRUPTED}), State.RELEASING),
    (PlanEvent.ROLL_BACK, _FORWARD | _PAUSED | {State.RELEASING}, State.ROLLING_BACK),
    (PlanEvent.GET_STUCK, states_in(Phase.STUCK) | {State.ROLLING_BACK}, State.STUCK),
    (PlanEvent.GET_UNSTUCK, states_in(Phase.STUCK), State.ROLLING_BACK),
    (PlanEvent.STOP_ROLLBACK, frozenset({State.ROLLING_BACK}), State.PAST_POINT_OF_NO_RETURN),
    (PlanEvent.RELEASE, frozenset({State.PROGRESSING}), State.RELEASING),
    (PlanEvent.RELEASE, frozenset({State.ROLLING_BACK}), State.RELEASING_ROLLED_BACK),
    (PlanEvent.FINISH, frozenset({State.RELEASING}), State.SUCCEEDED),
    (PlanEvent.FINISH, frozenset({State.RELEASING_ROLLED_BACK}), State.ROLLED_BACK),
    (PlanEvent.ABANDON, states_in(*ACTIVE), State.ABANDONED),
    (PlanEvent.ROLL_BACK_SUCCESS, frozenset({State.SUCCEEDED}), State.RECLAIMING),
    (PlanEvent.KEEP_SUCCESS, frozenset({State.RECLAIMING}), State.SUCCEEDED),
)
PLAN: Final[Mapping[tuple[State | None, PlanEvent], State]] = {
    (None, PlanEvent.SEEN): State.PREFLIGHT,
    **{(state, event): to for event, states, to in _PLAN for state in states},
}


class StepEvent(StrEnum):
    """What can happen to a step. The texts complete "step deploy is Done and cannot ..."."""

    START = "start"
    WAIT = "wait"
    CONTINUE = "continue"
    FINISH = "finish"
    FAIL = "fail"
    UNDO = "be undone"
    UNDONE = "have been undone"
    RETRY = "start another attempt"


STEP: Final[Mapping[tuple[StepState, StepEvent], StepState]] = {
    (StepState.PENDING, StepEvent.START): StepState.DOING,
    (StepState.DOING, StepEvent.WAIT): StepState.WAITING,
    (StepState.WAITING, StepEvent.CONTINUE): StepState.DOING,
    (StepState.DOING, StepEvent.FINISH): StepState.DONE,
    (StepState.DOING, StepEvent.FAIL): StepState.FAILED,
    (StepState.WAITING, StepEvent.FAIL): StepState.FAILED,
    (StepState.DOING, StepEvent.UNDO): StepState.UNDOING,
    (StepState.WAITING, StepEvent.UNDO): StepState.UNDOING,
    (StepState.FAILED, StepEvent.UNDO): StepState.UNDOING,
    (StepState.DONE, StepEvent.UNDO): StepState.UNDOING,
    (StepState.UNDOING, StepEvent.UNDONE): StepState.UNDONE,
    (StepState.UNDOING, StepEvent.RETRY): StepState.DOING,  # the last attempt is undone
    (StepState.FAILED, StepEvent.RETRY): StepState.DOING,  # of a kind that has nothing to undo
    (StepState.UNDONE, StepEvent.RETRY): StepState.DOING,  # a rollback stopped after a step that cannot be undone
    (StepState.FAILED, StepEvent.CONTINUE): StepState.DOING,  # its failed gates are treated as passed
}

TOUCHED: Final = frozenset({StepState.DOING, StepState.WAITING, StepState.FAILED, StepState.DONE, StepState.UNDOING})
"""States in which the step may have changed something, so that a rollback must undo it."""
