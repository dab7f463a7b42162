"""Takes the samples of the current gates, beside the turns, and keeps their tallies. One object per plan, in memory only.

Nothing here blocks: a source that must ask the outside runs in a task of its own, and the plan is woken when the
response is there. A slow or dead server therefore never delays an abort.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from cutover.errors import OutsideError
from cutover.gates import Gate
from cutover.gates.base import GateContext, Pending
from cutover.gates.pace import Pace
from cutover.gates.verdict import Measurement, Rule, Tally, judge, observe
from cutover.status.status import GateStatus, Verdict

Spawn = Callable[[Coroutine[Any, Any, None]], None]


@dataclass(slots=True, eq=False)
class _Watched:
    gate: Any
    rule: Rule
    first: datetime
    next: datetime
    tally: Tally = field(default_factory=Tally)
    asking: bool = False
    booked: bool = False
    pending: Pending | None = None
    context: GateContext | None = None


class Watch:
    """The gates of one stage, or the guards of one run.

    Args:
        spawn: runs a measurement beside the turn.
        wake: called when a measurement is complete.
        pace: of the namespace.
    """

    def __init__(self, spawn: Spawn, wake: Callable[[], None], pace: Pace) -> None:
        self._spawn, self._wake, self._pace = spawn, wake, pace
        self._key: object = None
        self._watched: list[_Watched] = []

    def turn_to(self, key: object, gates: Sequence[Any], since: datetime, *, guard: bool = False) -> None:
        """Watch these gates; with a new key all tallies start again, from `since` on."""
        if key == self._key:
            return
        self.stop()
        self._key = key
        self._watched = [
            _Watched(gate, rule, first, first)
            for gate in gates
            for rule in (gate.rule(guard=guard),)
            for first in (since + gate.source.settle() + gate.initial_delay,)
        ]

    def stop(self) -> None:
        """Watch nothing: responses in progress are discarded, measurements that were started are cancelled, and what is booked is free."""
        for watched in self._watched:
            if watched.booked:
                self._pace.give_back(watched.next)
            if watched.pending is not None and not watched.asking:
                self._spawn(self._cancel(watched, watched.pending))
        self._key, self._watched = None, []

    @property
    def failed(self) -> bool:
        """Whether one of them has failed, so that the next turn will act on it."""
        return any(watched.tally.failed for watched in self._watched)

    async def look(self, context: GateContext) -> tuple[GateStatus, ...]:
        """Start the samples that are due, and return the status of each gate."""
        now = context.clock.now()
        for watched in self._watched:
            if now < watched.first:
                continue
            near = replace(context, interval=watched.rule.interval, gate=watched.rule.name, pending=watched.pending)
            if watched.gate.source.live:
                await self._look_live(watched, near, now)
            elif not watched.asking and (now >= watched.next or _ended(watched, near)) and self._may_ask(watched, now):
                watched.asking = True
                watched.next = now + watched.rule.interval
                self._spawn(self._ask(watched, near))
        return tuple(_status_of(watched, now) for watched in self._watched)

    def _may_ask(self, watched: _Watched, now: datetime) -> bool:
        """Whether its turn has come at the pace of the namespace; otherwise it is asked at the moment that is booked for it."""
        if not watched.booked:
            watched.next = self._pace.book(now)
        watched.booked = now < watched.next
        return not watched.booked

    def next_look(self, now: datetime) -> timedelta | None:
        """When something is due again; None when only an event or a response in progress can change anything."""
        due = [
            moment
            for watched in self._watched
            if not watched.asking
            for moment in (self._due(watched, now),)
            if moment is not None
        ]
        return max(min(due) - now, timedelta()) if due else None

    def _due(self, watched: _Watched, now: datetime) -> datetime | None:
        if now < watched.first:
            return watched.first
        since, sustain = watched.tally.since, watched.rule.sustain
        sustained = since + sustain if since is not None and sustain and now < since + sustain else None
        if watched.gate.source.live and not watched.rule.guard and watched.rule.passes_needed <= watched.tally.passes:
            return sustained
        return min(watched.next, sustained) if sustained else watched.next

    async def _look_live(self, watched: _Watched, context: GateContext, now: datetime) -> None:
        """A live source costs nothing to read, so every turn does; but it is counted once per interval, or on a change."""
        seen: Measurement = await watched.gate.source.measure(context)
        trial = observe(watched.rule, watched.tally, seen)
        turned = (trial.passes > 0) != (watched.tally.passes > 0)
        if now >= watched.next or turned or watched.tally.last is None:
            watched.tally = trial
            watched.next = now + watched.rule.interval
        else:
            watched.tally = replace(watched.tally, last=seen)

    async def _ask(self, watched: _Watched, context: GateContext) -> None:
        seen: Measurement | Pending
        watched.context = context
        if watched not in self._watched:  # stopped in the turn in which it was to be asked
            if watched.pending is not None:
                await self._cancel(watched, watched.pending)
            return
        try:
            seen = await watched.gate.source.measure(context)
        except Exception:  # noqa: BLE001 -- a bug in a source must show as missing data, never as silence
            seen = Measurement(None, context.clock.now(), "the measurement failed unexpectedly")
        finally:
            watched.asking = False
        if isinstance(seen, Pending) and watched not in self._watched:
            await self._cancel(watched, seen)
        elif isinstance(seen, Pending):
            watched.pending, watched.next = seen, context.clock.now() + timedelta(seconds=seen.after)
        else:
            self._count(watched, context, seen)

    def _count(self, watched: _Watched, context: GateContext, seen: Measurement) -> None:
        if watched.pending:  # it was pending; the next one starts an interval after its end
            watched.pending, watched.next = None, context.clock.now() + watched.rule.interval
        watched.tally = observe(watched.rule, watched.tally, seen)
        self._wake()

    async def _cancel(self, watched: _Watched, pending: Pending) -> None:
        if watched.context is not None:
            with contextlib.suppress(OutsideError):  # what is left is deleted at the end of the run
                await watched.gate.source.cancel(watched.context, pending)


def _ended(watched: _Watched, context: GateContext) -> bool:
    return watched.pending is not None and bool(watched.gate.source.ended(context, watched.pending))


def _status_of(watched: _Watched, now: datetime) -> GateStatus:
    status = judge(watched.rule, watched.tally, now)
    waits = watched.pending and status.verdict is Verdict.WAIT
    return replace(status, message=watched.pending.note) if watched.pending and waits else status


__all__ = ["Gate", "Spawn", "Watch"]
