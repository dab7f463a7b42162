"""How far a query looks back: what is read of PromQL, what is passed over, and that nothing takes long to read."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from cutover.gates.promql import looks_back

MINUTE, HOUR = 60, 3600


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("up", 0),
        ("vector(9)", 0),
        ("rate(x[5m])", 5 * MINUTE),
        ("rate(x[300])", 5 * MINUTE),
        ("rate(x[1h30m])", 90 * MINUTE),
        ("rate(x[ 90s ])", 90),
        ("rate(x[1d])", 24 * HOUR),
        ('sum(rate(x{code=~"5.."}[1m])) or vector(0)', MINUTE),
        ('{__name__="x"}[5m]', 5 * MINUTE),
        ("a[1m] + b[3m]", 3 * MINUTE),
        ("x * on(a) group_left(b) rate(y[7m])", 7 * MINUTE),
        ("histogram_quantile(0.99, sum by (le) (rate(b[2m])))", 2 * MINUTE),
        # of a subquery its own range and that of what it repeats
        ("max_over_time(rate(x[5m])[1h:1m])", 65 * MINUTE),
        ("sum by (le) (rate(x[2m]))[10m:]", 12 * MINUTE),
        ("avg_over_time((rate(a[1m]) + rate(b[2m]))[5m:30s])", 7 * MINUTE),
        # an offset moves it
        ("x offset 1h", HOUR),
        ("rate(x[5m] OFFSET 1m)", 6 * MINUTE),
        ("x[5m] @ end() offset 1h", 65 * MINUTE),
        ("max_over_time(rate(x[5m])[1h:] offset 10m)", 75 * MINUTE),
        ("rate(x[5m] offset -5m)", 0),
        # what is compared with the past is meant to be of the past
        ("rate(x[5m]) / rate(x[5m] offset 1h)", 5 * MINUTE),
        ("rate(x[5m] offset 1h) / rate(x[5m])", 5 * MINUTE),
        # strings and comments are no ranges
        ('rate(x{a="[9h]"}[5m])', 5 * MINUTE),
        ("rate(x{a='\\'[9h]', b=`[9h]`}[5m])", 5 * MINUTE),
        ('label_replace(x, "a", "y[9h]", "b", "")', 0),
        ("# rate(x[9h])\nrate(x[5m])", 5 * MINUTE),
        ('rate(x{a="}"}[5m]) # x[9h]', 5 * MINUTE),
        # a range that is computed, or of another dialect, is not known
        ("rate(x[5m+1m])", 0),
        ("rate(x[5i])", 0),
        ("rate(x[$__interval])", 0),
        # what no server takes is read as far as it goes
        ("(((rate(x[4m]", 4 * MINUTE),
        (")]}offset 5m[5m] x[4m]", 4 * MINUTE),
        ("x[99999999999999999999y]", None),
    ],
)
def test_how_far(query: str, seconds: int | None) -> None:
    back = looks_back(query)
    assert back == timedelta(seconds=seconds) if seconds is not None else back > timedelta(days=36_000)


@pytest.mark.parametrize(
    "part", ["(", "{", "[", '"', "'\\", "`", "+x", "x[5m]", "rate(", "offset ", "by ", "1m", "a", "x[1m:1m]", "#", " "]
)
def test_no_query_takes_long(part: str) -> None:
    """The time grows with the length, whatever the author writes: four times the text is never sixteen times the time."""

    def seconds(length: int) -> float:
        query = "x offset" * (part == " ") + part * (length // len(part))
        return min(_timed(query) for _ in range(5))

    short, long = seconds(8_000), seconds(32_000)
    assert long < 10 * short + 0.01


def _timed(query: str) -> float:
    begun = time.process_time()
    looks_back(query)
    return time.process_time() - begun
