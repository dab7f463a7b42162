"""Carries out one command of the saga: kinds, claims, preflight, the finalizer. Turns every error into an outcome.

Called by the driver alone, and only after the status that announces the command has been saved.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from cutover.engine import residue
from cutover.engine.drift import enforce, expected
from cutover.engine.outcomes import outcome_of
from cutover.errors import Broken, Conflict, Denied, NotFound, OutsideError, PlanError, Rejected
from cutover.field_path import Json, find, readable
from cutover.gates import GateContext
from cutover.objects import jobs
from cutover.plan.spec import Plan
from cutover.ports import APPLIED_LABEL, JOBS, PLAN_LABEL, Clock, Cluster, Messenger, Metrics, Ref
from cutover.preflight import preflight
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import Again, Command, Done, Failed, Outcome, Pause, Verb, Wait
from cutover.status.reasons import Reason
from cutover.status.status import ENDED, Phase, Status, StepState
from cutover.steps import StepContext
from cutover.targets import snapshots
from cutover.targets.claims import Busy, Owner
from cutover.targets.fields import Foreign
from cutover.targets.finalizer import set_finalizer
from cutover.targets.snapshots import Snapshot
from cutover.targets.targets import Targets

log = logging.getLogger(__name__)


@dataclass(slots=True)
class RunCache:
    """What is remembered of one run in this process: nothing that could not be read again."""

    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    kinds: dict[str, Any] = field(default_factory=dict)
    account_seen_for: set[tuple[int, Verb]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class CommandContext:
    """All that carrying out a command of one plan takes."""

    cluster: Cluster
    metrics: Metrics
    messenger: Messenger
    ref: Ref
    body: Json
    plan: Plan
    status: Status
    run_cache: RunCache
    now: datetime

    # --- what a command works with ------------------------------------------------------------------------------------

    def targets(self, step: str = "") -> Targets:
        """The targets as the present run may write them."""
        run = self.status.run
        if run is None:
            raise Broken("a command without a run")
        account = self.plan.service_account_name
        owner = Owner(self.ref, self.body["metadata"]["uid"], run.number, run.fence, account)
        return Targets(self.cluster, owner, step, self.run_cache.snapshots)

    def step_context(self, at: int) -> StepContext:
        """What the kind of a step works with."""
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
            attempt=self.status.steps[at].attempt or 1,
            made=self.status.steps[at].made,
        )

    def gate_context(self, step: Any, clock: Clock, moment: str) -> GateContext:
        """What the gates of a step, or the guards, may use."""
        target = step.kind.rolls_out()
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
        """Every object of the plan once, in the order in which they are claimed."""
        return sorted(self.plan.targets(self.ref.namespace))

    def written(self, at: int) -> bool:
        """Whether this process has seen the snapshots of a step in this run: all of them are taken before the first write."""
        targets, refs = self.targets(self.plan.steps[at].name), self._targets_of(at)
        return bool(refs) and all(targets.remembers(ref) for ref in refs)

    def _targets_of(self, at: int) -> list[Ref]:
        return [target.ref(self.ref.namespace) for target in self.plan.steps[at].kind.touches()]

    # --- what has happened meanwhile ------------------------------------------------------------------------------------

    async def trouble(self) -> Failed | Pause | None:
        """Whether a target is gone, or somebody took our labels off it; claims it again when nothing else was changed.

        Asks the server only about what is not streamed as claimed. Raises Unavailable.
        """
        uid = self.body["metadata"]["uid"]
        for ref in self.all_targets():
            seen = self.cluster.seen(ref)
            if seen is not None and (seen["metadata"].get("labels") or {}).get(PLAN_LABEL) == uid:
                continue
            try:
                await self.targets().claim_again(ref, await expected(self.plan, self.status, self.step_context, ref))
            except NotFound:
                return Failed("TargetGone", f"{ref} is gone")
            except Foreign as foreign:
                return Pause(
                    "ClaimLost", f"somebody took the label {PLAN_LABEL} off {ref}, and {foreign}; mend it and resume"
                )
            except (Denied, Rejected) as refused:
                return Pause("ClaimLost", f"{ref} cannot be claimed again: {refused}")
            except Conflict:
                continue  # it is being written right now; its next event brings us back
        return None

    async def ready_to_undo(self) -> frozenset[int]:
        """Steps whose undo may be taken ahead of those after them: these are passable and touch nothing it rests on."""
        left = [at for at, step in enumerate(self.status.steps) if step.state in TOUCHED]
        ready = set()
        for place, at in enumerate(left[:-1]):
            later = left[place + 1 :]
            kind = self.plan.steps[at].kind
            if not kind.undoes_early or not all(self.plan.steps[after].kind.passable for after in later):
                continue
            rests_on = await self._rests_on(at)
            if rests_on is not None and not any(rests_on & set(self._targets_of(after)) for after in later):
                ready.add(at)
        return frozenset(ready)

    async def _rests_on(self, at: int) -> frozenset[Ref] | None:
        try:
            rests_on: frozenset[Ref] | None = await self.plan.steps[at].kind.early_undo(self.step_context(at))
        except (OutsideError, PlanError, Foreign):
            return None
        return rests_on

    # --- reads beside the saving --------------------------------------------------------------------------------------

    async def look(self, command: Command) -> Any:
        """What a command wants to know beforehand. Trouble is left to the command itself."""
        try:
            await self._account_usable(command)
            kind = self.plan.steps[command.step].kind
            if command.verb is Verb.DO:
                return await kind.prefetch(self.step_context(command.step), command.stage)
            return await kind.prefetch_undo(self.step_context(command.step))
        except (OutsideError, PlanError, Foreign, Broken):
            return None

    async def _account_usable(self, command: Command) -> list[str]:
        """Asked once before the first write of a step and of its undo; impersonation itself does not ask."""
        key, step = (command.step, command.verb), self.plan.steps[command.step]
        if key in self.run_cache.account_seen_for or not step.writes():
            return []
        account = self.plan.service_account_name
        problems = await preflight.account(self.cluster, self.ref.namespace, account)
        problems += await preflight.pod_accounts(self.cluster, self.ref.namespace, account, step.pod_accounts(account))
        if not problems:
            self.run_cache.account_seen_for.add(key)
        return [problem.message for problem in problems]

    # --- commands -----------------------------------------------------------------------------------------------------

    async def carry_out(self, command: Command, looked: Any) -> Outcome:
        """Do it, or look how far it is. Raises Superseded when another process has the plan, and nothing else."""
        try:
            return await self._act(command, looked)
        except (OutsideError, PlanError, Foreign, Broken) as error:
            if isinstance(error, Broken):
                log.exception("a rule of our own did not hold", extra={"plan": str(self.ref)})
            return outcome_of(command, error)

    async def _act(self, command: Command, looked: Any) -> Outcome:
        match command.verb:
            case Verb.EXAMINE:
                return await self._examine()
            case Verb.CLAIM:
                return await self._claim()
            case Verb.RECLAIM:
                return await self._reclaim()
            case Verb.RELEASE:
                return await self._release()
            case Verb.SWEEP:
                owner = self.targets().owner
                await snapshots.drop_kept(self.cluster, self.ref, owner.uid, owner.run)
                return Done()
            case Verb.ENFORCE:
                return await enforce(self.plan, self.status, self.step_context)
            case Verb.REMOVE_FINALIZER:
                await set_finalizer(self.cluster, self.ref, self.body, wanted=False)
                return Done()
        kind = self.plan.steps[command.step].kind
        if command.verb is Verb.UNDO:
            return await self._undo(kind, command, looked)
        return await self._do(kind, command, looked)

    async def _do(self, kind: Any, command: Command, looked: Any) -> Outcome:
        if missing := await self._account_usable(command):
            return Failed("AccountUnusable", missing[0])
        if lost := await self._lost_snapshot(command.step):
            says = f"{lost}; put it back and resume, or set its fields by hand and abandon the plan"
            return Pause("SnapshotLost", says)
        outcome: Outcome = await kind.do(self.step_context(command.step), command.stage, looked)
        return outcome

    async def _undo(self, kind: Any, command: Command, looked: Any) -> Outcome:
        at = command.step
        if missing := await self._account_usable(command):
            for ref in self._targets_of(at):
                await self.cluster.get(ref)  # raises NotFound: where the target is gone too, nobody needs the account
            return Wait("AccountUnusable", missing[0])
        if lost := await self._lost_snapshot(at):
            return Wait("SnapshotLost", f"{lost}; set its fields by hand, then abandon the plan")
        outcome: Outcome = await kind.undo(self.step_context(at), looked)
        return outcome

    async def _lost_snapshot(self, at: int) -> str:
        """What to say when a snapshot of a step is gone that has taken it; another one would be of what the step has made."""
        step = self.status.steps[at]
        targets = self.targets(step.name)
        for ref in self._targets_of(at):
            if step.snapshot_taken and await targets.saved(ref) is None:
                kept = targets.snapshot_of(ref)
                return f"{kept}, the snapshot of {ref}, is gone, so what was there before is not known"
        return ""

    async def _examine(self) -> Outcome:
        look = replace(self, cluster=preflight.cached(self.cluster))
        if await self._applied_already(look.cluster):
            return Done(skip=True)
        contexts = [look.step_context(at) for at in range(len(self.plan.steps))]
        found = await preflight.missing(self.plan, look.cluster, self.metrics, self.ref.namespace, contexts)
        if problems := [problem for problem in found.problems if not problem.warning]:
            return Again(None, "; ".join(map(str, problems)))
        for ref in self.all_targets():
            if owner := await look.targets().claimed_by(ref):
                return Wait("TargetBusy", f"{ref} is claimed by plan {owner}; this one starts when that has ended")
        await set_finalizer(self.cluster, self.ref, self.body, wanted=True)
        mind = f"nothing is missing, but note: {'; '.join(map(str, found.problems))}" if found.problems else ""
        return Done(message=mind, risks=found.risks)

    async def _applied_already(self, cluster: Cluster) -> bool:
        """Whether a plan made anew (a replace, a restored backup) finds the mark of its own spec on all of its targets."""
        targets = self.all_targets()
        if not targets or self.status.run is None or self.status.run.number > 1:
            return False
        for ref in targets:
            try:
                body = await cluster.get(ref)
            except NotFound:
                return False
            if (body["metadata"].get("labels") or {}).get(APPLIED_LABEL) != self._mark():
                return False
        return True

    def _mark(self) -> str:
        return self.status.run.spec_hash[:32] if self.status.run else ""

    async def _claim(self) -> Outcome:
        targets = self.targets()
        if self.status.history:
            await self._drop_former_snapshots()
            await jobs.delete_former(self.cluster, targets.owner)
        try:
            for ref in self.all_targets():
                await targets.claim(ref)
        except (Busy, NotFound, Denied, Rejected) as no:
            for ref in self.all_targets():  # those that an earlier try has claimed too
                await targets.release(ref)
            if isinstance(no, Denied | Rejected):
                raise
            return Wait("TargetBusy", str(no))
        return Done()

    async def _drop_snapshots(self) -> None:
        owner = self.targets().owner
        await snapshots.drop(self.cluster, owner.namespace, owner.uid, owner.run)

    async def _drop_former_snapshots(self) -> None:
        owner = self.targets().owner
        await snapshots.drop_former(self.cluster, owner.namespace, owner.uid, owner.run)

    async def _give_snapshots(self, *, owned: bool) -> None:
        targets = self.targets()
        marks = snapshots.labels(targets.owner.uid, targets.owner.run)
        await snapshots.give(self.cluster, self.ref, marks, owned=owned, still_ours=targets.still_ours)

    async def _reclaim(self) -> Outcome:
        """Claim every target once more, if each field still has the value that the run left; else claim none."""
        await set_finalizer(self.cluster, self.ref, self.body, wanted=True)
        outcome = await self._claim()
        if not isinstance(outcome, Done):
            return outcome
        self.run_cache.snapshots.clear()  # the rollback rests on those that are there, and not on what we remember
        try:
            why = await self._changed_since()
        except (NotFound, Denied, Rejected) as no:
            why = str(no)
        if why:
            for ref in self.all_targets():
                await self.targets().release(ref)
            return Failed("Changed", why)
        await self._give_snapshots(owned=False)
        if JOBS in self.plan.makes():
            await jobs.reopen(self.cluster, self.targets().owner)
        return Done()

    async def _changed_since(self) -> str:
        """What is no longer as the run left it; empty when all is."""
        for ref in self.all_targets():
            body = await self.cluster.get(ref)
            for change in await expected(self.plan, self.status, self.step_context, ref):
                found = find(body, change.path)
                if found is None or found.value != change.ours:
                    return f"{readable(change.path)} of {ref} is no longer what this run left"
        for at, step in enumerate(self.status.steps):
            targets = self.targets(step.name)
            for ref in self._targets_of(at):
                if step.state is StepState.DONE and step.snapshot_taken and await targets.saved(ref) is None:
                    return f"the snapshot of step {step.name} for {ref} is gone"
        return ""

    async def _release(self) -> Outcome:
        """After a success leave its mark and keep the snapshots for a while; after anything else drop them."""
        targets, failure = self.targets(), self.status.failure
        succeeded = failure is None and self.status.phase not in ENDED
        abandoned = self.status.phase is Phase.ABANDONED
        undone = failure is not None and failure.reason == Reason.ROLLBACK
        mark = self._mark() if succeeded else "" if abandoned or undone else None  # None: what it was stands again
        if failure is not None and not abandoned and all(step.state is StepState.PENDING for step in self.status.steps):
            await self._outdate_claims()
        if succeeded and self.plan.keep_snapshots:
            await self._give_snapshots(owned=True)
        # The claims of an abandoned plan are void: where one may not be taken off, the others and the snapshots go all the same.
        refused = (Denied, Rejected) if abandoned else ()
        if JOBS in self.plan.makes():
            with suppress(*refused):
                await jobs.release(self.cluster, targets.owner, abandoned=abandoned)
        for ref in self.all_targets():
            with suppress(*refused):
                await targets.release(ref, mark, fenced=not abandoned)
        left = await residue.said(self.plan, self.status, self.targets) if abandoned else ""
        if not (succeeded and self.plan.keep_snapshots):
            await self._drop_snapshots()
        return Done(message=left)

    async def _outdate_claims(self) -> None:
        """The run turned back while it claimed: a claim sent by a process that sleeps fails on an object written since."""
        for ref in self.all_targets():
            with suppress(Busy, Foreign, NotFound, Denied, Rejected):
                await self.targets().claim(ref)
