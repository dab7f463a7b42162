"""What the database itself knows of a plan's steps. The values; an engine has the tables.

One row per step of a run says in which direction it went last, whether it got there, how far it is, and which fence wrote it.
It is locked by every transaction that works for the step, and committed with the work, so it is never wrong about it: a process
that died before or after its COMMIT finds out by reading the row. Two runners with the same fence take turns; one with a lower
fence finds the higher one and ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cutover.runner_messages.payload import Direction, Payload

VERSION: Final = 1
"""Of the tables. A newer one is not touched."""


@dataclass(frozen=True, slots=True)
class StepKey:
    """Whose row it is."""

    plan: str
    run: int
    step: str


@dataclass(frozen=True, slots=True)
class Claim:
    """Who works on it now."""

    key: StepKey
    attempt: int
    fence: int
    direction: Direction

    @classmethod
    def of(cls, payload: Payload) -> Claim:
        """The claim of a Job."""
        key = StepKey(payload.plan.uid, payload.run, payload.step)
        return cls(key, payload.attempt, payload.fence, payload.direction)


@dataclass(frozen=True, slots=True)
class StepRow:
    """How far a step is.

    Attributes:
        direction: up or down, as last begun.
        finished: it got there.
        fence: of the last runner.
        digest: of what was run: a script, or the fields of a backfill.
        cursor: the end of the last range that was processed, as the server's own text; None: the first one is not done.
        bound: where the ranges end; None: not known yet.
        rows: changed so far.
        batches: transactions so far.
        version: of the runner that wrote the cursor.
    """

    direction: Direction = Direction.UP
    finished: bool = False
    fence: int = 0
    digest: str = ""
    cursor: tuple[str, ...] | None = None
    bound: tuple[str, ...] | None = None
    rows: int = 0
    batches: int = 0
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the history: kept for people, and for what a later step compares with.

    Attributes:
        script: the text that was run; the `down` of an `up` beside it, so that it is not lost with the plan.
        answers: failures by query, of a validation.
    """

    kind: str
    digest: str = ""
    script: str = ""
    down: str = ""
    rows: int = 0
    answers: Mapping[str, Any] = field(default_factory=dict)
