"""The figures of the demo: requests sent and failed, the split at each weight, how long the way back took."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cutover.status import Phase, Status

SETTLE = 0.3
"""Seconds after a write of weights that are not counted: Envoy has them 20 to 120 ms later."""
MOST_POINTS, LEAST_REQUESTS = 5.0, 500


@dataclass(frozen=True)
class Request:
    sent: float
    taken: float
    status: int
    version: str


class Traffic:
    """The load's record of requests."""

    def __init__(self, file: Path) -> None:
        self._file, self._place, self._rest = file, 0, ""
        self.requests: list[Request] = []

    def read(self) -> list[Request]:
        """All requests so far."""
        with self._file.open() as record:
            record.seek(self._place)
            text = self._rest + record.read()
            self._place = record.tell()
        lines = text.split("\n")
        self._rest = lines.pop()
        for line in lines:
            sent, taken, status, version = line.split()
            self.requests.append(Request(float(sent), float(taken), int(status), version))
        return self.requests

    def between(self, begin: float, end: float) -> list[Request]:
        return [request for request in self.read() if begin <= request.sent < end]

    def now(self) -> Text:
        """The last second, for the screen."""
        recent = [request for request in self.read()[-1000:] if request.sent > time.time() - 1.2]
        seen = Counter(request.version for request in recent if request.status == 200)
        failed = sum(request.status != 200 for request in recent)
        parts = ", ".join(
            f"version {version}: {100 * count / max(1, len(recent)):.0f}%" for version, count in sorted(seen.items())
        )
        return Text.assemble(
            "   answers in the last second  ", (parts, "bold"), "  failed ", (str(failed), "red" if failed else "green")
        )


@dataclass
class Migration:
    begun: float
    ended: float = 0.0
    weights: list[tuple[int, float]] = field(default_factory=list)
    version: str = ""
    failed_at: float = 0.0
    back_at: float = 0.0


class Figures:
    """What was seen of each migration."""

    def __init__(self) -> None:
        self.migrations: dict[str, Migration] = {}
        self.wrong_sums: list[int] = []

    def begin(self, name: str) -> None:
        self.migrations[name] = Migration(time.time(), version=name.rpartition("-")[2])

    def weight(self, name: str, weight: int, at: float) -> None:
        """The weight of the new side as it was read at a time."""
        seen = self.migrations[name].weights
        if not seen or seen[-1][0] != weight:
            seen.append((weight, at))
            if weight == 0 and len(seen) > 1:
                self.migrations[name].back_at = at

    def status(self, name: str, status: Status) -> None:
        """When the failing sample was judged: the moment that the step failed."""
        if status.phase is not Phase.UNWINDING or self.migrations[name].failed_at:
            return
        failed = next((step for step in status.steps if step.name == "shift" and step.finished_at), None)
        if failed is not None and failed.finished_at is not None:
            self.migrations[name].failed_at = failed.finished_at.timestamp()

    def end(self, name: str, at: float) -> None:
        self.migrations[name].ended = at


def report(console: Console, figures: Figures, traffic: Traffic) -> list[str]:
    """Print the figures; what is wrong with them."""
    wrong = [f"weights added up to {total}" for total in figures.wrong_sums]
    for number, (name, migration) in enumerate(figures.migrations.items(), 1):
        requests = traffic.between(migration.begun, migration.ended)
        failed = [request for request in requests if request.status != 200]
        console.print(f"\n[bold]{name}[/]: {len(requests)} requests sent, {len(failed)} failed", highlight=False)
        if number == 1 and failed:
            wrong.append(f"migration 1 lost {len(failed)} requests ({Counter(request.status for request in failed)})")
        wrong += _splits(console, migration, traffic, name)
        if migration.failed_at and migration.back_at:
            taken = 1000 * (migration.back_at - migration.failed_at)
            last = max((request.sent for request in failed), default=0.0)
            console.print(
                f"  failing sample to all traffic back: {taken:.0f} ms (seen by reading the weights every 50 ms); "
                f"last failed request sent {1000 * (last - migration.failed_at):.0f} ms after that sample",
                highlight=False,
            )
    return wrong


def _splits(console: Console, migration: Migration, traffic: Traffic, name: str) -> list[str]:
    wrong = []
    table = Table("weight asked for", "split seen", "requests", box=None, padding=(0, 2))
    ends = [at for _, at in migration.weights[1:]] + [migration.ended]
    for (weight, at), end in zip(migration.weights, ends, strict=True):
        seen = traffic.between(at + SETTLE, end - 0.05)
        if not weight or not seen:
            continue
        split = 100 * sum(request.version == migration.version for request in seen) / len(seen)
        table.add_row(f"{weight}%", f"{split:.1f}%", str(len(seen)))
        if len(seen) >= LEAST_REQUESTS and abs(split - weight) > MOST_POINTS:
            wrong.append(f"{name}: {split:.1f}% of {len(seen)} requests at weight {weight}")
    console.print(table)
    return wrong
