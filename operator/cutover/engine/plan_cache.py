"""What a process keeps of its plans between turns, and how it notices that another process drives one of them.

Losing any of it costs requests and samples, never correctness. Used inside `engine/` only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from cutover.engine.command_context import RunCache
from cutover.engine.other_plans import OtherPlan
from cutover.errors import PlanError
from cutover.field_path import Json
from cutover.gates.pace import Pace
from cutover.gates.watch import Spawn, Watch
from cutover.plan.parsing import hash_of, parse
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status
from cutover.ports import Clock, Ref
from cutover.saga.draft import stage_of
from cutover.status.conditions import present
from cutover.status.durable import durable_part, says_nothing_else
from cutover.status.status import ACTIVE, ENDED, OUTDATED_CRD, Phase, Status
from cutover.steps.parts import UndoneEarly
from cutover.targets.snapshots import Snapshot

LONG_DWELL: Final = timedelta(seconds=30)
"""From this dwell on, the time it counts from is worth a save of its own."""
_DRAINS: Final = timedelta(minutes=6)
"""For how long after its success others may ask what a plan has moved (`other_plans.py`)."""
QUIET: Final = timedelta(seconds=15)
"""For how long a plan is left alone after another process has saved it: as long as a Lease is valid."""


@dataclass(slots=True)
class PlanCache:
    """What is kept of one plan between turns.

    Attributes:
        stage: measures the gates of the current stage.
        guards: measures the guards of the plan.
        status: the status as it is now in this process.
        saved: the status as it was last saved or read.
        kept: what the API server has of `saved`, where its CRD lacks fields; None when it has all of it.
        saved_at: when this process last saved it.
        version: the resourceVersion of the plan that `saved` belongs to.
        unsure: a write to the plan has had no answer, so it may have taken effect, or another process has written it: the plan is read
            before anything else.
        fence: the highest fence that was saved or read.
        fenced_run: number of the run in which this process has raised the fence, so that it may act; 0 for none.
        run: number of the run that `run_cache` belongs to.
        spec: the spec as it was last read, the plan or error it is, and its hash.
    """

    uid: str
    stage: Watch
    guards: Watch
    status: Status = field(default_factory=Status)
    saved: Status = field(default_factory=Status)
    kept: Status | None = None
    saved_at: datetime | None = None
    version: str = ""
    unsure: bool = False
    fence: int = 0
    fenced_run: int = 0
    run: int = 0
    spec: tuple[Json, Plan | PlanError, str] | None = None
    run_cache: RunCache = field(default_factory=RunCache)

    def read_spec(self, name: str, spec: Json) -> tuple[Plan | PlanError, str]:
        """The plan of a spec, or the errors in it, and its hash."""
        if self.spec is None or self.spec[0] != spec:  # an upgraded CRD changes it without a new generation
            try:
                plan = parse(spec)
                self.spec = (spec, plan, hash_of(name, spec, plan))
            except PlanError as error:
                self.spec = (spec, error, hash_of(name, spec, None))
        return self.spec[1:]

    def spec_problem(self, name: str, spec: Json, *, has_finalizer: bool) -> str:
        """Why a plan that is active, or abandoned and not released yet, cannot continue with this spec; empty when it can."""
        plan, spec_hash = self.read_spec(name, spec)
        phase = self.status.phase
        if phase not in ACTIVE and not (phase is Phase.ABANDONED and has_finalizer):
            return ""
        if isinstance(plan, PlanError):
            return str(plan)
        same = self.status.run is None or self.status.run.spec_hash == spec_hash
        return "" if same else "the spec is not the one this run began with; restore it"


@dataclass(frozen=True, slots=True)
class _Succeeded:
    """What others may ask of a plan while the traffic that it has moved drains; `version` is that of the plan."""

    version: str
    at: datetime
    plan: Plan
    status: Status
    snapshots: dict[str, Snapshot]


class PlanCaches:
    """The caches of all plans of this process.

    Args:
        spawn: runs a measurement beside the turns.
        wake: requests another turn of a plan.
        clock: the time.

    Attributes:
        drops: the API server drops fields of the status, because its CRD is older than this process. To save them again would
            cost a request per turn and change nothing.
    """

    def __init__(self, spawn: Spawn, wake: Callable[[Ref], None], clock: Clock) -> None:
        self._spawn, self._wake, self._clock = spawn, wake, clock
        self._caches: dict[Ref, PlanCache] = {}
        self._succeeded: dict[Ref, _Succeeded] = {}
        self._quiet: dict[Ref, datetime] = {}
        self._paces: defaultdict[str, Pace] = defaultdict(Pace)
        self.drops = False

    def drop(self, ref: Ref) -> None:
        """Forget a plan but for how long it is left alone; its measurements are stopped."""
        cache = self._caches.pop(ref, None)
        if cache is not None:
            cache.stage.stop()
            cache.guards.stop()

    def drop_ended(self, ref: Ref) -> None:
        """Forget a plan that has ended, and whose end is saved: its next turn, if there is one, begins with what is saved."""
        cache = self._caches.get(ref)
        if cache is not None and cache.status.phase in ENDED and cache.status == cache.saved:
            self._keep_for_others(ref, cache)
            self.drop(ref)

    def _keep_for_others(self, ref: Ref, cache: PlanCache) -> None:
        """In a crowd each plan that takes pods away asks of each that has just succeeded, and would read and parse all of them."""
        now, plan = self._clock.now(), cache.spec[1] if cache.spec else None
        self._succeeded = {other: one for other, one in self._succeeded.items() if now - one.at < _DRAINS}
        if cache.status.phase is not Phase.SUCCEEDED or not isinstance(plan, Plan) or not cache.run_cache.snapshots:
            return
        if any(isinstance(step.kind, UndoneEarly) for step in plan.steps):
            self._succeeded[ref] = _Succeeded(cache.version, now, plan, cache.saved, cache.run_cache.snapshots)

    def forget(self, ref: Ref) -> None:
        """Forget a plan that is gone."""
        self.drop(ref)
        self._quiet.pop(ref, None)

    def unsure(self, ref: Ref) -> PlanCache | None:
        """What is kept of a plan that has to be read first."""
        cache = self._caches.get(ref)
        return cache if cache is not None and cache.unsure else None

    def read_again(self, ref: Ref, read: Status, cache: PlanCache) -> None:
        """Begin anew with a plan as it was read. Its samples are kept, or reads without answers would save a failing gate.

        Unless another process drives it: that one has samples of its own.
        """
        self.notice_other_process(ref, read, cache)
        if self.quiet_for(ref) > timedelta():
            self.drop(ref)
        else:
            self._caches[ref] = PlanCache(cache.uid, cache.stage, cache.guards)

    def failed(self, ref: Ref) -> bool:
        """Whether a gate or guard of a plan has failed since its last turn."""
        cache = self._caches.get(ref)
        return cache is not None and (cache.stage.failed or cache.guards.failed)

    def remembered(self, ref: Ref, body: Json) -> OtherPlan | None:
        """A plan as it is in this body, where that is what its last turn has left."""
        version, ended = body["metadata"]["resourceVersion"], self._succeeded.get(ref)
        if ended is not None and ended.version == version:
            return OtherPlan(ref, body, ended.plan, ended.status, ended.snapshots)
        cache = self._caches.get(ref)
        if cache is None or cache.version != version or cache.spec is None:
            return None
        spec, plan, _ = cache.spec
        if isinstance(plan, PlanError) or spec != body["spec"]:
            return None
        return OtherPlan(ref, body, plan, cache.saved, cache.run_cache.snapshots)

    def of(self, ref: Ref, body: Json) -> PlanCache:
        """The cache of exactly this plan, brought up to the body as the API server has it."""
        metadata = body["metadata"]
        cache = self._caches.get(ref)
        if cache is not None and cache.uid != metadata["uid"]:
            self.drop(ref)
            cache = None
        if cache is None:
            watch = partial(Watch, self._spawn, lambda: self._wake(ref), self._paces[ref.namespace])
            cache = PlanCache(metadata["uid"], watch(), watch())
            self._caches[ref] = cache
        if cache.version != metadata["resourceVersion"]:
            self._take_saved(ref, cache, read_status(body.get("status")))
            cache.version = metadata["resourceVersion"]
        run = cache.status.run.number if cache.status.run else 0
        if run != cache.run:
            cache.run, cache.run_cache = run, RunCache(since=self._clock.now())
        return cache

    def _take_saved(self, ref: Ref, cache: PlanCache, read: Status) -> None:
        durable, ours = durable_part(read), durable_part(cache.saved)
        if not says_nothing_else(durable, ours):  # another process has saved it, or this one has just started
            if cache.version:
                self.notice_other_process(ref, read, cache)
            cache.status, cache.fenced_run = read, 0  # the fence must rise before this process acts
            cache.fence = read.run.fence if read.run else 0
        elif durable == ours and not cache.fenced_run and read != cache.saved:  # another process has newer samples
            cache.status = read
        elif self.drops and says_nothing_else(read, cache.saved):
            # Our own save without some fields: this process knows more.
            cache.kept = read
            return
        cache.saved, cache.kept = read, None

    def notice_other_process(self, ref: Ref, read: Status, cache: PlanCache) -> None:
        """Leave a plan alone for a while if another process has saved it: that one drives it.

        Going on would be harmless, because every take-over raises the fence. But two processes that take over from each other
        in every turn make no progress.
        """
        ours = present(cache.status, self._clock.now())  # as this process would have saved it
        if not any(says_nothing_else(durable_part(read), durable_part(own)) for own in (cache.saved, ours)):
            self._quiet[ref] = self._clock.now() + QUIET

    def save_again(self) -> None:
        """The CRD was upgraded: what the API server has dropped until now is saved by the next turn of each plan."""
        for cache in self._caches.values():
            if cache.kept is not None:
                cache.saved, cache.kept = cache.kept, None

    def quiet_for(self, ref: Ref) -> timedelta:
        """For how long a plan is still left alone; zero or less: not any more."""
        now = self._clock.now()
        return self._quiet.get(ref, now) - now


def visible_part(status: Status, plan: Plan) -> object:
    """What is worth a save of its own, because it is shown.

    Verdicts and why a number is missing, ready pods, what the plan waits for, when a long dwell began, an outdated CRD.
    """
    current = status.current
    outdated = any(condition.type == OUTDATED_CRD for condition in status.conditions)
    if current is None:
        return status.message, outdated
    dwell = timedelta()
    if current.stage and any(step.name == current.step for step in plan.steps):
        dwell = plan.step(current.step).kind.stages()[stage_of(status)].dwell
    verdicts = tuple((gate.name, gate.verdict, "" if gate.value else gate.message) for gate in current.gates)
    # Once in effect, only what it waits for counts (its dwell, which gate), not the numbers after the colon.
    message = current.message if current.applied_at is None else current.message.partition(":")[0]
    return (verdicts, current.ready, message, current.applied_at if dwell >= LONG_DWELL else None, outdated)
