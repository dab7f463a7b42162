"""What a work would do, for people to read before it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cutover.database.engines.base import Impact
from cutover.runner_messages.result import Result


@dataclass(frozen=True, slots=True)
class Shown:
    """One statement as it would be sent.

    Attributes:
        field: of the step.
        text: the SQL.
        impacts: what it locks and does, by table.
    """

    field: str
    text: str
    impacts: tuple[Impact, ...] = ()


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a step would do.

    Attributes:
        statements: in their order.
        rows: of the tables, as the server estimates them; None: not known.
        wanted: rows that would be changed, as the planner estimates; None: nothing is, or it is not known.
        problems: what keeps it from being done.
        done: the database's journal says that it was done already.
        version: of the server, the major one; 0 where it was not asked.
    """

    statements: Sequence[Shown] = ()
    rows: Mapping[str, int | None] = field(default_factory=dict)
    wanted: int | None = None
    problems: Sequence[Result] = ()
    done: bool = False
    version: int = 0
