"""The expressions and queries of a backfill's fields: each is what it should be, and nothing that would end it."""

from __future__ import annotations

from collections.abc import Callable

from cutover.database.engines.base import Texts
from cutover.database.outcome import Ended
from cutover.runner_messages.payload import BackfillWork
from cutover.runner_messages.result import Result


def problems_of(work: BackfillWork, engine: Texts) -> list[Result]:
    """All that is wrong with them."""
    texts = [(value, f"backfill.set.{name}") for name, value in work.set_.items()]
    texts += [(value, f"backfill.reverse.{name}") for name, value in (work.reverse or {}).items()]
    texts += [(work.verify, "backfill.verify")]
    texts += [(work.where, "backfill.where")] if work.where else []
    found = [one for text, field in texts for one in caught(lambda: engine.expression(text, field))]  # noqa: B023
    if query := work.throttle.query:
        found += caught(lambda: engine.query(query, "backfill.throttle.query"))
    return found


def caught(check: Callable[[], object]) -> list[Result]:
    """What a check ends with; empty where it passes."""
    try:
        check()
    except Ended as ended:
        return [ended.result]
    return []
