"""Every legal transition of a plan and of a step. A pair that is not here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from cutover.status.status import Phase, StepState


class PlanEvent(StrEnum):
    """What can happen to a plan as a whole. The texts complete "a plan that is Paused cannot ..."."""

    SEEN = "be seen"  # for the first time, or with a new spec after the end of a run
    BEGIN = "begin"  # all prerequisites are met
    BUSY = "wait for a busy target"  # another plan has claimed one
    REFUSE = "be refused"
    WAIT = "wait"  # a step waits for an approval or for a window
    CONTINUE = "continue"  # the step no longer waits
    PAUSE = "pause"
    RESUME = "resume"
    ROLL_BACK = "start rolling back"
    GET_STUCK = "get stuck"  # an undo cannot continue
    GET_UNSTUCK = "continue rolling back"
    STOP_ROLLBACK = "stop rolling back"  # at a step that is irreversible
    FINISH = "finish"
    ABANDON = "be abandoned"
    FIND_APPLIED = "find itself applied"  # its targets carry the label of this spec
    ROLL_BACK_SUCCESS = "be rolled back after its success"
    KEEP_SUCCESS = "keep its success"  # the requested rollback is not possible


PLAN: Final[Mapping[tuple[Phase | None, PlanEvent], Phase]] = {
    (None, PlanEvent.SEEN): Phase.PENDING,
    (Phase.SUCCEEDED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.ROLLED_BACK, PlanEvent.SEEN): Phase.PENDING,
    (Phase.REFUSED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.ABANDONED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.PENDING, PlanEvent.SEEN): Phase.PENDING,
    (Phase.PENDING, PlanEvent.BEGIN): Phase.RUNNING,
    (Phase.PENDING, PlanEvent.REFUSE): Phase.REFUSED,
    (Phase.RUNNING, PlanEvent.BUSY): Phase.PENDING,
    (Phase.RUNNING, PlanEvent.WAIT): Phase.WAITING,
    (Phase.WAITING, PlanEvent.CONTINUE): Phase.RUNNING,
    (Phase.RUNNING, PlanEvent.PAUSE): Phase.PAUSED,
    (Phase.WAITING, PlanEvent.PAUSE): Phase.PAUSED,
    (Phase.PAUSED, PlanEvent.RESUME): Phase.RUNNING,
    (Phase.RUNNING, PlanEvent.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.WAITING, PlanEvent.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.PAUSED, PlanEvent.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.ROLLING_BACK, PlanEvent.GET_STUCK): Phase.STUCK,
    (Phase.STUCK, PlanEvent.GET_UNSTUCK): Phase.ROLLING_BACK,
    (Phase.RUNNING, PlanEvent.FINISH): Phase.SUCCEEDED,
    (Phase.ROLLING_BACK, PlanEvent.FINISH): Phase.ROLLED_BACK,
    (Phase.ROLLING_BACK, PlanEvent.STOP_ROLLBACK): Phase.PAUSED,
    (Phase.RUNNING, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.WAITING, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.ROLLING_BACK, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.PAUSED, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.STUCK, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.PENDING, PlanEvent.FIND_APPLIED): Phase.SUCCEEDED,
    (Phase.SUCCEEDED, PlanEvent.ROLL_BACK_SUCCESS): Phase.ROLLING_BACK,
    (Phase.ROLLING_BACK, PlanEvent.KEEP_SUCCESS): Phase.SUCCEEDED,
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
