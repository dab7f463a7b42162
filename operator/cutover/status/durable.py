"""What is durable of a status: the part that is worth a save at once, and what a reader may miss of it without harm. Pure.

A CustomResourceDefinition that is older than the operator lacks fields, and the API server drops what it lacks from each
save. So what comes back is never compared for equality, only for whether it says anything else. Called by `engine/`, and by
`plan/crd_gap.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from cutover.status.spelling import camel
from cutover.status.status import ENDED, Phase, Status


def needs_no_snapshots(phase: Phase | str | None, keep_until: object) -> bool:
    """Whether a run has ended so that nobody can roll it back: only a success that keeps its snapshots can be."""
    return phase in ENDED and (phase != Phase.SUCCEEDED or keep_until is None)


_MESSAGE_LASTS: Final = frozenset({Phase.PENDING, Phase.PAUSED, Phase.STUCK, Phase.ABANDONED})
"""Phases in which nothing moves, so that the message, why or what was not undone, is worth a save of its own."""
_LOST_OF_PLAN: Final[Mapping[str, Any]] = {"progress": "", "conditions": ()}
_SHOWN_OF_CURRENT: Final[Mapping[str, Any]] = {"ready": "", "message": "", "gates": ()}
_LOST_OF_RUN: Final[Mapping[str, Any]] = {"unreleased": None}
_LOST_OF_CURRENT: Final[Mapping[str, Any]] = {
    **_SHOWN_OF_CURRENT,
    "applied_at": None,
    "undo_progress": 0,
    "progressed_at": None,
}
"""One crash may lose these; where none is ever stored, a dwell would start again with every process, and might never end."""
_LOST_OF_STEP: Final[Mapping[str, Any]] = {"snapshot_taken": False}
_FOR_REPORTS: Final = ("tally", "history", "report")
"""Saved at once too, because nothing brings them back; but nothing that a plan does depends on them."""

HARMLESS: Final = frozenset({
    *(f"status.{camel(name)}" for name in (*_LOST_OF_PLAN, *_FOR_REPORTS)),
    *(f"status.run.{camel(name)}" for name in _LOST_OF_RUN),
    *(f"status.current.{camel(name)}" for name in _SHOWN_OF_CURRENT),
    *(f"status.steps[].{camel(name)}" for name in _LOST_OF_STEP),
})  # fmt: skip
"""Fields without which every plan continues as it should, in each further process too: what is shown, and the reports."""


def durable_part(status: Status) -> Status:
    """The status without what a crash may lose: samples, counts, messages of waiting, what is derived from the rest."""
    run = status.run and replace(status.run, **_LOST_OF_RUN)
    current = status.current and replace(status.current, **_LOST_OF_CURRENT)
    steps = tuple(replace(step, **_LOST_OF_STEP) for step in status.steps)
    message = status.message if status.phase in _MESSAGE_LASTS else ""
    return replace(status, run=run, current=current, steps=steps, message=message, **_LOST_OF_PLAN)


def says_nothing_else(read: Any, ours: Any) -> bool:
    """Whether a status as it was read is ours, or ours without some of its fields.

    Then nobody else has saved it: another process that acts has raised the fence, a request adds a record, and each phase,
    state and time that another one writes is a value that ours has not. A server that drops fields it does not know only
    leaves some out.
    """
    if read == ours:
        return True
    if isinstance(read, tuple) and isinstance(ours, tuple):
        return len(read) == len(ours) and all(map(says_nothing_else, read, ours))
    if not is_dataclass(read) or type(read) is not type(ours):
        return False
    return all(
        (value := getattr(read, field.name)) == field.default or says_nothing_else(value, getattr(ours, field.name))
        for field in fields(read)
    )
