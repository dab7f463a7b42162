"""Whether every side that carries traffic has pods that answer: the part of a postcondition that the kinds that move traffic share.

Reads only. What it remembers is read again after a crash; only how long something has been wrong begins anew then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import Field

from cutover.objects.serving import Count
from cutover.schema.model import show_duration
from cutover.steps.kind import StepContext
from cutover.steps.standing import Failing, Standing, Stands

GRACE: Final = timedelta(seconds=2)
"""How long a side may carry traffic without a ready pod. With the time until it is noticed and until the weights are back it is below 5 s."""
UNREADY_DEADLINE: Final[Any] = Field(
    default=timedelta(minutes=5),
    description="How long a side that carries traffic may have fewer ready pods than its share needs, before the step fails; "
    "without any it fails within 5 s. Default 5m, long enough for the replacement of a pod; 0s means no limit.",
)
_UNSTREAMED: Final = timedelta(seconds=2)
"""How often endpoints are counted that are not streamed."""


@dataclass(frozen=True, slots=True)
class Load:
    """A side that carries traffic.

    Attributes:
        name: as messages name it.
        ready: its ready endpoints.
        needed: what its share asks for.
    """

    name: str
    ready: Count
    needed: int

    @property
    def lacks(self) -> bool:
        """Whether it has fewer than it needs."""
        return self.ready.total < self.needed

    @property
    def streamed(self) -> bool:
        """Whether EndpointSlices have all of them, so that an event tells when that changes."""
        return not self.ready.entries

    @property
    def problem(self) -> str:
        """What it lacks; empty when it has what it needs."""
        if not self.ready.total:
            return f"{self.name} carries traffic and has no ready endpoint{self.ready.where}"
        return f"{self.name} carries traffic with {self.ready}, and its share needs {self.needed}" if self.lacks else ""


@dataclass(slots=True)
class _Observed:
    """What was counted last.

    Attributes:
        about: what it was counted for, such as the weights.
        at: when.
        news: the number of the stream before it was counted; None where there was none.
        loads: the sides; None before they are counted for the first time.
    """

    about: object
    at: datetime
    news: int | None = None
    loads: Sequence[Load] | None = None


async def standing(
    context: StepContext,
    services: frozenset[str],
    about: object,
    count: Callable[[], Awaitable[Sequence[Load]]],
    patience: timedelta,
) -> Standing:
    """Whether no side has been without a ready endpoint, or with too few, for too long.

    Args:
        context: of the step.
        services: whose EndpointSlices tell that it changes.
        about: what the sides are counted for; another value is counted anew, a while after the write that made it: before
            that write the side was counted too, and the next one need not wait for this.
        count: counts the sides, never from a cache that is older than the call.
        patience: how long a side may have too few; zero for ever.
    """
    observed = await _observed(context, services, about, count)
    if observed.loads is None:
        return Stands((observed.at + _UNSTREAMED - context.now).total_seconds())
    due = list[datetime]()
    if observed.news is None:
        due.append(observed.at + _UNSTREAMED)
    for load, since, limit in _wrong(context, observed.loads, patience):
        if context.now - since >= limit:
            return Failing("SideNotReady", f"{load.problem}, for {show_duration(limit)}{_way_out(load)}")
        due.append(since + limit)
    after = min(due) - context.now if due else None
    # Only what takes something away has to wait for that: it counts what is left.
    # Without a limit too few are no reason to wait either, or a run could never end.
    judged = [load for load in observed.loads if patience or not load.ready.total] if context.certain else []
    unsettled = [load.problem for load in judged if load.problem]
    return Stands(max(0.0, after.total_seconds()) if after is not None else None, "; ".join(unsettled))


def _way_out(load: Load) -> str:
    return "; unreadyDeadline allows for longer" if load.ready.total else ""


def _wrong(
    context: StepContext, loads: Sequence[Load], patience: timedelta
) -> Iterator[tuple[Load, datetime, timedelta]]:
    """Each side that has none or too few: since when, and how long it may. What is right again is forgotten."""
    for load in loads:
        for kind, wrong, limit in (
            ("none", not load.ready.total, GRACE),
            ("few", load.lacks and patience > timedelta(), patience),
        ):
            since = _since(context, f"{load.name} {kind}", wrong=wrong)
            if since is not None:
                yield load, since, limit


async def _observed(
    context: StepContext, services: frozenset[str], about: object, count: Callable[[], Awaitable[Sequence[Load]]]
) -> _Observed:
    key = f"{context.place}.{context.attempt}.observed"
    known: _Observed | None = context.memo.get(key)
    news = context.cluster.follow(context.targets.owner.plan, services)  # before the count: what comes after it is news
    if known is None or known.about != about:
        known = context.memo[key] = _Observed(about, context.now)
    if known.loads is not None and not all(load.streamed for load in known.loads):
        news = None
    if news is not None and news == known.news:
        return known
    rests = context.now - known.at < _UNSTREAMED and (known.loads is None or news is known.news)
    if rests and not context.certain:
        return known
    loads = await count()
    streamed = all(load.streamed for load in loads)
    known = context.memo[key] = _Observed(about, context.now, news if streamed else None, loads)
    return known


def _since(context: StepContext, what: str, *, wrong: bool) -> datetime | None:
    """Since when something has been wrong without a break, as far as this process knows."""
    key = f"{context.place}.{context.attempt}.since[{what}]"
    if not wrong:
        context.memo.pop(key, None)
        return None
    since: datetime = context.memo.setdefault(key, context.now)
    return since
