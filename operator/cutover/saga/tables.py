"""Every legal transition of a plan and of a step. A pair that is not here is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from cutover.status.status import Phase, StepState


class PlanEvent(StrEnum):
    """What can happen to a plan as a whole."""

    SEEN = "seen"  # for the first time, or with a new spec after the end of a run
    PASS = "pass"  # noqa: S105 -- preflight found everything
    BUSY = "busy"  # another plan holds a target
    REFUSE = "refuse"
    WAIT = "wait"  # a step waits for a person
    GO = "go"  # it does no longer
    PAUSE = "pause"
    RESUME = "resume"
    TURN = "turn back"
    STICK = "stick"
    LOOSEN = "come loose"
    STOP_SHORT = "stop short"  # of a step that cannot be undone
    FINISH = "finish"
    ABANDON = "be abandoned"
    ALREADY = "be done already"
    ROLL_BACK = "be rolled back after its end"
    DECLINE = "keep its end"  # the rollback is not possible


PLAN: Final[Mapping[tuple[Phase | None, PlanEvent], Phase]] = {
    (None, PlanEvent.SEEN): Phase.PENDING,
    (Phase.SUCCEEDED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.ROLLED_BACK, PlanEvent.SEEN): Phase.PENDING,
    (Phase.REFUSED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.ABANDONED, PlanEvent.SEEN): Phase.PENDING,
    (Phase.PENDING, PlanEvent.SEEN): Phase.PENDING,
    (Phase.PENDING, PlanEvent.PASS): Phase.RUNNING,
    (Phase.PENDING, PlanEvent.REFUSE): Phase.REFUSED,
    (Phase.RUNNING, PlanEvent.BUSY): Phase.PENDING,
    (Phase.RUNNING, PlanEvent.WAIT): Phase.WAITING,
    (Phase.WAITING, PlanEvent.GO): Phase.RUNNING,
    (Phase.RUNNING, PlanEvent.PAUSE): Phase.PAUSED,
    (Phase.WAITING, PlanEvent.PAUSE): Phase.PAUSED,
    (Phase.PAUSED, PlanEvent.RESUME): Phase.RUNNING,
    (Phase.RUNNING, PlanEvent.TURN): Phase.ROLLING_BACK,
    (Phase.WAITING, PlanEvent.TURN): Phase.ROLLING_BACK,
    (Phase.PAUSED, PlanEvent.TURN): Phase.ROLLING_BACK,
    (Phase.ROLLING_BACK, PlanEvent.STICK): Phase.STUCK,
    (Phase.STUCK, PlanEvent.LOOSEN): Phase.ROLLING_BACK,
    (Phase.RUNNING, PlanEvent.FINISH): Phase.SUCCEEDED,
    (Phase.ROLLING_BACK, PlanEvent.FINISH): Phase.ROLLED_BACK,
    (Phase.ROLLING_BACK, PlanEvent.STOP_SHORT): Phase.PAUSED,
    (Phase.RUNNING, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.WAITING, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.ROLLING_BACK, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.PAUSED, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.STUCK, PlanEvent.ABANDON): Phase.ABANDONED,
    (Phase.PENDING, PlanEvent.ALREADY): Phase.SUCCEEDED,
    (Phase.SUCCEEDED, PlanEvent.ROLL_BACK): Phase.ROLLING_BACK,
    (Phase.ROLLING_BACK, PlanEvent.DECLINE): Phase.SUCCEEDED,
}


class StepEvent(StrEnum):
    """What can happen to a step."""

    START = "start"
    WAIT = "wait"
    GO = "go"
    FINISH = "finish"
    FAIL = "fail"
    UNDO = "undo"
    UNDONE = "undone"
    AGAIN = "start again"  # a new attempt, once the last one is undone


STEP: Final[Mapping[tuple[StepState, StepEvent], StepState]] = {
    (StepState.PENDING, StepEvent.START): StepState.DOING,
    (StepState.DOING, StepEvent.WAIT): StepState.WAITING,
    (StepState.WAITING, StepEvent.GO): StepState.DOING,
    (StepState.DOING, StepEvent.FINISH): StepState.DONE,
    (StepState.DOING, StepEvent.FAIL): StepState.FAILED,
    (StepState.WAITING, StepEvent.FAIL): StepState.FAILED,
    (StepState.DOING, StepEvent.UNDO): StepState.UNDOING,
    (StepState.WAITING, StepEvent.UNDO): StepState.UNDOING,
    (StepState.FAILED, StepEvent.UNDO): StepState.UNDOING,
    (StepState.DONE, StepEvent.UNDO): StepState.UNDOING,
    (StepState.UNDOING, StepEvent.UNDONE): StepState.UNDONE,
    (StepState.UNDOING, StepEvent.AGAIN): StepState.DOING,
    (StepState.FAILED, StepEvent.AGAIN): StepState.DOING,  # a kind that has nothing to undo
    (StepState.UNDONE, StepEvent.AGAIN): StepState.DOING,  # after a step that cannot be undone
    (StepState.FAILED, StepEvent.GO): StepState.DOING,  # its failed gates are taken as passed
}

TOUCHED: Final = frozenset({StepState.DOING, StepState.WAITING, StepState.FAILED, StepState.DONE, StepState.UNDOING})
"""States in which the step may have changed something, so that a rollback must pass through it."""
