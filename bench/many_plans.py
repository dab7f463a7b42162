"""Many plans at once: how long each waits for its turn, and how many weights a second are written."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from environment import median, percentile, table
from shops import Shops

from harness.cluster import Cluster
from harness.tools import print_progress

_HEAD = (
    "at once",
    "ready → first weight, p50",
    "p99",
    "weight → next weight, p50",
    "weights a second",
    "p50 ÷ the bare loop for all",
)
_LEGEND = """Each plan rolls a Deployment of one simulated pod and moves its traffic in four weights. *Applied*: all plans are applied at once, and a plan
is ready when its new version is available; weights a second are those of the whole time, in which plans are read, targets claimed and pods made.
*Approved*: all plans wait for a person behind their rollout, and all are approved at once; ready is when the approval was taken. The last
column is the p50 of the first weight as a part of the time in which the bare loop, one after the other, writes a status and a weight for each plan."""


def measure(cluster: Cluster, numbers: Sequence[int], bare: float) -> str:
    """The table.

    Args:
        cluster: has no other work.
        numbers: of plans at once, a row each.
        bare: seconds of a bare loop for one status and one weight.
    """
    rows = []
    for number in numbers:
        for what, act in (("applied", Shops.migrate), ("approved", Shops.let_go)):
            print_progress(f"{number} plans {what} at once")
            crowd = Shops(cluster, f"{what}-{number}", number)
            crowd.make()
            act(crowd, deadline=600)
            rows.append(_row(f"{number} {what}", crowd, number * bare))
    return f"{table(_HEAD, rows)}\n{_LEGEND}\n"


def _row(what: str, crowd: Shops, alone: float) -> tuple[str, ...]:
    written = {name: seen[1:] for name, seen in crowd.weights.items()}  # the first is how it was before
    first = [written[name][0][1] - crowd.ready[name] for name in crowd.names]
    nexts = [after[1] - before[1] for seen in written.values() for before, after in itertools.pairwise(seen)]
    moments = sorted(at for seen in written.values() for _, at in seen)
    p50 = median(first)
    return (
        what,
        f"{p50:.2f} s",
        f"{percentile(first, 99):.2f} s",
        f"{median(nexts):.2f} s",
        f"{len(moments) / (moments[-1] - moments[0]):.0f}",
        f"{p50 / alone:.2f}",
    )
