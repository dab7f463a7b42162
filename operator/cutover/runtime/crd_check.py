"""Compares the CustomResourceDefinition in force with the one of this version, at start and from time to time.

Reading it takes the permission to list CRDs, which Kopf needs anyway. Where that is missing, what saves have lost tells
instead. Called by app.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cutover.errors import OutsideError, Unavailable
from cutover.field_path import Json
from cutover.plan.crd_gap import NAME, CrdGap, gap_of

log = logging.getLogger(__name__)

_EVERY: Final = 600.0
"""Seconds between two reads of a CRD that lacks nothing."""
_SOON: Final = 10.0
"""The same for one that does, so that plans continue soon after its upgrade; and the least there is between two reads."""
_PATIENCE: Final = 3
"""So many of these without an answer, and plans are driven all the same: what is under way may have to be rolled back."""
_TRIAL: Final = 6
"""So many of these between two trials whether a CRD that may not be read still drops what saves have lost."""


class CrdCheck:
    """What the CRD in force lacks.

    Args:
        read: reads the CRD.
        changed: called with what it lacks, at first and whenever that changes; also to have what was dropped saved again.
        every: seconds between two reads of a CRD that lacks nothing.
        soon: seconds between two reads of one that lacks something, and the minimum.

    Attributes:
        first: set as soon as it was read, or may not be, or gave no answer for long: then no run begins or goes forward.
    """

    def __init__(
        self,
        read: Callable[[], Awaitable[Json]],
        changed: Callable[[CrdGap], None],
        *,
        every: float = _EVERY,
        soon: float = _SOON,
    ) -> None:
        self._read, self._changed, self._every, self._soon = read, changed, every, soon
        self._trial_at: float | None = None
        self._gap, self._unknown = CrdGap(unread=True), ""
        self._lost, self._lost_lately = set[str](), set[str]()
        self._version: str | None = None
        self._look_now = asyncio.Event()
        self.first = asyncio.Event()

    def dropped(self, paths: Sequence[str]) -> None:
        """A save has lost these fields, so the CRD is not what it was when it was last read."""
        self._lost_lately.update(paths)
        if not self._lost.issuperset(paths):
            self._lost.update(paths)
            self._look_now.set()

    def problem(self) -> str:
        """Why no run may begin or go forward; empty when it may."""
        return self._gap.problem

    def remark(self) -> str:
        """What there is to say of the CRD; empty when it lacks nothing."""
        return self._gap.remark or self._unknown

    async def run(self) -> None:
        """Compare, until cancelled."""
        clock = asyncio.get_running_loop().time
        patient_until = clock() + _PATIENCE * self._soon
        while True:
            self._look_now.clear()
            await self._compare()
            if not self.first.is_set() and clock() >= patient_until:
                self._changed(self._gap)
                self.first.set()
            again = clock() + self._soon
            if not self._gap.unread and not self._gap.paths:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look_now.wait(), self._every)
            await asyncio.sleep(again - clock())

    async def _compare(self) -> None:
        try:
            crd = await self._read()
        except Unavailable as error:  # nothing is known, so what was known stays
            log.warning("the CRD cannot be read now", extra={"crd": NAME, "why": str(error)})
            return
        except OutsideError as error:
            unknown = f"whether the CustomResourceDefinition {NAME} is outdated is not known: {error}"
            self._take(CrdGap.of(self._lost), unknown)
            self._try_what_was_lost()
            return
        self._lost.clear()
        if crd["metadata"]["resourceVersion"] != self._version or self._unknown:
            self._version = crd["metadata"]["resourceVersion"]
            self._take(gap_of(crd), "")

    def _try_what_was_lost(self) -> None:
        """Have it saved again from time to time, and forget what has not been lost again since: nothing else tells of an upgrade.

        It is tried while no plan goes forward. A field that no plan has any more is forgotten too, until it is lost again.
        """
        now = asyncio.get_running_loop().time()
        if not self._lost:
            self._trial_at = None
        elif self._trial_at is None:
            self._trial_at = now + _TRIAL * self._soon
        elif now >= self._trial_at:
            self._lost, self._lost_lately = self._lost & self._lost_lately, set()
            self._trial_at = now + _TRIAL * self._soon
            self._take(CrdGap.of(self._lost), self._unknown)
            if self._lost:
                self._changed(self._gap)

    def _take(self, gap: CrdGap, unknown: str) -> None:
        told = self.first.is_set()
        before = self.remark() if told else ""
        changed = gap != self._gap or not told
        self._gap, self._unknown = gap, unknown
        if self.remark() != before:
            if self.remark():
                log.warning("%s", self.remark())
            else:
                log.info("the CRD is as new as the operator", extra={"crd": NAME})
        if changed:
            self._changed(gap)
        self.first.set()
