"""Carries out one command of the saga: kinds, claims, preflight, the finalizer. Turns every error into an outcome.

Called by the driver alone, and only after the status that announces the command has been saved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cutover import preflight
from cutover.errors import Broken, Conflict, Denied, NotFound, OutsideError, PlanError, Rejected, Unavailable
from cutover.fields import Json, Operation
from cutover.plan import Plan
from cutover.ports import FINALIZER, Cluster, Metrics, Ref
from cutover.requests import RequestVerb
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Verb, Wait
from cutover.status import Answer, RequestRecord, Status
from cutover.steps import Work
from cutover.targets import Busy, Foreign, Holder, Snapshot, Targets

log = logging.getLogger(__name__)

_SOON: Final = 0.2
_LATER: Final = 2.0
"""Seconds until a command is tried again that lost a race, or got no answer."""


@dataclass(slots=True)
class Recollection:
    """What is remembered of one run in this process: nothing that could not be read again."""

    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)
    account_seen_for: set[tuple[int, Verb]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Hand:
    """All that carrying out a command of one plan takes."""

    cluster: Cluster
    metrics: Metrics
    ref: Ref
    body: Json
    plan: Plan
    status: Status
    recollection: Recollection
    now: datetime

    # --- what a command works with ------------------------------------------------------------------------------------

    def targets(self, step: str = "") -> Targets:
        """The targets as the present run may write them."""
        run = self.status.run
        if run is None:
            raise Broken("a command without a run")
        account = self.plan.service_account_name
        holder = Holder(self.ref.namespace, self.body["metadata"]["uid"], run.number, run.fence, account)
        return Targets(self.cluster, holder, step, self.recollection.snapshots)

    def work(self, at: int) -> Work:
        """What the kind of a step works with."""
        name = self.plan.steps[at].name
        current = self.status.current
        elapsed = (self.now - current.started_at).total_seconds() if current else 0.0
        return Work(
            cluster=self.cluster,
            targets=self.targets(name),
            namespace=self.ref.namespace,
            place=f"steps[{name}]",
            elapsed=elapsed,
            memory=self.recollection.kinds,
            approval=_approval(self.status, name),
            earlier=frozenset(target for step in self.plan.steps[:at] for target in step.kind.touches()),
        )

    def all_targets(self) -> list[Ref]:
        """Every object of the plan once, in the order in which they are claimed."""
        return sorted({target.ref(self.ref.namespace) for step in self.plan.steps for target in step.kind.touches()})

    # --- reads beside the saving --------------------------------------------------------------------------------------

    async def look(self, command: Command) -> Any:
        """What a command wants to know beforehand. Trouble is left to the command itself."""
        try:
            await self._account_usable(command)
            kind = self.plan.steps[command.step].kind
            if command.verb is Verb.DO:
                return await kind.look(self.work(command.step), command.stage)
            return await kind.look_back(self.work(command.step))
        except (OutsideError, PlanError, Foreign, Broken):
            return None

    async def _account_usable(self, command: Command) -> list[str]:
        """Asked once before the first write of a step and of its undo; impersonation itself does not ask."""
        key = (command.step, command.verb)
        if key in self.recollection.account_seen_for or not self.plan.steps[command.step].kind.touches():
            return []
        problems = await preflight.account(self.cluster, self.ref.namespace, self.plan.service_account_name)
        if not problems:
            self.recollection.account_seen_for.add(key)
        return [problem.says for problem in problems]

    # --- commands -----------------------------------------------------------------------------------------------------

    async def carry_out(self, command: Command, looked: Any) -> Outcome:
        """Do it, or look how far it is. Raises Superseded when another process has the plan, and nothing else."""
        try:
            return await self._act(command, looked)
        except NotFound as gone:
            if command.verb is Verb.UNDO:  # there is nothing left to bring back
                log.warning(
                    "an undo is passed over: its object is gone", extra={"plan": str(self.ref), "why": str(gone)}
                )
                return Done()
            return _over(command, "TargetGone", str(gone))
        except Foreign as foreign:
            return _over(command, foreign.reason, str(foreign))
        except (Rejected, Denied, PlanError) as refused:
            return _over(
                command, "Unresolved" if isinstance(refused, PlanError) else type(refused).__name__, str(refused)
            )
        except Conflict as race:
            return Again(_SOON, str(race))
        except Unavailable as silence:
            return Again(max(_LATER, silence.retry_after), f"no answer: {silence}")
        except Broken as fault:
            log.exception("a rule of our own did not hold", extra={"plan": str(self.ref)})
            return Again(_LATER, f"internal error: {fault}")

    async def _act(self, command: Command, looked: Any) -> Outcome:
        match command.verb:
            case Verb.EXAMINE:
                return await self._examine()
            case Verb.CLAIM:
                return await self._claim()
            case Verb.RELEASE:
                return await self._release()
            case Verb.UNBIND:
                await bind(self.cluster, self.ref, self.body, bound=False)
                return Done()
        if missing := await self._account_usable(command):
            return _over(command, "AccountUnusable", missing[0])
        kind = self.plan.steps[command.step].kind
        if command.verb is Verb.DO:
            outcome: Outcome = await kind.do(self.work(command.step), command.stage, looked)
        else:
            outcome = await kind.undo(self.work(command.step), looked)
        return outcome

    async def _examine(self) -> Outcome:
        works = [self.work(at) for at in range(len(self.plan.steps))]
        problems = await preflight.missing(self.plan, self.cluster, self.metrics, self.ref.namespace, works)
        if problems:
            return Again(None, "; ".join(map(str, problems)))
        for ref in self.all_targets():
            if holder := await self.targets().held_by(ref):
                return Wait("TargetBusy", f"{ref} is held by plan {holder}; this one starts when that has ended")
        await bind(self.cluster, self.ref, self.body, bound=True)
        return Done()

    async def _claim(self) -> Outcome:
        targets, claimed = self.targets(), list[Ref]()
        try:
            for ref in self.all_targets():
                await targets.claim(ref)
                claimed.append(ref)
        except (Busy, NotFound) as busy:
            for ref in claimed:
                await targets.release(ref)
            return Wait("TargetBusy", str(busy))
        return Done()

    async def _release(self) -> Outcome:
        targets = self.targets()
        for ref in self.all_targets():
            await targets.release(ref)
        await targets.drop_snapshots()
        return Done()


def _over(command: Command, reason: str, message: str) -> Outcome:
    """Forward, the attempt is over; backward, only the outside can help."""
    return Wait(reason, message) if command.verb in (Verb.UNDO, Verb.RELEASE) else Failed(reason, message)


async def bind(cluster: Cluster, ref: Ref, body: Json, *, bound: bool) -> None:
    """Set our finalizer on a plan, or take it away; it is there only while the plan is active."""
    for _ in range(3):
        present = list(body["metadata"].get("finalizers") or ())
        if (FINALIZER in present) == bound:
            return
        try:
            await cluster.patch(ref, list(_finalizer(body, present, bound=bound)))
        except Rejected:
            body = await cluster.get(ref)
            continue
        except NotFound:
            if bound:
                raise
        return
    raise Conflict(f"{ref} changed at every try to write its finalizer")


def _finalizer(body: Json, present: list[str], *, bound: bool) -> Iterator[Operation]:
    yield {"op": "test", "path": "/metadata/resourceVersion", "value": body["metadata"]["resourceVersion"]}
    wanted = [*present, FINALIZER] if bound else [name for name in present if name != FINALIZER]
    yield {"op": "add", "path": "/metadata/finalizers", "value": wanted}


def _approval(status: Status, step: str) -> RequestRecord | None:
    """The accepted approval of a step in this run."""
    for record in status.requests:
        if (
            record.verb == RequestVerb.APPROVE
            and record.answer is Answer.ACCEPTED
            and record.step == step
            and status.run is not None
            and record.run == status.run.number
        ):
            return record
    return None
