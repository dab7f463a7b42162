"""What the runner shows while it works: known keys, finite numbers, known words. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

_LARGEST: Final = 2**53


class Activity(StrEnum):
    """What it is doing."""

    STARTING = "Starting"
    LOCKING = "WaitingForLocks"
    RUNNING = "Running"
    SWEEPING = "Sweeping"
    VACUUMING = "Vacuuming"
    VERIFYING = "Verifying"


class Slow(StrEnum):
    """Why it is slower than it could be."""

    NOT = ""
    RATE = "RateLimit"
    DELAY = "Delay"
    LAG = "ReplicaLag"
    LAG_UNKNOWN = "ReplicaLagUnknown"
    QUERY = "ThrottleQuery"
    LOCKS = "RowLocks"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where it is. `total` is an estimate of the server, and 0 where it has none.

    Attributes:
        activity: what it is doing.
        rows: processed so far.
        total: rows to process.
        rate: rows a second of late.
        batch_size: of the next batch.
        slow: why it is slow.
        lock_waits: how many times a lock was not to be had in time.
        throttled_seconds: spent waiting for a limit of the plan.
        heartbeat: when this was said.
    """

    activity: Activity = Activity.STARTING
    rows: int = 0
    total: int = 0
    rate: float = 0.0
    batch_size: int = 0
    slow: Slow = Slow.NOT
    lock_waits: int = 0
    throttled_seconds: float = 0.0
    heartbeat: datetime | None = None

    @property
    def percent(self) -> int:
        """Of the estimate; never 100 before the end."""
        return min(99, 100 * self.rows // self.total) if self.total else 0

    @property
    def eta_seconds(self) -> float | None:
        """Until the last row, at the rate of late; None where it cannot be told."""
        left = self.total - self.rows
        return left / self.rate if self.rate > 0 and left > 0 else None

    def document(self) -> dict[str, str]:
        """The data of the ConfigMap."""
        body = {name: value for name, value in asdict(self).items() if name != "heartbeat"}
        return {"progress": json.dumps(body), "heartbeat": self.heartbeat.isoformat() if self.heartbeat else ""}


def read_progress(data: Mapping[str, Any]) -> Progress | None:
    """Read the data of the ConfigMap; unknown keys and words are left out. None where there is nothing to read."""
    try:
        body = json.loads(data["progress"])
        beat = datetime.fromisoformat(data["heartbeat"]) if data.get("heartbeat") else None
        return Progress(
            activity=Activity(body["activity"]),
            slow=Slow(body.get("slow", "")),
            heartbeat=beat,
            **{name: int(_finite(body.get(name))) for name in ("rows", "total", "batch_size", "lock_waits")},
            rate=_finite(body.get("rate")),
            throttled_seconds=_finite(body.get("throttled_seconds")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _finite(value: object) -> float:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return max(0.0, min(float(value), _LARGEST)) if fine else 0.0  # type: ignore[arg-type]  # it is a number, as just seen
