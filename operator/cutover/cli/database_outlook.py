"""What a step would do in a database, as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cutover.runner_messages.locks import lock_sentence
from cutover.runner_messages.sentences import RIGHT_FORMS

if TYPE_CHECKING:
    from cutover.database.engines.base import Impact
    from cutover.database.works.shown import Outlook
    from cutover.runner_messages.hazards import Hazard
    from cutover.runner_messages.payload import Payload


def lines(payload: Payload, outlook: Outlook) -> Iterator[str]:
    """The statements, what each locks and for how long, whom that stops, its hazards, and the rows."""
    on = f" on PostgreSQL {outlook.version}" if outlook.version else ""
    done = ": done already" if outlook.done else ""
    yield f"{payload.step}: {payload.kind}, {payload.direction}{on}{done}"
    allowed = payload.schema_.allow if payload.schema_ is not None else ()
    for one in outlook.statements:
        yield from _text(one.field, one.text)
        for impact in one.impacts:
            yield from _impact(impact, outlook, allowed)
    if outlook.wanted is not None:
        yield f"  about {outlook.wanted:,} rows would be changed"
    named = {impact.table for one in outlook.statements for impact in one.impacts}
    for table, rows in outlook.rows.items():
        if table not in named:
            yield f"  {table}: {_rows(rows)}"


def _text(field: str, text: str) -> Iterator[str]:
    first, *more = text.splitlines()
    yield f"  {field}: {first}"
    yield from (f"    {line}" for line in more)


def _impact(impact: Impact, outlook: Outlook, allowed: tuple[Hazard, ...]) -> Iterator[str]:
    if sentence := lock_sentence(impact.lock, impact.effort):
        rows = f" ({_rows(outlook.rows.get(impact.table))})" if impact.table else ""
        yield f"    {impact.table or 'a table that is not named'}{rows}: {sentence}"
    for hazard in impact.hazards:
        way_out = "allowed" if hazard in allowed else RIGHT_FORMS[hazard]
        yield f"    {hazard}: {way_out}"


def _rows(rows: int | None) -> str:
    return "the server has no estimate of its rows" if rows is None else f"about {rows:,} rows"
