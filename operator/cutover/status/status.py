"""What stands in `.status` of a MigrationPlan, as plain frozen values.

No I/O, no pydantic: `plan/` reads and writes these from outside. Times are UTC. Whatever a crash may lose without harm
is gathered by `settled`, which blanks it: the driver saves at once only when the settled part has changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final


def camel(name: str) -> str:
    """The name of a field as Kubernetes spells it: ``started_at`` becomes ``startedAt``."""
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


_AS_KUBERNETES_SPELLS = {"alias_generator": camel, "populate_by_name": True, "extra": "ignore"}


class Phase(StrEnum):
    """Where a plan is. The conditions are the contract for machines; this is for people."""

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
    """Where a step is. *Doing* means: it may have been done."""

    PENDING = "Pending"
    DOING = "Doing"
    WAITING = "Waiting"
    DONE = "Done"
    UNDOING = "Undoing"
    UNDONE = "Undone"
    FAILED = "Failed"


class Verdict(StrEnum):
    """What a gate says now."""

    PASS = "Pass"  # noqa: S105 -- a verdict, not a password
    FAIL = "Fail"
    WAIT = "Wait"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One pass of the plan.

    Attributes:
        fence: the number on every write to a target; raised before each attempt and each undo, and by every process that
            takes the plan over.
        spent: seconds spent Running before `since`.
        since: when the plan last became Running; None when it is not.
        paused_at: when the clocks were stopped; None while they go.
        finished_at: when the run ended.
        keep_until: until when the snapshots of a Succeeded run are kept for `rollback`; None when there are none.
        steps_digest: digest of what its steps do, so that a run that did the same can be told among the earlier ones.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    number: int
    generation: int
    spec_hash: str
    started_at: datetime
    fence: int = 0
    spent: float = 0.0
    since: datetime | None = None
    paused_at: datetime | None = None
    finished_at: datetime | None = None
    keep_until: datetime | None = None
    steps_digest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a run turned back; kept after the rollback."""

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    step: str = ""
    stage: str = ""
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateStatus:
    """What one gate or guard has seen, for people and for the saga.

    Attributes:
        value: the last number as text; empty when there is none.
        bound: what it must keep, such as ``<= 0.5``.
        passes: consecutive passing samples, out of `needed`.
        fails: failing samples counted towards the threshold.
        compared: the value is the ratio to a baseline, and the message has both numbers.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
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
    """The step in hand.

    Attributes:
        stage: position and number of stages, such as ``2/4``.
        intent: what this stage sets out to do, such as ``weight 25``; saved before it is done.
        weight: percent that the new side has, or is about to have, of what the pair holds; None for other kinds.
        applied_at: when this stage was first seen in effect; its dwell counts from here. Lost in a crash unless a later
            save carried it, and then the dwell starts again.
        ready: ready pods out of those wanted, such as ``2/3``.
        furthest: how far an undo has come, at most, in the kind's own measure.
        moved_at: when it came so far. Lost in a crash unless a later save carried it; the next look then finds it out.
        digest: of what a person is asked to approve; an approval that names another one is rejected.
        reapply: the stage was paused and is brought about once more, whatever stands there now.
        not_started: it is announced, and waits for the plan's window to be begun.
        approved: a person has approved it.
        skipped: a person has asked to take the gates of the step as passed.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    step: str
    stage: str = ""
    intent: str = ""
    weight: int | None = None
    started_at: datetime
    applied_at: datetime | None = None
    ready: str = ""
    furthest: int = 0
    moved_at: datetime | None = None
    digest: str = ""
    reapply: bool = False
    not_started: bool = False
    approved: bool = False
    skipped: bool = False
    message: str = ""
    gates: tuple[GateStatus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStatus:
    """One line a step.

    Attributes:
        written: it has written to its target, so there is a snapshot. Saved along with the next thing that is saved.
        made: what this attempt has made, in the kind's own words of at most 32 bytes; saved before that may take effect.
        judged: each of its gates said Pass where they were last asked; false too when all stages had nothing to do.
        reapply: it is done, and what it left is brought about once more, whatever stands there now.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    name: str
    kind: str
    state: StepState = StepState.PENDING
    attempt: int = 0
    written: bool = False
    made: str = ""
    judged: bool = False
    reapply: bool = False
    started_at: datetime | None = None
    finished_at: datetime | None = None
    message: str = ""


class Answer(StrEnum):
    """What became of a request."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    IGNORED = "Ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The last request of one verb, so that its token is never handled twice."""

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    verb: str
    token: str
    answer: Answer
    at: datetime
    run: int
    by: str = ""
    step: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PastRun:
    """How an earlier run ended.

    Attributes:
        steps_digest: as of `Run`.
        done: how many of its steps were done before it turned back.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    number: int
    phase: Phase
    reason: str
    message: str
    started_at: datetime
    finished_at: datetime | None = None
    steps_digest: str = ""
    done: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a gate that compares with a baseline has said last.

    Attributes:
        step: empty for a guard.
        message: both numbers, their ratio and its bound.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    step: str = ""
    gate: str
    passed: bool = False
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTally:
    """What this run has seen of its gates and guards so far. Its report rests on it.

    Attributes:
        passed: how often a gate said Pass at the end of a stage.
        skipped: how often one was taken as passed instead, on request.
        failed: how often one has failed.
        guarded: stages at whose end every guard said Pass.
        guard_failed: what the last guard said that failed.
        done: steps that were done before the run turned back, if it did.
        paused: how often the plan was paused; guards are not judged then, unless a pair shares the traffic.
        compared: the last word of gates that compare, as many as are kept: those that failed before all others, then the latest.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    passed: int = 0
    skipped: int = 0
    failed: int = 0
    guarded: int = 0
    guard_failed: str = ""
    done: int = 0
    paused: int = 0
    compared: tuple[Compared, ...] = ()


class SuccessCriterion(StrEnum):
    """What makes a migration a success."""

    DATA = "ZeroDataLoss"
    WINDOW = "WithinWindow"
    VALIDATIONS = "ValidationsPassed"
    PERFORMANCE = "PerformanceKept"
    ROLLBACK = "RollbackRehearsed"
    DOWNTIME = "NoUnexpectedDowntime"
    DEPENDENCIES = "DependenciesUpdated"


class Result(StrEnum):
    """Whether it was reached."""

    MET = "Met"
    NOT_MET = "NotMet"
    NOT_MEASURED = "NotMeasured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One line of the report.

    Attributes:
        evidence: what was seen; where nothing was, how to have it measured.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    criterion: SuccessCriterion
    result: Result
    evidence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A Kubernetes condition."""

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    type: str
    status: str
    reason: str
    message: str
    last_transition_time: datetime
    observed_generation: int


@dataclass(frozen=True, slots=True)
class Risk:
    """What may go wrong, as preflight found it. It stops nothing; it is shown as a condition of this type."""

    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """All of `.status`.

    Attributes:
        observed_generation: -1 until the operator has seen the plan (the CRD's default).
        point_of_no_return: the last step that is done and cannot be undone; a rollback never passes it.
        history: the runs before this one, the latest first.
        report: of a run that has ended and had begun a step, one line for each `SuccessCriterion`.
    """

    __pydantic_config__: ClassVar = _AS_KUBERNETES_SPELLS
    observed_generation: int = -1
    phase: Phase | None = None
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


def takes_nothing_back(phase: Phase | str | None, keep_until: object) -> bool:
    """Whether a run has ended for good, so that its snapshots serve nobody: only a success that keeps them may be rolled back."""
    return phase in ENDED and (phase != Phase.SUCCEEDED or keep_until is None)


_SAID: Final = frozenset({Phase.PENDING, Phase.PAUSED, Phase.STUCK, Phase.ABANDONED})
"""Phases in which nothing moves, so that why, and what was left, is worth a save of its own."""


RISKS: Final = ("GitOpsDriftRisk", "CapacityRisk")


def settled(status: Status) -> Status:
    """The status without what may be lost in a crash: samples, counts, messages of waiting, what is derived from the rest."""
    current = status.current
    if current is not None:
        current = replace(current, applied_at=None, ready="", furthest=0, moved_at=None, message="", gates=())
    steps = tuple(replace(step, written=False) for step in status.steps)
    message = status.message if status.phase in _SAID else ""
    return replace(status, current=current, steps=steps, message=message, progress="", conditions=())
