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


class CrdCheck:
    """What the CRD in force lacks.

    Args:
        read: reads the CRD.
        changed: called with what it lacks, at first and whenever that changes.
        every: seconds between two reads of a CRD that lacks nothing.
        soon: seconds between two reads of one that lacks something, and the minimum.

    Attributes:
        first: set as soon as it was read, or may not be.
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
        self._gap, self._unknown, self._lost = CrdGap(), "", set[str]()
        self._version: str | None = None
        self._look_now = asyncio.Event()
        self.first = asyncio.Event()

    def dropped(self, paths: Sequence[str]) -> None:
        """A save has lost these fields, so the CRD is not what it was when it was last read."""
        if not self._lost.issuperset(paths):
            self._lost.update(paths)
            self._look_now.set()

    def problem(self) -> str:
        """Why no run may begin or go forward; empty when it may."""
        return (
            self._gap.problem if self.first.is_set() else f"the CustomResourceDefinition {NAME} has not been read yet"
        )

    def remark(self) -> str:
        """What there is to say of the CRD; empty when it lacks nothing."""
        return self._gap.remark or self._unknown

    async def run(self) -> None:
        """Compare, until cancelled."""
        while True:
            self._look_now.clear()
            await self._compare()
            again = asyncio.get_running_loop().time() + self._soon
            if self.first.is_set() and not self._gap.paths:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._look_now.wait(), self._every)
            await asyncio.sleep(again - asyncio.get_running_loop().time())

    async def _compare(self) -> None:
        try:
            crd = await self._read()
        except Unavailable as error:  # nothing is known, so what was known stays
            log.warning("the CRD cannot be read now", extra={"crd": NAME, "why": str(error)})
            return
        except OutsideError as error:
            self._take(
                CrdGap.of(self._lost), f"whether the CustomResourceDefinition {NAME} is outdated is not known: {error}"
            )
            return
        self._lost.clear()
        if crd["metadata"]["resourceVersion"] != self._version or self._unknown:
            self._version = crd["metadata"]["resourceVersion"]
            self._take(gap_of(crd), "")

    def _take(self, gap: CrdGap, unknown: str) -> None:
        before, told = self.remark(), self.first.is_set()
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
