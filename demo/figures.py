"""The figures of the demo: requests sent and failed, the split at each weight, how long the rollback took; and what is wrong.

Pure, over records of what was seen; who recorded it and how is not known here. Called by __main__.py.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cutover.status.status import Phase, Status

SETTLE = 0.3
"""Seconds after a weight change that are not counted: Envoy has it 20 to 120 ms later."""
MOST_POINTS, LEAST_REQUESTS = 5.0, 500


@dataclass(frozen=True)
class Request:
    """One request of the load; times in seconds, `sent` in Unix time, `status` 0 for no answer."""

    sent: float
    taken: float
    status: int
    version: str


class Traffic:
    """The load's record of requests."""

    def __init__(self, file: Path) -> None:
        self.file, self._place, self._rest = file, 0, ""
        self.requests: list[Request] = []

    def read(self) -> list[Request]:
        """All requests so far."""
        with self.file.open() as record:
            record.seek(self._place)
            text = self._rest + record.read()
            self._place = record.tell()
        lines = text.split("\n")
        self._rest = lines.pop()
        for line in lines:
            sent, taken, status, version = line.split()
            self.requests.append(Request(float(sent), float(taken), int(status), version))
        return self.requests

    def now(self) -> Text:
        """The answers of the last second, for the screen."""
        recent = [request for request in self.read()[-1000:] if request.sent > time.time() - 1.2]
        seen = Counter(request.version for request in recent if request.status == 200)
        failed = sum(request.status != 200 for request in recent)
        parts = ", ".join(
            f"version {version}: {100 * count / max(1, len(recent)):.0f}%" for version, count in sorted(seen.items())
        )
        return Text.assemble(
            "answers in the last second  ", (parts, "bold"), "  failed ", (str(failed), "red" if failed else "green")
        )


@dataclass(frozen=True)
class Split:
    """The share of requests that the new version answered at a weight; both in percent."""

    weight: int
    seen: float
    requests: int


@dataclass
class Migration:
    """What was seen of one migration; times are Unix times, 0.0 for not yet.

    Attributes:
        version: the version that the migration rolls out.
        weights: of the new side, each with the time when it was first seen.
        judged: when the operator evaluated the sample that started the rollback, as the plan's status records it.
    """

    version: str
    started: float
    ended: float = 0.0
    weights: list[tuple[int, float]] = field(default_factory=list)
    judged: float = 0.0

    def saw_weight(self, weight: int, at: float) -> None:
        if not self.weights or self.weights[-1][0] != weight:
            self.weights.append((weight, at))

    def saw_status(self, status: Status) -> None:
        """The first status that is RollingBack counts: its undo started in the turn that evaluated the sample."""
        current = status.current
        if not self.judged and status.phase is Phase.ROLLING_BACK and current is not None and current.intent == "undo":
            self.judged = current.started_at.timestamp()

    @property
    def back(self) -> float:
        """When all traffic was back: the weight was 0 again."""
        return next((at for weight, at in self.weights[1:] if weight == 0), 0.0)

    def splits(self, requests: list[Request]) -> Iterator[Split]:
        """One per weight."""
        ends = [at for _, at in self.weights[1:]] + [self.ended]
        for (weight, at), end in zip(self.weights, ends, strict=False):  # empty when nothing was seen
            seen = [request.version for request in requests if at + SETTLE <= request.sent < end - 0.05]
            if weight and seen:
                yield Split(weight, 100 * seen.count(self.version) / len(seen), len(seen))

    def during(self, requests: list[Request]) -> list[Request]:
        return [request for request in requests if self.started <= request.sent < self.ended]


def failed(requests: list[Request]) -> list[Request]:
    return [request for request in requests if request.status != 200]


def wrong_splits(name: str, splits: list[Split]) -> Iterator[str]:
    for split in splits:
        if split.requests >= LEAST_REQUESTS and abs(split.seen - split.weight) > MOST_POINTS:
            yield f"{name}: {split.seen:.1f}% of {split.requests} requests at weight {split.weight}"


def wrong_forward(name: str, weights: list[int], migration: Migration, requests: list[Request]) -> Iterator[str]:
    """A good migration loses nothing, and each weight was seen with enough requests."""
    lost = failed(migration.during(requests))
    if lost:
        yield f"{name} lost {len(lost)} requests, by status: {dict(Counter(request.status for request in lost))}"
    splits = list(migration.splits(requests))
    counts = {weight: sum(split.requests for split in splits if split.weight == weight) for weight in weights}
    for weight, count in counts.items():
        if count < LEAST_REQUESTS:
            yield f"{name}: only {count} requests were seen at weight {weight}; {LEAST_REQUESTS} are needed"
    yield from wrong_splits(name, splits)


def wrong_backward(name: str, migration: Migration, requests: list[Request]) -> Iterator[str]:
    """A bad migration rolls back, and both ends of the rollback were seen."""
    if not migration.judged or not migration.back:
        what = "the failing sample" if not migration.judged else "the end of the rollback"
        yield f"{name}: {what} was never seen"
    yield from wrong_splits(name, list(migration.splits(requests)))


def show(console: Console, name: str, migration: Migration, requests: list[Request]) -> None:
    """Print the figures of one migration."""
    sent = migration.during(requests)
    lost = failed(sent)
    console.print(f"\n[bold]{name}[/]: {len(sent)} requests sent, {len(lost)} failed", highlight=False)
    table = Table("weight", "measured", "requests", box=None, padding=(0, 2))
    for split in migration.splits(requests):
        table.add_row(f"{split.weight}%", f"{split.seen:.1f}%", str(split.requests))
    console.print(table)
    if migration.judged and migration.back:
        console.print(rollback_time(migration, sent), highlight=False, soft_wrap=True)


def rollback_time(migration: Migration, sent: list[Request]) -> str:
    """How long the rollback took, and what exactly was measured."""
    last = max((request.sent for request in sent if request.version == migration.version), default=migration.judged)
    after = 1000 * (last - migration.judged)
    return (
        f"  failing sample to traffic back: {1000 * (migration.back - migration.judged):.0f} ms\n"
        "    from: the operator evaluated the sample (recorded in the plan's status)\n"
        "    to:   a watch on the VirtualService reported weight 0\n"
        f"  the last request that version {migration.version} answered was sent {abs(after):.0f} ms "
        f"{'after' if after >= 0 else 'before'} the sample was evaluated"
    )
