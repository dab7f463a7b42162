"""What a plan pays for its neighbours: weights and rollbacks of one plan, alone and beside the greatest load of another author."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

from environment import median, table

from harness.cluster import Cluster
from support.cluster.neighbours import WEIGHTS, compare, percentile, ratio
from support.cluster.shop import Shop

ROUNDS, PLANS, GATES = (
    int(os.environ.get(name, default)) for name, default in (("ROUNDS", "5"), ("PLANS", "8"), ("GATES", "4"))
)
_HEAD = ("what", "alone, p50", "p99", "beside, p50", "p99", "ratio of p50", "ratio of p99", "count")
_LEGEND = f"""Alone and beside alternate, {ROUNDS} rounds of {PLANS} plans with {len(WEIGHTS)} weights; a ratio is the median of those of the rounds. *Beside*: another
namespace has 40 plans with {GATES} gates each at an interval of 1s, and a plan of 64 steps with 16 Job gates each, of which something is
missing."""


def measure(cluster: Cluster) -> str:
    """The table."""
    shops = []
    for name in ("own", "neighbour"):
        cluster.control_plane.make_namespace(name)
        shops.append(Shop(cluster.api, name))
        shops[-1].create(pods=1)
    alone, beside = compare(*shops, rounds=ROUNDS, plans=PLANS, gates=GATES)
    rows = [
        _row("weight written → next weight written", alone.nexts, beside.nexts),
        _row("abort requested → all traffic back", alone.backs, beside.backs),
    ]
    return f"{table(_HEAD, rows)}\n{_LEGEND}\n"


def _row(text: str, alone: Sequence[list[float]], beside: Sequence[list[float]]) -> tuple[str, ...]:
    cells = [text]
    for rounds in (alone, beside):
        spans = list(itertools.chain(*rounds))
        cells += [f"{1000 * value:.1f} ms" for value in (median(spans), percentile(spans, 99))]
    return (*cells, *(f"{ratio(alone, beside, percent):.2f}" for percent in (50, 99)), str(sum(map(len, alone))))
