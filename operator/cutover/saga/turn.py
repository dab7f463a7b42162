"""What goes into a turn of the saga, and what comes out: plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cutover.status.requests import Request
from cutover.status.status import GateStatus, Risk, Status


@dataclass(frozen=True, slots=True)
class StageRule:
    """One stage of a step.

    Attributes:
        intent: what it sets out to do, opaque here, at most 512 bytes.
        dwell: how long it must stay in effect before the next one.
        settle: how long after it took effect nothing is judged yet.
        weight: percent of the new side, to be shown; None for most kinds.
        asks: it is approved by a person, so the status shows the digest of what is approved.
        cleans: it only takes away what earlier stages have put beside for a while, so it never waits for a window.
    """

    intent: str
    dwell: timedelta = timedelta()
    settle: timedelta = timedelta()
    weight: int | None = None
    asks: bool = False
    cleans: bool = False


class OnFailure(StrEnum):
    """What a failure leads to."""

    ROLLBACK = "Rollback"
    PAUSE = "Pause"


class DeletionPolicy(StrEnum):
    """What deleting an active plan leads to."""

    ROLLBACK = "Rollback"
    ORPHAN = "Orphan"


@dataclass(frozen=True, slots=True)
class StepRule:
    """What the saga may know of a step.

    Attributes:
        timeout: bounds one stage beyond its dwell; None is no bound.
        undoes: there is something to undo.
        retries: attempts after the first, each made once the last one is undone.
        irreversible: once it is done, a rollback never passes it.
        keeps: a stage in effect is looked after also while the plan is paused, and what the last one left until the end of
            the run (the weights of traffic).
    """

    name: str
    kind: str
    stages: tuple[StageRule, ...]
    timeout: timedelta | None = None
    undoes: bool = True
    retries: int = 0
    on_failure: OnFailure = OnFailure.ROLLBACK
    irreversible: bool = False
    keeps: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What the saga may know of a plan.

    Attributes:
        steps_digest: digest of what the steps do.
    """

    steps: tuple[StepRule, ...]
    generation: int
    spec_hash: str
    start_deadline: timedelta
    timeout: timedelta | None = None
    on_failure: OnFailure = OnFailure.ROLLBACK
    deletion: DeletionPolicy = DeletionPolicy.ROLLBACK
    keep_snapshots: timedelta = timedelta()
    steps_digest: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """The command is finished. With `skip` there was nothing to do, so there is nothing to judge either.

    Attributes:
        risks: of the look beforehand: what people should know and does not stop the plan.
    """

    skip: bool = False
    ready: str = ""
    message: str = ""
    risks: tuple[Risk, ...] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """Not finished; look again after so many seconds, or when an event comes. None: only an event will tell.

    Attributes:
        made: to be saved with the step before the command comes again; empty leaves what is saved.
        reached: how far it is, in a measure of its own; more than ever before is progress.
    """

    after: float | None
    message: str
    ready: str = ""
    made: str = ""
    reached: int = 0


@dataclass(frozen=True, slots=True)
class Wait:
    """Only a person or something outside the plan can move it on."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This attempt is over."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Somebody else acts on what this plan holds: stop, undo nothing, let a person decide."""

    reason: str
    message: str


Outcome = Done | Again | Wait | Failed | Pause


class Verb(StrEnum):
    """What the driver can be told to do. Each is safe to repeat."""

    EXAMINE = "examine"  # look whether all is there; when it is, set the finalizer
    CLAIM = "claim"  # mark every target as ours, all or none
    DO = "do"
    UNDO = "undo"
    ENFORCE = "enforce"  # see that what steps that are done have left, and is looked after, still stands
    RECLAIM = "reclaim"  # after the end: mark every target again, if all is as the run left it
    RELEASE = "release"  # take the marks away; after a success keep the snapshots for a while, else drop them
    SWEEP = "sweep"  # drop snapshots that were kept long enough
    REMOVE_FINALIZER = "remove finalizer"  # take the finalizer away


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to be done now. `step` and `stage` are positions, for `do` and `undo`."""

    verb: Verb
    step: int = -1
    stage: int = -1


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people should read among the events of the plan.

    Attributes:
        reason: CamelCase.
        on_namespace: said of the Namespace, because it takes the plan and its events with it.
    """

    reason: str
    message: str
    warning: bool = False
    on_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether a stage may begin now.

    Attributes:
        open: it may.
        opens_at: when it may next, while it may not; None: never again.
    """

    open: bool = True
    opens_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What came in since the last turn.

    Attributes:
        outcome: what became of the command that the status announces; None when it was not tried in this turn.
        answered: which command that was.
        written: the step in hand has taken its snapshot, so it may have changed something.
        trouble: what has befallen a target apart from the command in hand, as if a command had failed or paused.
        gates: the gates of the stage in hand as they stand now.
        guards: the guards of the plan.
        requests: the request annotations as they stand.
        new_process: this process has not acted on this run before, so the fence must rise before it does.
        has_finalizer: our finalizer is on the plan.
        deleted_at: when somebody deleted the plan; None when nobody has.
        terminating: the namespace is being deleted.
        opening: of the plan's windows.
        ready_to_undo: positions of steps that may be undone ahead of their turn now.
    """

    outcome: Outcome | None = None
    answered: Verb | None = None
    written: bool = False
    trouble: Failed | Pause | None = None
    gates: tuple[GateStatus, ...] = ()
    guards: tuple[GateStatus, ...] = ()
    requests: tuple[Request, ...] = ()
    deleted_at: datetime | None = None
    suspended: bool = False
    new_process: bool = False
    has_finalizer: bool = False
    terminating: bool = False
    opening: Opening = Opening()
    ready_to_undo: frozenset[int] = field(default_factory=frozenset)

    @property
    def deleting(self) -> bool:
        """Whether the plan is being deleted."""
        return self.deleted_at is not None


@dataclass(frozen=True, slots=True)
class Turn:
    """What follows: a status to save, then at most one command; when to look again if no event comes (None: never)."""

    status: Status
    command: Command | None = None
    look_again: timedelta | None = None
    notices: tuple[Notice, ...] = ()


PREFLIGHT_EVERY: Final = (1, 2, 4, 5)
"""Seconds between looks at what is missing: the first three, then the last for ever."""
BUSY_EVERY: Final = timedelta(seconds=30)
STUCK_EVERY: Final = timedelta(seconds=60)
NO_PROGRESS: Final = timedelta(minutes=10)
"""How long an undo of a plan that was deleted may come no further, before the finalizer comes off all the same."""
