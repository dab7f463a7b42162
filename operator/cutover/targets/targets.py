"""The targets of a plan as a kind sees them: snapshot, change, confirm. With `claims.py`, every write to a target is made here.

A write is a JSON patch that tests the claim, the fence, and for each field the value it replaces, which must be the
snapshot's or one of ours. So a write that arrives late (of a paused process, or one whose answer was lost) fails: on the
fence when another attempt, undo or process came after it, on the value when a later stage of the same attempt did.
Called by the kinds (snapshot, change) and by the commands of the engine (claim, release).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cutover.errors import Conflict, Denied, NotFound, Rejected
from cutover.field_path import Change, Json, Operation, Path, find, readable, same_version
from cutover.ports import PLAN_LABEL, SNAPSHOTS, Ref
from cutover.targets.claims import FENCE_AT, PLAN_AT, TRIES, Claims
from cutover.targets.fields import Foreign, operations_for, undisputed
from cutover.targets.ownership import given_back, owners_of
from cutover.targets.snapshots import Snapshot, labels, read, write_over, written

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Targets(Claims):
    """The targets of one plan, as one command sees them.

    Args:
        cluster: the API server.
        owner: who writes.
        step: name of the step, part of the snapshots' names.
        cache: snapshots read or written before in this run, so that they are not read again.
        claimed: objects as the claim of this run has left them, until somebody wants them.
    """

    step: str = ""
    cache: dict[str, Snapshot] = field(default_factory=dict)
    claimed: dict[Ref, Json] = field(default_factory=dict)

    async def with_owners(self, ref: Ref) -> Json:
        """An object with the owners of its fields, which no stream keeps: as the claim has left it, or read now.

        Only for who asks the server whether it is still at that version.
        """
        return self.claimed.pop(ref, None) or await self.cluster.get(ref)

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot_of(self, ref: Ref) -> Ref:
        """The ControllerRevision that stores the snapshot which this step takes of an object in this run."""
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
        """Whether this process has taken or read the snapshot in this run."""
        return self.snapshot_of(ref).name in self.cache

    async def snapshot(
        self,
        ref: Ref,
        body: Json,
        paths: Sequence[Path],
        facts: Mapping[str, Any] | None = None,
        ours: Sequence[Json] = (),
    ) -> Snapshot:
        """Store the fields as they are in `body`, once: a snapshot that exists already is the one that counts.

        It is taken before the first write of the step. A second one would store what the step itself has written.
        """
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
        owners = owners_of(body, paths)
        taken = Snapshot(body["metadata"]["uid"], tuple(values), dict(facts or {}), tuple(ours), tuple(owners))
        marks = labels(self.owner.uid, self.owner.run)
        manifest = {
            "apiVersion": SNAPSHOTS.api_version,
            "kind": SNAPSHOTS.kind,
            "metadata": {"name": name, "namespace": ref.namespace, "labels": marks},
            "revision": 1,
            "data": written(taken, ref, self.step),
        }
        try:
            made = await self.cluster.create(SNAPSHOTS, ref.namespace, manifest)
        except Conflict:  # taken just before a crash, or by a request whose answer was lost
            existing = await self.saved(ref)
            if existing is None:
                raise
            return existing
        taken = self.cache[name] = replace(taken, version=made["metadata"]["resourceVersion"])
        return taken

    # --- changes ------------------------------------------------------------------------------------------------------

    async def change(self, ref: Ref, uid: str, changes: Sequence[Change], looked: Json = None) -> Json:
        """Bring fields to their values and return the object as it is then; no write when nothing is to change.

        `looked` is the body of the object from which the changes were computed.

        Raises:
            Foreign: a field has a value that is neither the snapshot's nor ours, or the object is no longer ours.
            Rejected: the server refuses the object; its text says why.
            Superseded, NotFound, Denied, Unavailable: as the names say.
        """
        body, refused = looked or self.cluster.seen(ref), ""
        for _ in range(TRIES):
            body = body or await self.cluster.get(ref)
            operations = await self._operations(ref, uid, body, changes)
            if not operations:
                return body
            if operations[0] == same_version(body):  # its labels are gone, so no fence would make a late write fail
                await self.still_ours()
            try:
                return await self.cluster.patch(ref, operations, self.owner.account)
            except Rejected as rejected:
                # A failed test, a missing path and an invalid object look alike. Only a read tells them apart: where
                # the same operations come out of what is there now, no test can have failed.
                refused, before = str(rejected), operations
                body = await self.cluster.get(ref)
                if await self._operations(ref, uid, body, changes) == before:
                    raise Rejected(f"the server refuses {ref}: {refused}") from rejected
        raise Conflict(
            f"{ref} changed at each of {TRIES} attempts to write it ({refused}); retrying, find out what keeps changing it"
        )

    async def restore(self, ref: Ref, uid: str, changes: Sequence[Change]) -> Json:
        """As `change`, but a field that another writer has changed keeps none of the others from going back.

        Raises:
            Foreign: as for `change`; what nobody else has changed is back by then.
        """
        try:
            return await self.change(ref, uid, changes)
        except Foreign as foreign:
            if foreign.reason != "ForeignChange":
                raise
            body = await self.cluster.get(ref)
            # Without the keys of others the rest of a map may be nothing that the server accepts; then all of it stays.
            for by_key in (True, False):
                with suppress(Rejected):
                    await self.change(ref, uid, undisputed(body, changes, by_key=by_key))
                    break
            raise

    async def confirm(self, ref: Ref, uid: str, changes: Sequence[Change]) -> Json:
        """Read the object back after an undo, check that every field has its value, and give the fields back to their owners.

        Raises:
            Rejected: a field has another value of ours or of the snapshot: another writer sets it again.
            Foreign, Superseded, NotFound, Unavailable: as for `change`.
        """
        for _ in range(TRIES):
            if await self._operations(ref, uid, body := await self.cluster.get(ref), changes):
                raise Rejected(f"{ref} does not keep what was written to it; find out which other writer sets it back")
            snapshot = await self.saved(ref)
            owned = given_back(body, snapshot.owners) if snapshot else None
            if owned is None:
                return body
            # At this version: the whole list is written, with what others have come to own since the snapshot.
            write: Operation = {"op": "add", "path": "/metadata/managedFields", "value": owned}
            try:
                await write_over(self.cluster, ref, body, [*self._fenced(self.owner.fence), write], self.owner.account)
            except Conflict:
                continue
            except (Denied, Rejected) as refused:  # the values are back, and earlier undos must not wait for the rest
                log.warning("fields are not given back to their owners", extra={"of": str(ref), "why": str(refused)})
            return body
        raise Conflict(f"{ref} changed at each of {TRIES} attempts to give its fields back to their owners")

    async def _operations(self, ref: Ref, uid: str, body: Json, changes: Sequence[Change]) -> list[Operation]:
        metadata = body["metadata"]
        if metadata["uid"] != uid:
            raise Foreign("TargetReplaced", f"{ref} was deleted and created again")
        owner = (metadata.get("labels") or {}).get(PLAN_LABEL)
        if owner is None:
            return self._reclaim_operations(ref, body, changes)
        if owner != self.owner.uid:
            raise Foreign("ClaimLost", f"{ref} is claimed by another plan, with uid {owner}")
        fence = await self.fence_of(ref, body)
        if fence is None:
            return self._reclaim_operations(ref, body, changes)
        writes = operations_for(ref, body, changes)
        if fence == self.owner.fence and not writes:
            return []
        # The tests come first: the claim and the fence as they were read, then, in `writes`, each value that is replaced.
        operations = self._fenced(fence)
        if fence < self.owner.fence:
            operations.append({"op": "add", "path": FENCE_AT, "value": str(self.owner.fence)})
        return operations + writes

    def _fenced(self, fence: int) -> list[Operation]:
        return [
            {"op": "test", "path": PLAN_AT, "value": self.owner.uid},
            {"op": "test", "path": FENCE_AT, "value": str(fence)},
        ]

    def _reclaim_operations(self, ref: Ref, body: Json, changes: Sequence[Change]) -> list[Operation]:
        """Our labels were removed, perhaps by a write of the whole object: claim it again only if nothing else was changed."""
        try:
            writes = operations_for(ref, body, changes)
        except Foreign as foreign:
            raise Foreign("ClaimLost", f"the label {PLAN_LABEL} was removed from {ref}, and {foreign}") from foreign
        return self.reclaim_operations(body) + writes

    async def fence(self, ref: Ref) -> None:
        """Raise the fence on an object that needs no other write, so that a late write of an earlier attempt fails."""
        try:
            body = await self.view(ref)
            await self.change(ref, body["metadata"]["uid"], ())
        except NotFound:
            return
