"""What a process keeps of one plan between turns, and what of it people look at. Used by the driver alone; lost in a crash without harm."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cutover.engine.commands import RunCache
from cutover.errors import PlanError
from cutover.field_path import Json
from cutover.gates.watch import Watch
from cutover.plan.parsing import hash_of, parse
from cutover.plan.spec import Plan
from cutover.saga.draft import stage_of
from cutover.status.status import ACTIVE, Phase, Status

LONG_DWELL: Final = timedelta(seconds=30)
"""From this dwell on, the time it counts from is worth a save of its own."""


@dataclass(slots=True)
class PlanCache:
    """What is kept of one plan between turns. Losing it costs requests and samples, never correctness."""

    uid: str
    stage: Watch
    guards: Watch
    status: Status = field(default_factory=Status)
    saved: Status = field(default_factory=Status)
    saved_at: datetime | None = None
    version: str = ""
    fenced_run: int = 0
    run: int = 0
    spec: tuple[Json, Plan | PlanError, str] | None = None
    run_cache: RunCache = field(default_factory=RunCache)

    def read_spec(self, name: str, spec: Json) -> tuple[Plan | PlanError, str]:
        """The spec of the plan as it stands, or what is wrong with it, and its hash."""
        if self.spec is None or self.spec[0] != spec:  # a CRD can change what is read, and the generation stays
            plan: Plan | PlanError
            try:
                plan = parse(spec)
            except PlanError as error:
                plan = error
            self.spec = (spec, plan, hash_of(name, spec))
        return self.spec[1:]

    def spec_problem(self, name: str, spec: Json, *, has_finalizer: bool) -> str:
        """Why a plan cannot go on with this spec that is active, or abandoned and still has to let go; empty when it can."""
        plan, spec_hash = self.read_spec(name, spec)
        phase = self.status.phase
        if phase not in ACTIVE and not (phase is Phase.ABANDONED and has_finalizer):
            return ""
        if isinstance(plan, PlanError):
            return str(plan)
        same = self.status.run is None or self.status.run.spec_hash == spec_hash
        return "" if same else "the spec is not the one this run began with; put it back"


def visible_part(status: Status, plan: Plan) -> object:
    """What is worth a save of its own: verdicts and why there is no number, ready pods, what is waited for, and when a long dwell began."""
    current = status.current
    if current is None:
        return status.message
    dwell = timedelta()
    if current.stage and any(step.name == current.step for step in plan.steps):
        dwell = plan.step(current.step).kind.stages()[stage_of(status)].dwell
    verdicts = tuple((gate.name, gate.verdict, "" if gate.value else gate.message) for gate in current.gates)
    # In effect, only what it waits for counts (its dwell, which gate), not the figures behind it.
    message = current.message if current.applied_at is None else current.message.partition(":")[0]
    return (verdicts, current.ready, message, current.applied_at if dwell >= LONG_DWELL else None)
