"""Why a plan is in its phase: the reasons of the saga itself. Kinds, gates and preflight bring their own."""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a plan is in its phase; CamelCase, as conditions show it."""

    PREFLIGHT = "Preflight"
    UNANSWERED = "Unanswered"
    SUSPENDED = "Suspended"
    TARGET_BUSY = "TargetBusy"
    CLAIMING = "Claiming"
    PROGRESSING = "Progressing"
    APPROVAL = "AwaitingApproval"
    OUTSIDE = "OutsideWindow"
    WINDOW_OVER = "WindowOver"
    PAUSED_BY_PERSON = "PausedByPerson"
    UNREADABLE = "UnreadableSpec"
    OUTDATED_CRD = "OutdatedCRD"
    RELEASING = "Releasing"
    RECLAIMING = "Reclaiming"
    NO_RETURN = "PastPointOfNoReturn"
    RETRYING = "Retrying"
    ABORTED = "Aborted"
    ABANDONED = "Abandoned"
    ROLLBACK = "RollbackRequested"
    ALREADY = "AlreadyApplied"
    APPLIED_THEN_CHANGED = "AppliedThenChanged"
    DELETED = "Deleted"
    TIMED_OUT = "TimedOut"
    STAGE_TIMED_OUT = "StageTimedOut"
    GATE_FAILED = "GateFailed"
    GUARD_FAILED = "GuardFailed"
    COMPLETED = "Completed"
    INVALID = "Invalid"
