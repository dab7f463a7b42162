"""What goes into a turn of the saga, and what comes out: plain values.

The driver and the kinds make them; nothing here decides anything.
"""

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
        intent: what it does, as shown, opaque here, at most 512 bytes.
        dwell: how long it must stay in effect before the next one.
        settle: how long after it took effect no gate is evaluated yet.
        weight: percent of the new side, as shown; None for most kinds.
        needs_approval: a user approves it, so the status shows the digest of what is approved.
        cleanup: it only removes what earlier stages have added for a while, so it never waits for a window.
    """

    intent: str
    dwell: timedelta = timedelta()
    settle: timedelta = timedelta()
    weight: int | None = None
    needs_approval: bool = False
    cleanup: bool = False


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
    """A step as the saga knows it.

    Attributes:
        timeout: bounds one stage beyond its dwell; None is no bound.
        undoes: it changes something that an undo restores.
        retries: attempts after the first, each made once the last one is undone.
        irreversible: once it is done, a rollback never passes it.
        enforced: a stage in effect is enforced against other writers: while the plan is paused, and after the step is done
            until the end of the run (the weights of traffic).
    """

    name: str
    kind: str
    stages: tuple[StageRule, ...]
    timeout: timedelta | None = None
    undoes: bool = True
    retries: int = 0
    on_failure: OnFailure = OnFailure.ROLLBACK
    irreversible: bool = False
    enforced: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """A plan as the saga knows it.

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
    """The command is finished. With `skip` there was nothing to do, so no gate is evaluated either.

    Attributes:
        risks: found by preflight: what users should know and what does not stop the plan.
    """

    skip: bool = False
    ready: str = ""
    message: str = ""
    risks: tuple[Risk, ...] = ()


@dataclass(frozen=True, slots=True)
class Again:
    """Not finished; check again after so many seconds, or when an event comes. None: only an event can change it.

    Attributes:
        made: what it has created, saved with the step before the command is issued again; empty leaves what is saved.
        reached: how far it is, in a measure of the kind; more than ever before is progress.
        pause: of preflight: seconds until it may look again, in proportion to what its last look has cost.
    """

    after: float | None
    message: str
    ready: str = ""
    made: str = ""
    reached: int = 0
    pause: float = 0.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Only a user or something outside the plan can move it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Failed:
    """This attempt is over."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Another writer acts on the targets: pause the plan, undo nothing, let a user decide."""

    reason: str
    message: str


Outcome = Done | Again | Wait | Failed | Pause


class Verb(StrEnum):
    """What the driver can be told to do. Each is safe to repeat."""

    EXAMINE = "examine"  # find everything that is missing; when nothing is, add the finalizer
    CLAIM = "claim"  # claim all targets, all or none
    DO = "do"
    UNDO = "undo"
    ENFORCE = "enforce"  # restore what done steps have set and another writer changed, of kinds that are enforced or on request
    RECLAIM = "reclaim"  # after the end: claim all targets again, if everything is as the run left it
    RELEASE = "release"  # remove the claims; after a success keep the snapshots for a while, otherwise delete them
    SWEEP = "sweep"  # delete snapshots that were kept long enough
    REMOVE_FINALIZER = "remove finalizer"


@dataclass(frozen=True, slots=True)
class Command:
    """One thing to be done now. `step` and `stage` are positions, for `do` and `undo`."""

    verb: Verb
    step: int = -1
    stage: int = -1


@dataclass(frozen=True, slots=True)
class Notice:
    """An event of the plan, to be published.

    Attributes:
        reason: CamelCase.
        on_namespace: published on the Namespace, whose deletion takes the plan and its events with it.
    """

    reason: str
    message: str
    warning: bool = False
    on_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Opening:
    """Whether the window of the plan is open, so that a stage may begin.

    Attributes:
        open: it is open now, or the plan has no window.
        opens_at: when it opens next, while it is closed; None: never again.
    """

    open: bool = True
    opens_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What came in since the last turn.

    Attributes:
        outcome: the outcome of the command that the status announces; None when it was not carried out in this turn yet.
        last_command: the verb of that command.
        snapshot_taken: the current step has taken its snapshots, so it may have changed something.
        target_problem: a target is gone or lost its claim, or what the run has done no longer stands, apart from the current
            command; handled as if it had failed or paused.
        problem_at: the position of the step of which it no longer stands; -1 when it is no single step's.
        to_restore: what a done step has set is to be restored before anything else.
        ask_again: when it must be asked again whether all stands, although no event came.
        gates: the gates of the current stage as they are now.
        guards: the guards of the plan.
        requests: the request annotations on the plan.
        outdated_crd: what the CRD lacks, so that no run may begin or go forward; empty when it lacks nothing essential.
        new_process: this process has not acted on this run before, so the fence must rise before it does.
        has_finalizer: our finalizer is on the plan.
        deleted_at: when the plan was deleted; None when it was not.
        terminating: the namespace is being deleted.
        opening: whether the window of the plan is open.
        ready_to_undo: positions of steps that may be undone ahead of their turn now.
    """

    outcome: Outcome | None = None
    last_command: Verb | None = None
    snapshot_taken: bool = False
    target_problem: Failed | Pause | None = None
    problem_at: int = -1
    to_restore: bool = False
    ask_again: timedelta | None = None
    gates: tuple[GateStatus, ...] = ()
    guards: tuple[GateStatus, ...] = ()
    requests: tuple[Request, ...] = ()
    deleted_at: datetime | None = None
    suspended: bool = False
    outdated_crd: str = ""
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
    """The result: a status to save, then at most one command; when the next turn is due if no event comes (None: never)."""

    status: Status
    command: Command | None = None
    look_again: timedelta | None = None
    notices: tuple[Notice, ...] = ()


PREFLIGHT_EVERY: Final = (1, 2, 4, 5)
"""Seconds between two examinations of what is missing, if they cost little: the first three, then always the last."""
BUSY_EVERY: Final = timedelta(seconds=30)
STUCK_EVERY: Final = timedelta(seconds=60)
NO_PROGRESS: Final = timedelta(minutes=10)
"""How long an undo of a deleted plan may make no progress, or be stuck, before the finalizer is removed anyway, and how long a
run that is over may get no answer while it releases its targets. Both are counted while it is tried."""
RELEASE_EVERY: Final = timedelta(seconds=15)
RELEASE_WITHIN: Final = timedelta(minutes=2)
"""How long a run that is over may be refused to release its targets before it ends without that, counted while it tries."""
