"""The contract of a source of measurements. A source returns a number and judges nothing; `verdict.py` judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.gates.verdict import Measurement
from cutover.ports import Clock, Cluster, Metrics, Ref, Resource
from cutover.schema.model import Model
from cutover.targets.claims import Owner


@dataclass(frozen=True, slots=True)
class Pending:
    """A measurement in progress.

    Attributes:
        token: identifies the measurement when the source is asked again.
        after: seconds until the source is asked again, unless the measurement ends before.
        note: what it waits for, as shown.
    """

    token: str
    after: float
    note: str


@dataclass(frozen=True, slots=True)
class GateContext:
    """What a source may use.

    Attributes:
        workload: what the step rolls out, if anything; readiness measures it unless the gate names another.
        interval: of the gate.
        owner: the plan, for objects that a source creates.
        moment: what is judged, such as ``shift/1/0``: step, attempt, stage; for guards ``/guards``.
        gate: its name.
        pending: the measurement in progress.
    """

    cluster: Cluster
    metrics: Metrics
    clock: Clock
    namespace: str
    step: str
    workload: Ref | None
    interval: timedelta = timedelta()
    owner: Owner | None = None
    moment: str = ""
    gate: str = ""
    pending: Pending | None = None


class Source(Model):
    """One source of measurements: the fields under its key, and how it measures.

    Attributes:
        key: the key in a gate.
        live: measured in every turn from streamed objects, not only once per interval.
        patient: a number out of bounds is a reason to wait, not a failure, unless the gate is a guard.
        needs_bounds: the gate must have `pass`.
        has_baseline: it can also measure a baseline, so that `pass` may bound the ratio to it.
    """

    key: ClassVar[str]
    live: ClassVar[bool] = False
    patient: ClassVar[bool] = False
    needs_bounds: ClassVar[bool] = True
    has_baseline: ClassVar[bool] = False
    unit: ClassVar[str] = ""

    def minimum(self) -> float | None:
        """The lower bound of the source itself, if it has one."""
        return None

    def maximum(self) -> float | None:
        """The upper bound of the source itself, if it has one."""
        return None

    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it creates and deletes, as the plan's account."""
        return ()

    def pod_specs(self, *, undo: bool = False) -> tuple[Json, ...]:
        """Pod specs that it brings for do, or for undo: whole, or as a merge patch.

        An account in one of them that is not the plan's must be labelled, and the plan's account must have the verb `use` on it.
        """
        del undo
        return ()

    async def examine(self, cluster: Cluster, owner: Owner, place: str) -> list[Problem]:
        """What is missing or conflicts before the first step."""
        del cluster, owner, place
        return []

    def sustain(self) -> timedelta:
        """How long it must pass without interruption."""
        return timedelta()

    def settle(self) -> timedelta:
        """How long after the stage took effect a sample would still include the time before it."""
        return timedelta()

    def needs_workload(self) -> bool:
        """Whether it measures the step's workload, so that the step must have one."""
        return False

    def provider(self) -> str:
        """The administrator's provider that it names; empty for none."""
        return ""

    def queries(self) -> tuple[str, ...]:
        """Its queries to that provider, one per line, as shown."""
        return ()

    def details(self) -> tuple[str, ...]:
        """What it measures and with what, one line each, for people."""
        return tuple(f"queries {self.provider()}: {' '.join(query.split())}" for query in self.queries())

    def looks_back(self) -> timedelta:
        """How old the oldest sample is that a measurement of the present reads, as far as that is known."""
        return timedelta()

    def baseline_query(self) -> str:
        """The query of the baseline; empty for none."""
        return ""

    async def measure(self, context: GateContext) -> Measurement | Pending:
        """Take one sample, or start one. An outside problem is a measurement without a value, with a note."""
        raise NotImplementedError

    def ended(self, context: GateContext, pending: Pending) -> bool:
        """Whether a streamed object shows that it has ended, so that it is asked before its time."""
        del context, pending
        return False

    async def cancel(self, context: GateContext, pending: Pending) -> None:
        """Clean up a measurement that is not needed any more."""
        del context, pending
