"""The claim on a target, and the fence that stands beside it: set, tested, set again, taken off. Two labels on the object.

Nothing else of an object is written here. Called by the commands of the engine, and through `Targets` by every change.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from cutover.errors import Conflict, NotFound, Rejected, Superseded
from cutover.field_path import Change, Json, Operation, escape, same_version
from cutover.ports import APPLIED_LABEL, FENCE_LABEL, PLAN_LABEL, PLANS, Cluster, Ref
from cutover.status.state import State
from cutover.status.status import ACTIVE
from cutover.targets.fields import Foreign, operations_for
from cutover.targets.foreign import fenced_by_hand

PLAN_AT: Final = f"/metadata/labels/{escape(PLAN_LABEL)}"
FENCE_AT: Final = f"/metadata/labels/{escape(FENCE_LABEL)}"
_APPLIED_AT: Final = f"/metadata/labels/{escape(APPLIED_LABEL)}"
TRIES: Final = 4
"""How often a write that lost a race against another writer is computed again in one command."""


class Busy(Exception):
    """Another plan that is still active has claimed the target."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Who writes: one run of one plan.

    Attributes:
        fence: `status.run.fence` as it was saved.
        applied: the label of a success of this run. A target has it only once it is released; empty where it may be of an earlier run.
        state: `status.state` as it was saved; None where it is not known.
    """

    plan: Ref
    uid: str
    run: int
    fence: int
    account: str
    applied: str = ""
    state: State | None = None

    @property
    def namespace(self) -> str:
        """The namespace of the plan and of all its targets."""
        return self.plan.namespace


@dataclass(slots=True)
class Claims:
    """The claims of one plan, as one command sees them.

    Args:
        cluster: the API server.
        owner: who writes.
    """

    cluster: Cluster
    owner: Owner

    async def view(self, ref: Ref) -> Json:
        """The object as streamed, or read now when it is not streamed. Raises NotFound."""
        return self.cluster.seen(ref) or await self.cluster.get(ref)

    async def claim(self, ref: Ref, examined: Json = None) -> Json | None:
        """Claim an object for our plan; harmless when it is claimed already.

        The patch tests `resourceVersion`: a JSON patch cannot test that labels are absent. `examined` is the object as this process
        has read it before, unclaimed; where it is still at that version, it need not be read again.

        Returns:
            The object as the claim has left it; None where it was claimed already.

        Raises:
            Busy: another active plan has claimed it.
            Superseded: this run is over, or another process has it.
            Foreign: another writer has changed the number of the fence.
            NotFound: it is gone.
            Conflict: it changed at every try.
        """
        for _ in range(TRIES):
            body, examined = examined or await self.cluster.get(ref), None
            owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
            if owner == self.owner.uid and await self.fence_of(ref, body) == self.owner.fence:
                return None
            if owner not in (None, self.owner.uid) and (plan := await self._active_plan(ref.namespace, owner)):
                raise Busy(f"{ref} is claimed by plan {plan}")
            # After the read and before the write: see `still_ours`.
            await self.still_ours()
            if (claimed := await self._write_labels(ref, body, self.claim_operations(body))) is not None:
                return claimed
        raise Conflict(
            f"{ref} changed at each of {TRIES} attempts to claim it; retrying, find out what keeps changing it"
        )

    async def still_ours(self) -> None:
        """Ask the API server whether this run is still active and driven by this process.

        An object without our labels has no fence that could make a late write fail. So this is asked after the object was
        read and before it is written at that version: a process that was suspended in between fails here, or on the version.

        The state is compared too. A process that has just begun has the fence as the one before it has saved it; where that one
        has announced its release by now, an object without our labels is one that it has released.

        Raises:
            Superseded: it has ended, it has gone on without this process, or another process drives it.
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
            # A CRD that is older than this process may have no such field.
            or self.owner.state not in (None, status.get("state", self.owner.state))
        ):
            raise Superseded("another process drives this plan, or its run has ended")

    async def _write_labels(self, ref: Ref, body: Json, operations: list[Operation]) -> Json | None:
        """Write our labels; the object then, or None when it has changed since it was read.

        Raises:
            Rejected: it has not changed, so the server refuses the labels themselves; its text says why.
        """
        try:
            return await self.cluster.patch(ref, operations, self.owner.account)
        except Conflict:
            return None
        except Rejected as refused:
            now = await self.cluster.get(ref)
            if now["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
                raise Rejected(f"the server refuses the labels of the claim on {ref}: {refused}") from refused
            return None

    def claim_operations(self, body: Json) -> list[Operation]:
        """The patch that sets both labels on an object that is still at the version of `body`."""
        metadata = body["metadata"]
        operations = [same_version(body)]
        if metadata.get("labels") is None:
            operations.append({"op": "add", "path": "/metadata/labels", "value": {}})
        operations.append({"op": "add", "path": PLAN_AT, "value": self.owner.uid})
        operations.append({"op": "add", "path": FENCE_AT, "value": str(self.owner.fence)})
        return operations

    def reclaim_operations(self, body: Json) -> list[Operation]:
        """The same for an object that was claimed before and is not any more.

        A process that was suspended may have released it after all, as of a success, while the run was stopped by another one: the
        mark goes, or a plan that is created again would find its spec applied, and changed since.
        """
        operations, labels = self.claim_operations(body), body["metadata"].get("labels") or {}
        if self.owner.applied and labels.get(APPLIED_LABEL) == self.owner.applied:
            operations.append({"op": "remove", "path": _APPLIED_AT})
        return operations

    @staticmethod
    def unclaimed(body: Json) -> bool:
        """Whether no plan has claimed an object."""
        return PLAN_LABEL not in (body["metadata"].get("labels") or {})

    def unclaimed_by_others(self, body: Json) -> bool:
        """Whether no other plan has claimed an object, so that no value in it belongs to a migration in progress."""
        return (body["metadata"].get("labels") or {}).get(PLAN_LABEL) in (None, self.owner.uid)

    async def claimed_by(self, ref: Ref) -> str:
        """The name of another active plan that has claimed an object; empty when there is none. Raises NotFound."""
        body = await self.cluster.get(ref)
        owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
        return await self._active_plan(ref.namespace, owner) if owner not in (None, self.owner.uid) else ""

    async def release(
        self, ref: Ref, applied: str | None = None, *, fenced: bool = True, asked: str | None = None
    ) -> None:
        """Remove our claim; harmless when it is gone, or the object is.

        Args:
            ref: the object.
            applied: the value for the label of a success; empty removes that label, None leaves it as it is.
            fenced: raise Superseded when the fence on the object is higher than ours.
            asked: the version that everything was seen to stand at; None: any will do.

        Raises:
            Conflict: the object is at another version than `asked`, or it changed at every try.
        """
        for attempt in range(TRIES):
            try:
                body = await self._claimed(ref, read=attempt > 0)
                if body is None:
                    return
                labels = body["metadata"]["labels"]
                if asked not in (None, body["metadata"]["resourceVersion"]):
                    raise Conflict(f"{ref} has changed since this run last looked whether all that it has done stands")
                if fenced:
                    with suppress(Foreign):  # a fence that another writer changed does not keep the claim there
                        await self.fence_of(ref, body)
                if await self._write_labels(ref, body, _release_operations(body, labels, applied)) is not None:
                    return
            except NotFound:
                return
        raise Conflict(
            f"{ref} changed at each of {TRIES} attempts to release it; retrying, find out what keeps changing it"
        )

    async def _claimed(self, ref: Ref, *, read: bool) -> Json | None:
        """The object, when our claim is on it, else None. Raises NotFound.

        A streamed body may be old. Where it has our claim, the patch tests its version; where it has not, it may be from before the
        claim, as another process made it, and only a read tells that nothing is to be done.
        """
        seen = None if read else self.cluster.seen(ref)
        if seen is not None and self._is_ours(seen):
            return seen
        body = await self.cluster.get(ref)
        return body if self._is_ours(body) else None

    def _is_ours(self, body: Json) -> bool:
        return (body["metadata"].get("labels") or {}).get(PLAN_LABEL) == self.owner.uid

    async def _active_plan(self, namespace: str, uid: str) -> str:
        """The name of the active plan with this uid, asked of the API server; empty when there is none: the claim is void."""
        for plan in await self.cluster.list(PLANS, namespace):
            if plan["metadata"]["uid"] == uid:
                phase = plan.get("status", {}).get("phase")
                return str(plan["metadata"]["name"]) if phase in ACTIVE else ""
        return ""

    async def fence_of(self, ref: Ref, body: Json) -> int | None:
        """The fence on an object; None when the label is gone or not a number.

        Raises:
            Superseded: it is higher than ours, and another process drives this plan.
            Foreign: it is higher than ours, and this process drives the plan: another writer has changed it.
        """
        text = (body["metadata"].get("labels") or {}).get(FENCE_LABEL, "")
        if not text.isdecimal():
            return None
        fence = int(text)
        if fence > self.owner.fence:
            await self.still_ours()
            raise Foreign("ClaimLost", fenced_by_hand(ref, fence, self.owner.fence))
        return fence

    async def claim_again(self, ref: Ref, expected: Sequence[Change]) -> None:
        """Claim an object whose labels were removed, if each field has a value of ours or of the snapshot.

        Raises:
            Foreign: a field has another value, or another plan has claimed the object.
            NotFound, Conflict, Denied, Rejected, Unavailable: as the names say.
        """
        for _ in range(TRIES):
            body = await self.cluster.get(ref)
            operations_for(ref, body, expected)  # raises Foreign where a field has another value
            owner = (body["metadata"].get("labels") or {}).get(PLAN_LABEL)
            if owner == self.owner.uid:
                return
            if owner is not None:
                raise Foreign("ClaimLost", f"{ref} is claimed by another plan, with uid {owner}")
            await self.still_ours()
            if await self._write_labels(ref, body, self.reclaim_operations(body)) is not None:
                return
        raise Conflict(f"{ref} changed at each of {TRIES} tries to claim it again")


def _release_operations(body: Json, labels: Json, applied: str | None) -> list[Operation]:
    """Both labels go in one patch with the mark of a success, so that no object is ever seen with only one of them."""
    operations: list[Operation] = [same_version(body), {"op": "remove", "path": PLAN_AT}]
    if FENCE_LABEL in labels:
        operations.append({"op": "remove", "path": FENCE_AT})
    if applied:
        operations.append({"op": "add", "path": _APPLIED_AT, "value": applied})
    elif applied is not None and APPLIED_LABEL in labels:
        operations.append({"op": "remove", "path": _APPLIED_AT})
    return operations
