"""What every source of measurements is. A source returns a number and judges nothing; `verdict.py` judges."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import ClassVar

from cutover.gates.verdict import Measurement
from cutover.model import Model
from cutover.ports import Clock, Cluster, Metrics, Ref


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source may use.

    Attributes:
        workload: what the step rolls out, when it does; readiness measures it unless the gate names another.
        interval: of the gate.
    """

    cluster: Cluster
    metrics: Metrics
    clock: Clock
    namespace: str
    step: str
    workload: Ref | None
    interval: timedelta


class Source(Model):
    """One source of measurements: the fields people write under its key, and how it measures.

    Attributes:
        key: the key in a gate.
        live: measured in every turn from what is streamed, not only once an interval.
        patient: a number out of bounds is a reason to wait, not a failure, unless the gate is a guard.
        needs_bounds: the gate must say `pass`.
    """

    key: ClassVar[str]
    live: ClassVar[bool] = False
    patient: ClassVar[bool] = False
    needs_bounds: ClassVar[bool] = True
    unit: ClassVar[str] = ""

    def minimum(self) -> float | None:
        """A lower bound that the source itself brings."""
        return None

    def hold(self) -> timedelta:
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

    async def measure(self, around: Surroundings) -> Measurement:
        """Take one sample. Trouble outside is a measurement without a value, with a note."""
        raise NotImplementedError
