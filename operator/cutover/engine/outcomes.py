"""What an error means for the command that met it. Pure; used by all modules that carry out commands."""

from __future__ import annotations

from typing import Final

from cutover.errors import Broken, Conflict, Denied, NotFound, OutsideError, PlanError, Rejected, Unavailable
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Pause, Verb, Wait
from cutover.targets.fields import Foreign

_SOON: Final = 0.2
_LATER: Final = 2.0
"""Seconds until a command is tried again that lost a race (_SOON) or got no answer (_LATER)."""


def outcome_of(command: Command, error: OutsideError | PlanError | Foreign | Broken) -> Outcome:
    """The outcome of a command that ended with this error. The order of the cases matters: the first that fits counts."""
    match error:
        case NotFound() if command.verb is Verb.UNDO:  # there is nothing left to restore
            return Done(message=f"skipped: {error}")
        case NotFound() | Rejected() | Denied() | PlanError() if command.verb is Verb.EXAMINE:
            return Again(None, str(error))
        case NotFound():
            return _attempt_over(command, "TargetGone", str(error))
        case Foreign():
            return _foreign(command, error)
        case PlanError():
            return _attempt_over(command, "Unresolved", str(error))
        case Rejected() | Denied():
            return _attempt_over(command, type(error).__name__, str(error))
        case Conflict():
            return Again(_SOON, str(error))
        case Unavailable():
            return Again(max(_LATER, error.retry_after), f"the API server is unavailable: {error}")
    return Again(_LATER, f"internal error: {error}")


def _attempt_over(command: Command, reason: str, message: str) -> Outcome:
    """Forward, the attempt is over; backward, only the outside can help."""
    return Wait(reason, message) if command.verb in (Verb.UNDO, Verb.RELEASE) else Failed(reason, message)


def _foreign(command: Command, foreign: Foreign) -> Outcome:
    if command.verb is Verb.UNDO and foreign.reason == "TargetReplaced":
        return Done(message=f"skipped: {foreign}")
    if command.verb in (Verb.DO, Verb.ENFORCE) and foreign.reason == "ClaimLost":
        return Pause(foreign.reason, f"{foreign}; fix it and resume")
    return _attempt_over(command, foreign.reason, str(foreign))
