"""The objects a plan changes: claim, fence, snapshot, compare, restore. Every write to a target is made here.

A write is a JSON patch that tests the claim, the fence, and for each field the value it replaces, which must be the
snapshot's or one of ours. So a write that arrives late (of a paused process, or one whose answer was lost) fails: on the
fence when another attempt, undo or process came after it, on the value when a later stage of the same attempt did.
Used by the driver (claim, release) and by the kinds (snapshot, change).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from cutover.errors import Conflict, NotFound, Rejected, Superseded
from cutover.field_path import Change, Json, Operation, Path, escape, find, in_order, readable, same_version, write
from cutover.ports import APPLIED_LABEL, FENCE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, Cluster, Ref
from cutover.status.status import ACTIVE
from cutover.targets.foreign import fenced_by_hand, gone, says
from cutover.targets.snapshots import Snapshot, labels, read, written

_PLAN_AT: Final = f"/metadata/labels/{escape(PLAN_LABEL)}"
_FENCE_AT: Final = f"/metadata/labels/{escape(FENCE_LABEL)}"
_APPLIED_AT: Final = f"/metadata/labels/{escape(APPLIED_LABEL)}"
_TRIES: Final = 4


class Foreign(Exception):
    """Somebody else changed what we were about to change. Nothing was written.

    Attributes:
        reason: ForeignChange, ClaimLost or TargetReplaced.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Busy(Exception):
    """Another plan that is still active holds the target."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes: one run of one plan. `fence` is the number of `status.run.fence`."""

    plan: Ref
    uid: str
    run: int
    fence: int
    account: str

    @property
    def namespace(self) -> str:
        """Of the plan and all it touches."""
        return self.plan.namespace


@dataclass(slots=True)
class Targets:
    """The targets of one plan, as one command sees them.

    Args:
        cluster: the API server.
        owner: who writes.
        step: name of the step, part of the snapshots' names.
        cache: snapshots read or written before in this run, so that they are not read again.
    """

    cluster: Cluster
    owner: Owner
    step: str = ""
    cache: dict[str, Snapshot] = field(default_factory=dict)

    async def view(self, ref: Ref) -> Json:
        """The object as streamed, or read now when it is not streamed. Raises NotFound."""
        return self.cluster.seen(ref) or await self.cluster.get(ref)

    # --- claims -------------------------------------------------------------------------------------------------------

    async def claim(self, ref: Ref) -> None:
        """Mark an object as ours; harmless when it is already.

        The patch tests `resourceVersion`, because an absent map of labels cannot be tested into.

        Raises:
            Busy: another active plan holds it.
            Superseded: this run is over, or another process has it.
            Foreign: somebody wrote a fence of their own on it.
            NotFound: it is gone.
            Conflict: it changed at every try.
        """
        for _ in range(_TRIES):
            body = await self.cluster.get(ref)
            owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
            if owner == self.owner.uid and await self._fence_of(ref, body) == self.owner.fence:
                return
            if owner not in (None, self.owner.uid) and (plan := await self._active_plan(ref.namespace, owner)):
                raise Busy(f"{ref} is claimed by plan {plan}")
            await self.still_ours()
            if await self._mark(ref, body, self._claiming(body)):
                return
        raise Conflict(f"{ref} changed at each of {_TRIES} tries to claim it")

    async def still_ours(self) -> None:
        """Ask live whether this run goes on and nobody else has taken it over: no fence guards an object without marks.

        Asked after the object was read and before it is written at that version, so a process that slept meanwhile fails
        here or there.

        Raises:
            Superseded: it does not, or somebody has.
        """
        try:
            plan = await self.cluster.get(self.owner.plan)
        except NotFound:
            raise Superseded("the plan is gone") from None
        status = plan.get("status") or {}
        run = status.get("run") or {}
        if (
            plan["metadata"]["uid"] != self.owner.uid
            or status.get("phase") not in ACTIVE
            or (run.get("number"), run.get("fence", 0)) != (self.owner.run, self.owner.fence)
        ):
            raise Superseded("another process has this plan, or it has ended")

    async def _mark(self, ref: Ref, body: Json, operations: list[Operation]) -> bool:
        """Write marks; false when the object has changed meanwhile.

        Raises:
            Rejected: it has not, so the server refuses the marks themselves; its text says why.
        """
        try:
            await self.cluster.patch(ref, operations, self.owner.account)
        except Conflict:
            return False
        except Rejected as refused:
            now = await self.cluster.get(ref)
            if now["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
                raise Rejected(f"the server refuses the marks on {ref}: {refused}") from refused
            return False
        return True

    def _claiming(self, body: Json) -> list[Operation]:
        metadata = body["metadata"]
        operations = [same_version(body)]
        if metadata.get("labels") is None:
            operations.append({"op": "add", "path": "/metadata/labels", "value": {}})
        operations.append({"op": "add", "path": _PLAN_AT, "value": self.owner.uid})
        operations.append({"op": "add", "path": _FENCE_AT, "value": str(self.owner.fence)})
        return operations

    def may_take(self, body: Json) -> bool:
        """Whether no other plan has claimed an object: what stands in it is then nobody's work under way."""
        return (body["metadata"].get("labels") or {}).get(PLAN_LABEL) in (None, self.owner.uid)

    async def claimed_by(self, ref: Ref) -> str:
        """The active plan other than ours that holds an object; empty when it is free. Raises NotFound."""
        body = await self.cluster.get(ref)
        owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
        return await self._active_plan(ref.namespace, owner) if owner not in (None, self.owner.uid) else ""

    async def release(self, ref: Ref, applied: str | None = None, *, fenced: bool = True) -> None:
        """Take our claim away; harmless when it is gone, or the object is.

        Args:
            ref: the object.
            applied: the mark of a success to leave there; empty to take one away, None to leave it as it is.
            fenced: raise Superseded when a higher fence than ours stands there.
        """
        for again in range(_TRIES):
            try:
                body = await (self.cluster.get(ref) if again else self.view(ref))  # the patch tests how old it is
                labels = body["metadata"].get("labels") or {}
                if labels.get(PLAN_LABEL) != self.owner.uid:
                    return
                if fenced:
                    with suppress(Foreign):  # a number that is nobody's keeps no claim
                        await self._fence_of(ref, body)
                operations: list[Operation] = [
                    same_version(body),
                    {"op": "remove", "path": _PLAN_AT},
                ]
                if FENCE_LABEL in labels:
                    operations.append({"op": "remove", "path": _FENCE_AT})
                if applied:
                    operations.append({"op": "add", "path": _APPLIED_AT, "value": applied})
                elif applied is not None and APPLIED_LABEL in labels:
                    operations.append({"op": "remove", "path": _APPLIED_AT})
                if await self._mark(ref, body, operations):
                    return
            except NotFound:
                return
        raise Conflict(f"{ref} changed at each of {_TRIES} tries to release it")

    async def _active_plan(self, namespace: str, uid: str) -> str:
        """The name of the plan that rightly holds a claim, asked live; empty when the claim is void."""
        for plan in await self.cluster.list(PLANS, namespace):
            if plan["metadata"]["uid"] == uid:
                phase = plan.get("status", {}).get("phase")
                return str(plan["metadata"]["name"]) if phase in ACTIVE else ""
        return ""

    async def _fence_of(self, ref: Ref, body: Json) -> int | None:
        """The number on an object; None when somebody took it away or wrote no number.

        Raises:
            Superseded: it is higher than ours, and of another process that has this plan.
            Foreign: it is higher than ours, and the plan is still in our hands: somebody wrote it there.
        """
        text = (body["metadata"].get("labels") or {}).get(FENCE_LABEL, "")
        if not text.isdecimal():
            return None
        fence = int(text)
        if fence > self.owner.fence:
            await self.still_ours()
            raise Foreign("ClaimLost", fenced_by_hand(ref, fence, self.owner.fence))
        return fence

    async def fence(self, ref: Ref) -> None:
        """Raise the fence on an object that needs no other write, so that a late write of an earlier attempt fails."""
        try:
            body = await self.view(ref)
            await self.change(ref, body["metadata"]["uid"], ())
        except NotFound:
            return

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot_of(self, ref: Ref) -> Ref:
        """What keeps the snapshot that this step takes of an object in this run."""
        what = hashlib.sha256(f"{self.step}/{ref.resource.kind}/{ref.name}".encode()).hexdigest()[:10]
        return Ref(SNAPSHOTS, ref.namespace, f"cutover-{self.owner.uid[:8]}-{self.owner.run}-{what}")

    async def saved(self, ref: Ref) -> Snapshot | None:
        """The snapshot that this step took of an object in this run; None when it took none, so wrote nothing."""
        name = self.snapshot_of(ref).name
        if name not in self.cache:
            try:
                body = await self.cluster.get(self.snapshot_of(ref))
            except NotFound:
                return None
            self.cache[name] = read(body)
        return self.cache[name]

    def remembers(self, ref: Ref) -> bool:
        """Whether this process has had the snapshot in its hands."""
        return self.snapshot_of(ref).name in self.cache

    async def snapshot(
        self,
        ref: Ref,
        body: Json,
        paths: Sequence[Path],
        facts: Mapping[str, Any] | None = None,
        ours: Sequence[Json] = (),
    ) -> Snapshot:
        """Remember fields as they are in `body`, once: a snapshot that exists already is the one that counts."""
        name = self.snapshot_of(ref).name
        known = self.cache.get(name)
        if known is not None:
            return known
        values = []
        for path in paths:
            found = find(body, path)
            if found is None:
                raise Foreign("TargetReplaced", f"{ref} has no {readable(path)}")
            values.append((path, found.value))
        taken = Snapshot(body["metadata"]["uid"], tuple(values), dict(facts or {}), tuple(ours))
        marks = labels(self.owner.uid, self.owner.run)
        manifest = {
            "apiVersion": SNAPSHOTS.api_version,
            "kind": SNAPSHOTS.kind,
            "metadata": {"name": name, "namespace": ref.namespace, "labels": marks},
            "revision": 1,
            "data": written(taken, ref, self.step),
        }
        try:
            await self.cluster.create(SNAPSHOTS, ref.namespace, manifest)
        except Conflict:  # taken just before a crash, or by a write whose answer was lost
            kept = await self.saved(ref)
            if kept is None:
                raise
            return kept
        self.cache[name] = taken
        return taken

    # --- changes ------------------------------------------------------------------------------------------------------

    async def change(self, ref: Ref, uid: str, changes: Sequence[Change], looked: Json = None) -> Json:
        """Bring fields to their values and return the object as it is then; no write when nothing is to change.

        `looked` is the look at the object from which the changes were worked out.

        Raises:
            Foreign: a field has a value that is neither the snapshot's nor ours, or the object is no longer ours.
            Rejected: the server refuses the object; its text says why.
            Superseded, NotFound, Denied, Unavailable: as the names say.
        """
        body, refused = looked or self.cluster.seen(ref), ""
        for _ in range(_TRIES):
            body = body or await self.cluster.get(ref)
            operations = await self._operations(ref, uid, body, changes)
            if not operations:
                return body
            if operations[0] == same_version(body):  # it has lost its marks, so nothing on it tells who is late
                await self.still_ours()
            try:
                return await self.cluster.patch(ref, operations, self.owner.account)
            except Rejected as rejected:
                # A failed test, a missing path and an invalid object look alike: only another read can tell.
                refused, before = str(rejected), operations
                body = await self.cluster.get(ref)
                if await self._operations(ref, uid, body, changes) == before:
                    raise Rejected(f"the server refuses {ref}: {refused}") from rejected
        raise Conflict(f"{ref} changed at each of {_TRIES} tries to write it: {refused}")

    async def confirm(self, ref: Ref, uid: str, changes: Sequence[Change]) -> Json:
        """Read the object back, see that every field has its value, and return it.

        Raises:
            Rejected: one has not, and the value it has is of ours or the snapshot's: something puts it back.
            Foreign, Superseded, NotFound, Unavailable: as for `change`.
        """
        if await self._operations(ref, uid, body := await self.cluster.get(ref), changes):
            raise Rejected(f"{ref} does not keep what was written to it; find out who puts it back")
        return body

    async def _operations(self, ref: Ref, uid: str, body: Json, changes: Sequence[Change]) -> list[Operation]:
        metadata = body["metadata"]
        if metadata["uid"] != uid:
            raise Foreign("TargetReplaced", f"{ref} was deleted and made anew")
        owner = (metadata.get("labels") or {}).get(PLAN_LABEL)
        if owner is None:
            return self._claiming_again(ref, body, changes)
        if owner != self.owner.uid:
            raise Foreign("ClaimLost", f"{ref} is claimed by another plan, with uid {owner}")
        fence = await self._fence_of(ref, body)
        if fence is None:
            return self._claiming_again(ref, body, changes)
        writes = _writes(ref, body, changes)
        if fence == self.owner.fence and not writes:
            return []
        operations: list[Operation] = [
            {"op": "test", "path": _PLAN_AT, "value": self.owner.uid},
            {"op": "test", "path": _FENCE_AT, "value": str(fence)},
        ]
        if fence < self.owner.fence:
            operations.append({"op": "add", "path": _FENCE_AT, "value": str(self.owner.fence)})
        return operations + writes

    def _claiming_again(self, ref: Ref, body: Json, changes: Sequence[Change]) -> list[Operation]:
        """Somebody took our labels off, perhaps by writing the whole object: go on only if nothing else was changed."""
        try:
            writes = _writes(ref, body, changes)
        except Foreign as foreign:
            raise Foreign("ClaimLost", f"somebody took the label {PLAN_LABEL} off {ref}, and {foreign}") from foreign
        return self._claiming(body) + writes

    async def claim_again(self, ref: Ref, expected: Sequence[Change]) -> None:
        """Mark an object once more whose labels were taken off, if each field has a value of ours or of the snapshot.

        Raises:
            Foreign: a field has another value, or another plan has claimed the object.
            NotFound, Conflict, Denied, Rejected, Unavailable: as the names say.
        """
        for _ in range(_TRIES):
            body = await self.cluster.get(ref)
            _writes(ref, body, expected)  # raises where a field has another value
            owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
            if owner == self.owner.uid:
                return
            if owner is not None:
                raise Foreign("ClaimLost", f"{ref} is claimed by another plan, with uid {owner}")
            await self.still_ours()
            if await self._mark(ref, body, self._claiming(body)):
                return
        raise Conflict(f"{ref} changed at each of {_TRIES} tries to claim it again")


def _writes(ref: Ref, body: Json, changes: Sequence[Change]) -> list[Operation]:
    """What brings the fields to their values; nothing twice (a new map)."""
    writes = list[Operation]()
    for change in changes:
        writes += [operation for operation in _operations_of(ref, body, change) if operation not in writes]
    return in_order(writes)


def _operations_of(ref: Ref, body: Json, change: Change) -> list[Operation]:
    found = find(body, change.path)
    if found is None:
        raise Foreign("ForeignChange", gone(ref, change))
    if found.value == change.to:
        return []
    if found.value not in change.expects:
        raise Foreign("ForeignChange", says(ref, change, found))
    return write(found, change.to)
