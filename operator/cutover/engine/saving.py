"""Saves the status of a plan and publishes the events of a turn. Called by the driver, and where a plan has no readable spec.

What matters is saved at once. What a crash may lose (samples, messages of waiting) is saved along with the next thing that
matters, or when what is shown has changed, at most every ten seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from cutover.engine.command_context import RunCache
from cutover.engine.plan_cache import PlanCache, visible_part
from cutover.field_path import Json
from cutover.plan.crd_gap import dropped
from cutover.plan.spec import Plan
from cutover.plan.status_document import read_status, write_status
from cutover.ports import Ports, Ref
from cutover.saga.turn import Turn
from cutover.status.conditions import present
from cutover.status.durable import durable_part
from cutover.status.status import Status

LAZY: Final = timedelta(seconds=10)
"""How often at most what a crash may lose is saved for its own sake."""


class Saver:
    """Saves and publishes for all plans of this process.

    Args:
        ports: the outside.
        report_dropped: called with the paths of what the API server has dropped of a save.
    """

    def __init__(self, ports: Ports, report_dropped: Callable[[Sequence[str]], None]) -> None:
        self._cluster, self._clock, self._recorder = ports.cluster, ports.clock, ports.recorder
        self._report_dropped = report_dropped

    def must_save(self, cache: PlanCache, status: Status) -> bool:
        """Whether the status has to be saved before anything else is done."""
        return durable_part(present(status, self._clock.now())) != durable_part(cache.saved)

    async def save(self, ref: Ref, cache: PlanCache, status: Status) -> None:
        """Save a status at the version that was read; no request when it is saved already.

        Raises:
            Conflict: another writer has written the plan since.
        """
        now = self._clock.now()
        shown = present(status, now)
        if shown == cache.saved:
            return
        document = write_status(shown)
        cache.unsure = True
        answer = await self._cluster.save_status(ref, cache.version, document)
        cache.unsure = False
        cache.version, cache.saved, cache.status = answer["metadata"]["resourceVersion"], shown, shown
        lost = tuple(dropped(document, answer.get("status")))
        cache.kept = read_status(answer.get("status")) if lost else None
        if lost:
            self._report_dropped(lost)
        cache.saved_at = now
        if shown.run is not None and shown.run.fence > cache.fence:  # saved by us, so this process may act on the run
            if cache.fenced_run != shown.run.number:
                cache.run_cache.taken_over(now)
            cache.fence, cache.fenced_run = shown.run.fence, shown.run.number
        if shown.run is not None and shown.run.number != cache.run:
            cache.run, cache.run_cache = shown.run.number, RunCache()

    async def save_lazily(self, ref: Ref, cache: PlanCache, plan: Plan) -> None:
        """Save what is shown when it has changed, but not often."""
        if self._visible_change(cache, plan) and (cache.saved_at is None or self._clock.now() - cache.saved_at >= LAZY):
            await self.save(ref, cache, cache.status)

    def next_lazy_save(self, cache: PlanCache, plan: Plan, now: datetime) -> timedelta | None:
        """When what is shown should be saved; None when it has not changed."""
        if cache.saved_at is None or not self._visible_change(cache, plan):
            return None
        return max(cache.saved_at + LAZY - now, timedelta(seconds=1))

    def publish(self, body: Json, turn: Turn) -> None:
        """Publish the events of a turn; after its save, so that no event tells of what was not saved."""
        for notice in turn.notices:
            self._recorder.record(body, notice)

    @staticmethod
    def _visible_change(cache: PlanCache, plan: Plan) -> bool:
        return visible_part(cache.status, plan) != visible_part(cache.saved, plan)
