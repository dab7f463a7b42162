"""Snapshots of plans that were deleted: nothing else deletes those that their plan did not own, or that were orphaned.

Called by the driver, after the turn of a plan that has the name now: what belongs to its predecessor never delays it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cutover.errors import Unavailable
from cutover.ports import Clock, Cluster, Ref
from cutover.targets import snapshots

_TRY_EVERY: Final = timedelta(seconds=30)


class FormerPlans:
    """The deleted plans of each name whose snapshots are still to be deleted, in memory only: a process that starts sweeps."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster, self._clock = cluster, clock
        self._uids: dict[Ref, list[str]] = {}
        self._next: dict[Ref, datetime] = {}

    def add(self, ref: Ref, uid: str) -> None:
        """A plan of this name is gone, and that is certain."""
        self._uids.setdefault(ref, []).append(uid)

    async def drop(self, ref: Ref) -> None:
        """Delete what they have left.

        Raises:
            Unavailable: no answer; what is left is still known.
        """
        while uids := self._uids.get(ref):
            uid = uids[0]
            await snapshots.drop_all(self._cluster, ref.namespace, uid)
            uids.remove(uid)  # by its value: another one may have been added meanwhile
        self._uids.pop(ref, None)
        self._next.pop(ref, None)

    async def try_to_drop(self, ref: Ref) -> timedelta | None:
        """The same, beside a plan that has the name now; when to try again, or None when nothing is left."""
        if ref not in self._uids:
            return None
        now = self._clock.now()
        if now >= self._next.get(ref, now):
            try:
                await self.drop(ref)
            except Unavailable:
                self._next[ref] = self._clock.now() + _TRY_EVERY
            else:
                return None
        return max(self._next[ref] - now, timedelta())
