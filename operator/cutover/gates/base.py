"""What every source of measurements is. A source returns a number and judges nothing; `verdict.py` judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from cutover.errors import Problem
from cutover.gates.verdict import Measurement
from cutover.ports import Clock, Cluster, Metrics, Ref, Resource
from cutover.schema.model import Model
from cutover.targets.claims import Owner


@dataclass(frozen=True, slots=True)
class Pending:
    """A measurement under way.

    Attributes:
        token: tells the source which one it is, when it is asked again.
        after: seconds until it is asked again, unless it has ended before.
        note: what it waits for.
    """

    token: str
    after: float
    note: str


@dataclass(frozen=True, slots=True)
class GateContext:
    """What a source may use.

    Attributes:
        workload: what the step rolls out, when it does; readiness measures it unless the gate names another.
        interval: of the gate.
        owner: the plan, for what a source makes.
        moment: names what is judged, such as ``shift/1/0``: step, attempt, stage; of guards ``/guards``.
        gate: its name.
        pending: the measurement under way.
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
    """One source of measurements: the fields people write under its key, and how it measures.

    Attributes:
        key: the key in a gate.
        live: measured in every turn from what is streamed, not only once an interval.
        patient: a number out of bounds is a reason to wait, not a failure, unless the gate is a guard.
        needs_bounds: the gate must say `pass`.
        has_baseline: it can measure a baseline too, so that `pass` may bound the ratio to it.
        shortest: the least interval.
    """

    key: ClassVar[str]
    live: ClassVar[bool] = False
    patient: ClassVar[bool] = False
    needs_bounds: ClassVar[bool] = True
    has_baseline: ClassVar[bool] = False
    unit: ClassVar[str] = ""
    shortest: ClassVar[timedelta] = timedelta(milliseconds=100)

    def minimum(self) -> float | None:
        """A lower bound that the source itself brings."""
        return None

    def maximum(self) -> float | None:
        """An upper bound that the source itself brings."""
        return None

    def makes(self) -> tuple[Resource, ...]:
        """Kinds of objects that it makes and deletes, as the plan's account."""
        return ()

    def pod_accounts(self, account: str) -> frozenset[str]:
        """Service accounts that it gives to pods, beside the plan's `account`, which must be allowed to use them."""
        del account
        return frozenset()

    async def examine(self, cluster: Cluster, owner: Owner, place: str) -> list[Problem]:
        """What is missing or in the way before the first step."""
        del cluster, owner, place
        return []

    def sustain(self) -> timedelta:
        """How long it must pass without a break."""
        return timedelta()

    def settle(self) -> timedelta:
        """How long after the stage took effect a first sample would still look at the time before it."""
        return timedelta()

    def needs_workload(self) -> bool:
        """Whether it measures the step's workload, so that the step must have one."""
        return False

    def provider(self) -> str:
        """The administrator's provider it names; empty for none."""
        return ""

    def queries(self) -> tuple[str, ...]:
        """What it asks that provider, for people, a line each."""
        return ()

    def baseline_query(self) -> str:
        """What gives the baseline; empty for none."""
        return ""

    async def measure(self, context: GateContext) -> Measurement | Pending:
        """Take one sample, or begin to. Trouble outside is a measurement without a value, with a note."""
        raise NotImplementedError

    def ended(self, context: GateContext, pending: Pending) -> bool:
        """Whether it is worth asking again before its time, by what is streamed."""
        del context, pending
        return False

    async def cancel(self, context: GateContext, pending: Pending) -> None:
        """What was begun for a measurement is not wanted any more."""
        del context, pending
