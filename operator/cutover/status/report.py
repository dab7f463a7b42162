"""The part of `.status` that says whether a run was a success: counts during the run, the report at its end.

Plain frozen values, as in `status.py`. Counted by `saga/tally.py`, reported by `engine/criteria.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from cutover.status.spelling import AS_KUBERNETES_SPELLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The last result of a gate or guard that compares with a baseline.

    Attributes:
        step: Step of the gate. Empty for a guard.
        gate: Name of the gate or guard.
        passed: It passed.
        message: Both numbers, their ratio and its bound.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    step: str = ""
    gate: str
    passed: bool = False
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTally:
    """Counts of what this run has seen so far. The report of the run is made from them.

    Attributes:
        gates_passed: Gates that passed at the end of a stage, over all stages.
        gates_skipped: Gates that were treated as passed on request instead.
        gates_failed: How often a gate has failed.
        guarded_stages: Stages at whose end every guard passed.
        failed_guard: Message of the last guard that failed.
        steps_done: Highest number of steps done in this run.
        pauses: How often the plan was paused. Guards are not evaluated while it is, unless traffic is split.
        comparisons: Last results of gates that compare with a baseline, as many as are kept. Those that failed are kept
            first, then the latest.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    gates_passed: int = 0
    gates_skipped: int = 0
    gates_failed: int = 0
    guarded_stages: int = 0
    failed_guard: str = ""
    steps_done: int = 0
    pauses: int = 0
    comparisons: tuple[Comparison, ...] = ()


class SuccessCriterion(StrEnum):
    """A criterion by which a migration is a success."""

    DATA = "ZeroDataLoss"
    WINDOW = "WithinWindow"
    VALIDATIONS = "ValidationsPassed"
    PERFORMANCE = "PerformanceKept"
    ROLLBACK = "RollbackRehearsed"
    DOWNTIME = "NoUnexpectedDowntime"
    DEPENDENCIES = "DependenciesUpdated"


class Result(StrEnum):
    """Whether a criterion was met, or not measured."""

    MET = "Met"
    NOT_MET = "NotMet"
    NOT_MEASURED = "NotMeasured"


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """One line of the report.

    Attributes:
        criterion: Name of the success criterion.
        result: Met, NotMet or NotMeasured.
        evidence: What was seen. Where nothing was, how to have it measured.
    """

    __pydantic_config__: ClassVar = AS_KUBERNETES_SPELLS
    criterion: SuccessCriterion
    result: Result
    evidence: str
