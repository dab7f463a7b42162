"""Many plans at once: how long each waits for its turn, and how many weights a second are written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from crowd import Crowd
from ground import median, percentile, table

from harness.cluster import Cluster
from harness.tools import print_progress


def measure(cluster: Cluster, numbers: Sequence[int], bare: float) -> str:
    """The table.

    Args:
        cluster: has no other work.
        numbers: of plans at once, a row each.
        bare: seconds of a bare loop for one status and one weight.
    """
    rows = []
    for number in numbers:
        print_progress(f"{number} plans at once")
        crowd = Crowd(cluster, f"crowd-{number}", number)
        crowd.make()
        crowd.migrate(deadline=600)
        rows.append(_row(number, crowd, bare))
    head = (
        "at once",
        "available → first weight, p50",
        "p99",
        "weight → next weight, p50",
        "weights a second",
        "p50 ÷ the bare loop for all",
    )
    text = "All plans are applied at once; each rolls a Deployment of one simulated pod and moves its traffic in four weights. The last column is the"
    return f"{table(head, rows)}\n{text} p50\nof the first weight, as a part of the time in which the bare loop writes one status and one weight for each plan, one after the other.\n"


def _row(number: int, crowd: Crowd, bare: float) -> tuple[str, ...]:
    written = {name: seen[1:] for name, seen in crowd.weights.items()}  # the first is how it was before
    first = [written[name][0][1] - crowd.available[name] for name in crowd.names]
    nexts = [after[1] - before[1] for seen in written.values() for before, after in itertools.pairwise(seen)]
    moments = sorted(at for seen in written.values() for _, at in seen)
    p50 = median(first)
    return (
        str(number),
        f"{p50:.2f} s",
        f"{percentile(first, 99):.2f} s",
        f"{median(nexts):.2f} s",
        f"{len(moments) / (moments[-1] - moments[0]):.0f}",
        f"{p50 / (number * bare):.2f}",
    )
