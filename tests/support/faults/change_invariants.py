"""What must be true of every single change that the server sees, no matter who made it."""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

from cutover.field_path import Json, differences, readable
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status
from cutover.ports import CONFIG_MAPS, DEPLOYMENTS, FINALIZER, HTTP_ROUTES, STREAMED, VIRTUAL_SERVICES, Ref
from cutover.saga.tables import TOUCHED
from cutover.status.reasons import Reason
from cutover.status.status import ACTIVE, Phase, Status, StepState
from cutover.testing import MemoryCluster
from support.fakes.shop import NAMESPACE, V2
from support.plans.walked import pods_of, shares

_BETWEEN_STEPS = (Reason.CLAIMING, Reason.RELEASING, Reason.RECLAIMING)
FOREIGN = "foreign:9"
"""A value that nobody but the person who set it may write over."""
_LARGEST_STATUS = 64 * 1024


class ChangeInvariants:
    """Follows one plan and its targets.

    Attributes:
        wrong: sentences about what must not be.
        by_hand: a person is writing now.
        edited: targets whose spec somebody else has changed; what is written there afterwards is judged at the end only.
        status: the last one that was saved.
        phases: all that the plan has been in; `reasons`: and why.
        split: it rolled back while the traffic was split.
        changed_after_done: it was paused because another writer had changed what a done step has left.
        blind: whoever writes now may have counted pods that are gone since.
        shares: percent of the traffic that the pods of each workload get, where the plan moves any.
        drained: from when on pods may be taken from a workload.
        moves: the object by which the plan moves traffic.
        lost: a snapshot was deleted, so that nobody knows which pods drain.
    """

    def __init__(self, plan: Ref, spec: Plan, cluster: MemoryCluster, moves: Ref | None) -> None:
        self.plan, self.spec, self.moves, self._cluster = plan, spec, moves, cluster
        self.wrong: list[str] = []
        self.by_hand = False
        self.edited: set[Ref] = set()
        self.status = Status()
        self.phases: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.split, self.changed_after_done = False, False
        self._writes: Counter[Any] = Counter()
        self._uid, self.blind, self.lost = "", False, False
        self.shares = shares(moves, cluster.objects[moves]) if moves else {}
        self.drained: dict[Ref, datetime] = {}
        self._drain = min((step.kind.drain for step in self.moving()), default=timedelta())

    def changed(self, ref: Ref, before: Json | None, after: Json | None) -> None:
        """One change of one object."""
        if ref == self.plan and after is not None:
            self._plan_changed(before, after)
        elif ref.resource in STREAMED and before is not None and after is not None:
            part = "data" if ref.resource == CONFIG_MAPS else "spec"
            if before[part] != after[part]:
                self._content_changed(ref, part, before, after)

    def _content_changed(self, ref: Ref, part: str, before: Json, after: Json) -> None:
        had = self.shares
        if ref == self.moves:
            self.shares = shares(ref, after)
        if self.by_hand:
            self.edited.add(ref)
            return
        self._target_changed(ref, part, before[part], after[part])
        if ref == self.moves:
            self._moves_traffic(had)

    def moving(self) -> list[Any]:
        """The steps that move traffic."""
        return [step for step in self.spec.steps if self.moves in [one.ref(NAMESPACE) for one in step.kind.touches()]]

    def _must(self, true: object, message: str) -> None:
        if not true:
            self.wrong.append(message)

    # --- the plan -----------------------------------------------------------------------------------------------------

    def _plan_changed(self, before: Json | None, after: Json) -> None:
        self._uid = after["metadata"]["uid"]
        bound = FINALIZER in (after["metadata"].get("finalizers") or ())
        if before is not None and before.get("status") == after.get("status"):
            status = self.status
        else:
            old, status = self.status, read_status(after.get("status"))
            self.status = status
            if status.phase is not None:
                self._status_saved(old, status, len(json.dumps(after["status"])))
        if status.phase in ACTIVE and status.reason != Reason.RECLAIMING and not self.by_hand:
            self._must(bound, f"{status.phase} ({status.reason}) without our finalizer")

    def _status_saved(self, old: Status, new: Status, size: int) -> None:
        self.reasons[new.reason] += 1
        self.changed_after_done |= new.phase is Phase.PAUSED and new.reason == "ForeignChange" and new.failure is None
        if new.phase is not old.phase:
            self.phases[str(new.phase)] += 1
            self.split |= new.phase is Phase.ROLLING_BACK and 0 < self.shares.get(V2, 0) < 100
        self._must(size < _LARGEST_STATUS, f"a status of {size} bytes")
        assert new.run is not None
        self._must(old.run is None or new.run.fence >= old.run.fence, "the fence fell")
        states = [step.state for step in new.steps]
        begun = [at for at, state in enumerate(states) if state is not StepState.PENDING]
        self._must(begun == list(range(len(begun))), f"steps begin out of their order: {states}")
        self._must(
            sum(state in (StepState.DOING, StepState.WAITING) for state in states) <= 1, f"two at once: {states}"
        )
        if old.run is not None and old.run.number == new.run.number:
            for was, now, step in zip(old.steps, new.steps, self.spec.steps, strict=True):
                if step.undoes() and now.attempt > was.attempt > 0:
                    undone = was.state in (StepState.UNDOING, StepState.UNDONE)
                    self._must(undone, f"{step.name} is tried again, and was {was.state}")
                if step.irreversible and was.state is StepState.DONE:
                    self._must(now.state is StepState.DONE, f"{step.name} cannot be undone, and is {now.state}")
        if new.phase is Phase.SUCCEEDED and new.reason != Reason.ALREADY:
            self._must(set(states) == {StepState.DONE}, f"Succeeded with {states}")
        if new.phase is Phase.ROLLED_BACK:
            self._must(not set(states) & TOUCHED, f"RolledBack with {states}")

    # --- targets ------------------------------------------------------------------------------------------------------

    def _target_changed(self, ref: Ref, part: str, before: Json, after: Json) -> None:
        status = self.status
        touched = [
            (at, step)
            for at, step in enumerate(self.spec.steps)
            if at < len(status.steps)
            and status.steps[at].state in TOUCHED
            and ref in [target.ref(NAMESPACE) for target in step.kind.touches()]
        ]
        # What another writer has changed is set again on a resume, also at the very end.
        between = status.reason in _BETWEEN_STEPS and ref not in self.edited
        announced = status.phase in ACTIVE and not between and touched
        self._must(announced, f"{ref} is written though the plan is {status.phase} ({status.reason}), {status.current}")
        if ref.resource == DEPLOYMENTS:
            self._keeps_capacity(ref, before.get("replicas", 1), after.get("replicas", 1))
        for path, was, _ in differences(before, after, (part,)):
            self._must(was != FOREIGN, f"{readable(path)} of {ref} was somebody else's, and is overwritten")
        if not announced or ref in self.edited:
            return
        if ref.resource in (VIRTUAL_SERVICES, HTTP_ROUTES):
            weight = self.shares[V2]
            self._must(weight in self._weights(touched), f"weight {weight} was not announced")
        assert status.run is not None
        current = status.current
        step = next((step for step in status.steps if current is not None and step.name == current.step), None)
        if step is None:
            return
        for path, _, value in differences(before, after, (part,)):
            way = "undo" if step.state is StepState.UNDOING else "do"
            key = (self._uid, status.run.number, step.name, step.attempt, way, ref, readable(path), str(value))
            self._writes[key] += 1
            self._must(self._writes[key] == 1, f"done twice: {key}")

    def _keeps_capacity(self, ref: Ref, had: int, has: int) -> None:
        """No pods are taken from a side beyond its share of the traffic, nor while requests may still come to it.

        Where a person has moved traffic, a write may be late.
        """
        if has >= had or ref not in self.shares or self.edited & {ref, self.moves}:
            return
        share, now = self.shares[ref], self._cluster.clock.now()
        self._must(100 * has >= share * had, f"{ref} goes from {had} to {has} replicas with weight {share}")
        rest = self.drained.get(ref, now) - now
        self._must(
            rest <= timedelta() or self.lost, f"{ref} goes from {had} to {has} replicas {rest} before it has drained"
        )

    def _moves_traffic(self, had: dict[Ref, int]) -> None:
        """A side gets more only while a pod of it is ready; from then on the other one drains."""
        for side, share in self.shares.items():
            if share < had[side]:
                self.drained[side] = self._cluster.clock.now() + self._drain
            if share > had[side] and not self.blind and self.moves not in self.edited:
                self._must(pods_of(self._cluster.objects, side), f"{side} gets {share} of the traffic without a pod")

    def _weights(self, touched: list[tuple[int, Any]]) -> set[int]:
        """What the new side may have: what it had, and what the stages have given it that were announced so far."""
        found, status = {0}, self.status
        for at, step in touched:
            weights = step.kind.weights
            current = status.current
            if status.steps[at].state is not StepState.DONE and current and current.step == step.name and current.stage:
                weights = weights[: int(current.stage.partition("/")[0])]
            found |= {weight if step.kind.to.host == "shop-v2" else 100 - weight for weight in weights}
        return found
