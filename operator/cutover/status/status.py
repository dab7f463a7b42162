"""`.status` of a MigrationPlan, as plain frozen values.

No I/O, no pydantic: `plan/` reads and writes these from outside. Times are UTC. The driver saves at once only when
`durable_part` has changed: it blanks what a crash may lose without harm.

Each attribute is described in the docstring of its class, in words for users: the CRD and `kubectl explain` show these
texts (`plan/crd.py`). A field for machines alone begins with "For the operator itself".
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from cutover.status.condition import Condition
from cutover.status.reasons import Reason
from cutover.status.release import Unreleased
from cutover.status.report import Criterion, RunTally
from cutover.status.requests import RequestRecord
from cutover.status.spelling import AS_KUBERNETES_SPELLS
from cutover.status.state import State


class Phase(StrEnum):
    """The phase of a plan, for users. Machines read the conditions."""

    PENDING = "Pending"
    RUNNING = "Running"
    WAITING = "Waiting"
    ROLLING_BACK = "RollingBack"
    PAUSED = "Paused"
    STUCK = "Stuck"
    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    REFUSED = "Refused"
    ABANDONED = "Abandoned"


ACTIVE = frozenset({Phase.RUNNING, Phase.WAITING, Phase.ROLLING_BACK, Phase.PAUSED, Phase.STUCK})
ENDED = frozenset({Phase.SUCCEEDED, Phase.ROLLED_BACK, Phase.REFUSED, Phase.ABANDONED})


class StepState(StrEnum):
    """Where a step is. Doing means: it may have been done."""

    PENDING = "Pending"
    DOING = "Doing"
    WAITING = "Waiting"
    DONE = "Done"
    UNDOING = "Undoing"
    UNDONE = "Undone"
    FAILED = "Failed"


class Verdict(StrEnum):
    """The verdict of a gate: Pass, Fail, or Wait for more samples."""

    PASS = "Pass"  # noqa: S105 -- a verdict, not a password
    FAIL = "Fail"
    WAIT = "Wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: one pass of the plan from its first step to its end.

    Attributes:
        number: Number of the run, counted from 1.
        generation: Generation of the spec that this run carries out.
        spec_hash: Hash of that spec without suspend. The same spec is never run again by itself.
        started_at: When its spec was first seen, or examined again. The start deadline counts from here.
        fence: For the operator itself: number on every write to a target. It rises before each attempt and each undo, and
            whenever another operator process takes over, so that late writes of the former one fail.
        undo_attempt: For the operator itself: it rises with each further attempt of an undo, made on request.
        running_seconds: Seconds spent Running, excluding the time since runningSince. Compared with spec.timeout.
        running_since: When the plan last became Running. Absent while it is not.
        paused_at: When the clocks of the run stopped. Absent while they run.
        finished_at: When the run ended.
        keep_until: Until when the snapshots of a Succeeded run are kept, so that a rollback can be requested. Absent when
            there are none.
        over_applied: A user has requested to run a spec that was applied before over what others have changed since.
        steps_digest: Digest of what the steps do. Runs with the same digest did the same steps.
        unreleased: For the operator itself: how long the undo of a deleted plan made no progress, or the targets could not be
            released. A crash of the operator may lose it; then it is tried for longer.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    number: int
    generation: int
    spec_hash: str
    started_at: datetime
    fence: int = 0
    undo_attempt: int = 1
    running_seconds: float = 0.0
    running_since: datetime | None = None
    paused_at: datetime | None = None
    finished_at: datetime | None = None
    keep_until: datetime | None = None
    over_applied: bool = False
    steps_digest: str = ""
    unreleased: Unreleased | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why the run was rolled back or paused. It stays after the rollback.

    Attributes:
        step: Name of the step that was current. Empty before the first step.
        stage: Its stage, such as 2/4.
        reason: Reason in CamelCase, such as GateFailed.
        message: What happened, in a sentence.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    step: str = ""
    stage: str = ""
    reason: str
    message: str


def cause_of(failure: Failure) -> str:
    """What follows "rolled back" or "rolling back": ": gate errors failed ...", or " on request of alice"."""
    on_request = failure.message.removeprefix("rolled back")
    return on_request if failure.reason == Reason.ROLLBACK else f": {failure.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatus:
    """What a gate or a guard has seen so far.

    Attributes:
        name: Name of the gate or guard.
        verdict: Its verdict now. Pass: it passes. Fail: it has failed. Wait: more samples are needed.
        value: The last number. Empty when there is none yet.
        bound: What the number is compared with, such as <= 0.5.
        passes: Consecutive passing samples so far.
        needed: Consecutive passing samples that it takes to pass.
        fails: Failing samples counted towards failureThreshold.
        guard: It is a guard of the plan, not a gate of the step.
        compared: The value is the ratio to a baseline; the message has both numbers.
        message: Why this is the verdict, or what is missing.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    name: str
    verdict: Verdict = Verdict.WAIT
    value: str = ""
    bound: str = ""
    passes: int = 0
    needed: int = 1
    fails: int = 0
    guard: bool = False
    compared: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The current step: the one that is being done or undone.

    Attributes:
        step: Name of the step.
        stage: Its current stage out of all, such as 2/4. Empty during an undo.
        intent: What this stage, or the undo, is about to do, such as weight 25. It is saved before it is done.
        weight: Percent of the traffic that the new side has, or is about to get. Absent for steps that move no traffic.
        started_at: When this stage, or the undo, began.
        applied_at: When this stage was first seen in effect. Its dwell counts from here. A crash of the operator may lose it;
            then the dwell starts again.
        ready: Ready pods out of those wanted, such as 2/3.
        undo_progress: For the operator itself: highest progress of the undo, in units defined by the kind.
        undo_failed: For the operator itself: this attempt of the undo is over; retry makes another.
        progressed_at: For the operator itself: when that progress was reached.
        digest: Digest of what a user is asked to approve. An approval that names another one is rejected.
        reapply: For the operator itself: the stage was paused and is applied again, even if another writer has changed its target.
        not_started: The stage is announced and waits for the window of the plan.
        approved: A user has approved the stage.
        gates_skipped: On request, the gates of the step are treated as passed.
        message: What the stage waits for.
        gates: What the gates of the step and the guards of the plan have seen in this stage.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    step: str
    stage: str = ""
    intent: str = ""
    weight: int | None = None
    started_at: datetime
    applied_at: datetime | None = None
    ready: str = ""
    undo_progress: int = 0
    undo_failed: bool = False
    progressed_at: datetime | None = None
    digest: str = ""
    reapply: bool = False
    not_started: bool = False
    approved: bool = False
    gates_skipped: bool = False
    message: str = ""
    gates: tuple[GateStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One step of the plan.

    Attributes:
        name: Name of the step.
        kind: Its kind, such as deploy or traffic.
        state: Where it is. Pending: not started. Doing: started; it may have been done. Waiting: waiting for an approval or a window.
            Done: completed. Undoing: being undone. Undone: undone. Failed: the attempt is over.
        attempt: Number of the attempt, counted from 1. 0 before the first.
        snapshot_taken: The snapshots of the step exist, so it may have written to its targets.
        made: For the operator itself: what this attempt has created, such as the uid of a Job. It is saved before that can
            take effect.
        gates_passed: All of its gates passed at the end of its last stage. Absent too when there was nothing to do.
        reapply: For the operator itself: the step is done, and what it set is applied again after a pause, even if
            another writer has changed its target.
        started_at: When the present attempt began.
        finished_at: When the step was done or undone, or failed.
        message: What became of it, in a sentence.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    name: str
    kind: str
    state: StepState = StepState.PENDING
    attempt: int = 0
    snapshot_taken: bool = False
    made: str = ""
    gates_passed: bool = False
    reapply: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """An earlier run and how it ended.

    Attributes:
        number: Number of the run.
        phase: Phase in which it ended.
        reason: Reason of that phase.
        message: How it ended, in a sentence.
        started_at: When it began.
        finished_at: When it ended.
        steps_digest: Digest of what its steps did. Runs with the same digest did the same steps.
        steps_done: Highest number of steps done in that run.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    number: int
    phase: Phase
    reason: str
    message: str
    started_at: datetime
    finished_at: datetime | None = None
    steps_digest: str = ""
    steps_done: int = 0


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk that preflight found. It does not stop the plan, and is shown as a condition of this type."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of the plan, written by the operator.

    Attributes:
        observed_generation: Generation of the plan that this status is about. -1 until the operator has seen the plan.
        phase: Where the plan is, for users; machines read the conditions. Pending: checking what it needs, or waiting to start.
            Running: doing its steps. Waiting: waiting for an approval or a window. RollingBack: undoing steps, last first.
            Paused: stopped until a user acts. Stuck: an undo cannot continue. Succeeded: all steps are done. RolledBack:
            everything was undone. Refused: nothing was changed. Abandoned: ended on request, as it was.
        state: What the plan is doing, more exactly than its phase, which follows from it.
        reason: Why it is in this phase, in CamelCase.
        message: What the plan does or waits for, or how it ended, in a sentence.
        progress: The current step out of all, such as 3/7.
        run: The present run, or the last one.
        failure: Why the run was rolled back or paused. It stays after the rollback.
        current: The current step, the one that is being done or undone.
        point_of_no_return: The last step that is done and cannot be undone. A rollback never goes past it.
        steps: All steps of the plan, in their order.
        requests: The last request of each verb, with its answer.
        history: Earlier runs, the latest first.
        tally: Counts of what this run has seen so far. The report is made from them.
        report: Success criteria of the run with their evidence, once it has ended after beginning a step.
        conditions: Conditions for machines, as kstatus reads them, and risks that preflight found.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    observed_generation: int = -1
    phase: Phase | None = None
    state: State | None = None
    reason: str = ""
    message: str = ""
    progress: str = ""
    run: Run | None = None
    failure: Failure | None = None
    current: Current | None = None
    point_of_no_return: str = ""
    steps: tuple[StepStatus, ...] = ()
    requests: tuple[RequestRecord, ...] = ()
    history: tuple[PastRun, ...] = ()
    tally: RunTally | None = None
    report: tuple[Criterion, ...] = ()
    conditions: tuple[Condition, ...] = ()


RISKS: Final = ("GitOpsDriftRisk", "CapacityRisk")
"""Types of the conditions that show risks. They are no part of the contract for machines."""
OUTDATED_CRD: Final = "OutdatedCRD"
"""Type of the condition that shows what the CRD lacks. Like a risk, but of now and not of the start of the run."""
