"""What carrying out a command of one plan takes, and what is remembered of its run in this process.

Nothing is decided or written here. Made by the driver for each command; used by all modules that carry commands out.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from cutover.engine.other_plans import OtherPlan, Remembered, Ways, needed_elsewhere
from cutover.errors import Broken
from cutover.field_path import Json
from cutover.gates.base import GateContext
from cutover.messaging import Messenger
from cutover.objects.workloads import pod_labels
from cutover.plan.spec import Plan
from cutover.ports import Clock, Cluster, Metrics, Ref
from cutover.saga.turn import Verb
from cutover.status.status import Status, StepState, StepStatus
from cutover.steps.kind import Drain, StepContext
from cutover.steps.parts import UndoneEarly
from cutover.targets.claims import Owner
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets


@dataclass(slots=True)
class RunCache:
    """What this process remembers of one run: nothing that could not be read again.

    Attributes:
        since: when this process first took over a run that another one may have driven before; None when nobody else has driven it.
        examined: the targets that nobody had claimed when preflight read them last, until they are claimed.
        claimed: the workloads of the first step as the claim has left them, until it begins.
        moved: when each step last moved traffic, by its name, as far as no other process has driven the run since.
    """

    since: datetime | None = None
    examined: dict[Ref, Json] = field(default_factory=dict)
    claimed: dict[Ref, Json] = field(default_factory=dict)
    moved: dict[str, datetime] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)
    account_checked: set[tuple[int, Verb]] = field(default_factory=set)
    enforced: dict[tuple[int, Ref], str] = field(default_factory=dict)
    """Per step, the version at which its targets were restored last."""

    def taken_over(self, now: datetime) -> None:
        """Another process may have moved traffic until now."""
        self.since = self.since or now
        self.moved.clear()


class Rests:
    """How long preflight leaves each plan alone after a look at it, no matter what wakes the plan.

    By name, so that neither another spec nor a plan that is deleted and created again is looked at sooner.
    """

    def __init__(self) -> None:
        self._ends: dict[Ref, datetime] = {}

    def begin(self, plan: Ref, now: datetime, rest: timedelta) -> None:
        """Leave a plan alone for so long."""
        self._ends = {other: end for other, end in self._ends.items() if end > now} | {plan: now + rest}

    def left(self, plan: Ref, now: datetime) -> timedelta:
        """For how long a plan is still left alone; zero or less: not any more."""
        return self._ends.get(plan, now) - now


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Everything that carrying out a command of one plan takes."""

    cluster: Cluster
    metrics: Metrics
    messenger: Messenger
    ref: Ref
    body: Json
    plan: Plan
    status: Status
    run_cache: RunCache
    rests: Rests
    remembered: Remembered
    clock: Clock
    now: datetime
    runner_image: str = ""

    @property
    def applied_label(self) -> str:
        """What the label of a success is for this run."""
        return self.status.run.spec_hash[:32] if self.status.run else ""

    def targets(self, step: str = "") -> Targets:
        """The targets as this run may write them; `step` names its snapshots."""
        run = self.status.run
        if run is None:
            raise Broken("a command without a run")
        account, applied = self.plan.service_account_name, "" if run.over_applied else self.applied_label
        uid = self.body["metadata"]["uid"]
        owner = Owner(self.ref, uid, run.number, run.fence, account, applied, self.status.state)
        return Targets(self.cluster, owner, step, self.run_cache.snapshots, self.run_cache.claimed)

    def step_context(self, at: int, prefetched: Any = None) -> StepContext:
        """What the kind of a step needs for a command; `prefetched` is what it has read for it."""
        name = self.plan.steps[at].name
        current = self.status.current
        elapsed = (self.now - (current.progressed_at or current.started_at)).total_seconds() if current else 0.0
        return StepContext(
            cluster=self.cluster,
            messenger=self.messenger,
            targets=self.targets(name),
            namespace=self.ref.namespace,
            place=f"steps[{name}]",
            now=self.now,
            elapsed=elapsed,
            applied=current is not None and current.applied_at is not None,
            reapply=current is not None and current.reapply,
            memo=self.run_cache.kinds,
            approved=current is not None and current.approved,
            earlier=frozenset(target for step in self.plan.steps[:at] for target in step.kind.touches()),
            before=tuple(step.kind for step in self.plan.steps[:at]),
            irreversible=self.plan.steps[at].irreversible,
            attempt=self.status.steps[at].attempt or 1,
            undo_attempt=self.status.run.undo_attempt if self.status.run else 1,
            made=self.status.steps[at].made,
            prefetched=prefetched,
            runner_image=self.runner_image,
            moved=partial(self._note_moved, name),
            draining=self._draining,
            needed_elsewhere=self.needed_elsewhere,
        )

    def _note_moved(self, step: str) -> None:
        """At this very moment, not that of the command: a write takes its time."""
        self.run_cache.moved[step] = self.clock.now()

    async def _draining(self, workload: Ref) -> Drain | None:
        """The last drain that keeps the pods of a workload."""
        drains = list[Drain]()
        for at, step in enumerate(self.status.steps):
            moved, kind = self._moved(step), self.plan.steps[at].kind
            if moved is not None and step.state is not StepState.PENDING and isinstance(kind, UndoneEarly):
                drain = await kind.drain_since(self.step_context(at), moved)
                drains += [drain] if drain is not None and workload in drain.workloads else []
        return max(drains, key=lambda drain: drain.until, default=None)

    async def needed_elsewhere(self, workload: Ref) -> str:
        """Until when another plan needs the pods of a workload, as `other_plans` tells it; empty when none does. Raises NotFound."""
        targets = self.targets()
        labels = pod_labels((await targets.view(workload))["spec"])
        ways = Ways(self.remembered, self._context_of_other)
        return await needed_elsewhere(self.cluster, targets.owner, self.now, labels, ways)

    def _context_of_other(self, other: OtherPlan, at: int, cluster: Cluster) -> StepContext:
        known = RunCache(snapshots=other.snapshots)
        theirs = replace(
            self, cluster=cluster, ref=other.ref, body=other.body, plan=other.plan, status=other.status, run_cache=known
        )
        return theirs.step_context(at)

    def _moved(self, step: StepStatus) -> datetime | None:
        """When a step moved traffic last. Of what other processes did it is known only that it was before the step was finished.

        Never counted from the last take-over: two processes that take over from each other would drain for ever.
        """
        since = self.run_cache.since
        by_others = max(since, step.finished_at or since) if since is not None else None
        return self.run_cache.moved.get(step.name, by_others)

    def gate_context(self, step: Any, clock: Clock, moment: str) -> GateContext:
        """What the gates of a step, or the guards, need for a measurement."""
        target = step.workload()
        return GateContext(
            cluster=self.cluster,
            metrics=self.metrics,
            clock=clock,
            namespace=self.ref.namespace,
            step=step.name,
            workload=target.ref(self.ref.namespace) if target else None,
            owner=self.targets().owner,
            moment=moment,
        )

    def all_targets(self) -> list[Ref]:
        """Every target of the plan once, in the order in which they are claimed.

        Sorted, so that two plans never wait for each other, each with a claim that the other one needs.
        """
        return sorted(self.plan.targets(self.ref.namespace))

    def snapshots_taken(self, at: int) -> bool:
        """Whether this process knows all snapshots of a step in this run: they are all taken before its first write."""
        targets, refs = self.targets(self.plan.steps[at].name), self.targets_of(at)
        return bool(refs) and all(targets.remembers(ref) for ref in refs)

    def targets_of(self, at: int) -> list[Ref]:
        """The targets of one step."""
        return [target.ref(self.ref.namespace) for target in self.plan.steps[at].kind.touches()]
