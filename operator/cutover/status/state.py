"""The states of a plan. What happens next depends on them alone; `saga/tables.py` has every transition between them. Pure.

The phase that users see follows from the state (`phases.py`), and a reason only explains.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What the plan is doing, more exactly than its phase. The operator goes by it.

    Attributes:
        PREFLIGHT: checking what the plan needs.
        UNANSWERED: something that it needs could not be read.
        TARGET_BUSY: another plan has claimed a target, or needs pods that this one would take away.
        BEFORE_WINDOW: ready, until the first window opens.
        PAUSED_BEFORE_START: paused by a user before the first step.
        SUSPENDED_BEFORE_START: spec.suspend is true before the first step.
        OUTDATED_CRD_BEFORE_START: not started, until the CRD is upgraded.
        CLAIMING: claiming the targets.
        PROGRESSING: doing a step.
        RELEASING: all steps are done; releasing the targets.
        WAITING: waiting for an approval.
        OUTSIDE_WINDOW: the next stage waits for a window.
        PAUSED_BY_PERSON: paused by a user.
        SUSPENDED: spec.suspend is true.
        OUTDATED_CRD: paused until the CRD is upgraded.
        PAUSED_WITHOUT_SPEC: paused until the spec can be read, or is again the one of the run.
        GATE_FAILED: paused because a gate failed.
        FAILED: paused because a step, a guard or a timeout failed.
        INTERRUPTED: paused because another writer changed a target, or an attempt could not be undone; nothing is enforced.
        PAST_POINT_OF_NO_RETURN: paused because the rollback stopped at a step that cannot be undone.
        ROLLING_BACK: undoing steps.
        RECLAIMING: claiming the targets of a plan that has Succeeded again.
        RELEASING_ROLLED_BACK: all changes were undone; releasing the targets.
        STUCK: an undo cannot continue.
        STUCK_WITHOUT_SPEC: a rollback cannot continue until the spec can be read, or is again the one of the run.
        SUCCEEDED: all steps are done.
        ROLLED_BACK: everything was undone.
        REFUSED: nothing was changed.
        APPLIED_THEN_CHANGED: nothing was changed, because the spec was applied before and its targets were changed since.
        ABANDONED: ended as it was.
    """

    PREFLIGHT = "Preflight"
    UNANSWERED = "Unanswered"
    TARGET_BUSY = "TargetBusy"
    BEFORE_WINDOW = "BeforeWindow"
    PAUSED_BEFORE_START = "PausedBeforeStart"
    SUSPENDED_BEFORE_START = "SuspendedBeforeStart"
    OUTDATED_CRD_BEFORE_START = "OutdatedCRDBeforeStart"
    CLAIMING = "Claiming"
    PROGRESSING = "Progressing"
    RELEASING = "Releasing"
    WAITING = "Waiting"
    OUTSIDE_WINDOW = "OutsideWindow"
    PAUSED_BY_PERSON = "PausedByPerson"
    SUSPENDED = "Suspended"
    OUTDATED_CRD = "OutdatedCRD"
    PAUSED_WITHOUT_SPEC = "PausedWithoutSpec"
    GATE_FAILED = "GateFailed"
    FAILED = "Failed"
    INTERRUPTED = "Interrupted"
    PAST_POINT_OF_NO_RETURN = "PastPointOfNoReturn"
    ROLLING_BACK = "RollingBack"
    RECLAIMING = "Reclaiming"
    RELEASING_ROLLED_BACK = "ReleasingRolledBack"
    STUCK = "Stuck"
    STUCK_WITHOUT_SPEC = "StuckWithoutSpec"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"
    APPLIED_THEN_CHANGED = "AppliedThenChanged"
    ABANDONED = "Abandoned"
