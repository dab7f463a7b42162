"""What of a status must outlive a crash, and what may be lost with the process without harm. Pure.

The driver saves before it acts only where the durable part has changed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cutover.status.status import ENDED, Phase, Status


def needs_no_snapshots(phase: Phase | str | None, keep_until: object) -> bool:
    """Whether a run has ended so that nobody can roll it back: only a success that keeps its snapshots can be."""
    return phase in ENDED and (phase != Phase.SUCCEEDED or keep_until is None)


_MESSAGE_LASTS: Final = frozenset({Phase.PENDING, Phase.PAUSED, Phase.STUCK, Phase.ABANDONED})
"""Phases in which nothing moves, so that the message, why or what was not undone, is worth a save of its own."""


def durable_part(status: Status) -> Status:
    """The status without what a crash may lose: samples, counts, messages of waiting, what is derived from the rest."""
    current = status.current
    if current is not None:
        current = replace(current, applied_at=None, ready="", undo_progress=0, progressed_at=None, message="", gates=())
    steps = tuple(replace(step, snapshot_taken=False) for step in status.steps)
    message = status.message if status.phase in _MESSAGE_LASTS else ""
    return replace(status, current=current, steps=steps, message=message, progress="", conditions=())
