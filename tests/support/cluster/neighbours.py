"""What a plan pays for its neighbours: weights and rollbacks of one plan, alone and beside all that another author can ask for.

The neighbour is one namespace with 40 plans whose gates are as fast as gates may be, and a plan of 64 steps with 16 Job gates each that
waits for something missing, so that it is examined again and again. Alone and beside alternate in one run, so that only ratios count.
Used by the bench and by `cluster/test_fairness.py`.
"""

from __future__ import annotations

import itertools
import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from cutover.gates import FASTEST
from cutover.schema.model import show_duration
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import until
from harness.tools import print_progress
from support.cluster.shop import Shop

T = TypeVar("T")
WEIGHTS = list(range(3, 98, 3))
FAST_PLANS, VAST_STEPS, VAST_GATES = 40, 64, 16
_INTERVAL = show_duration(FASTEST)
_SECONDS_TO_SETTLE = 10
_SHIFT = f"""
steps:
  - name: shift
    traffic:
      virtualService: {{name: shop}}
      from: {{host: shop-v1}}
      to: {{host: shop-v2}}
      weights: {WEIGHTS}
  - {{name: ok, approve: {{message: go}}}}
"""


@dataclass
class Spans:
    """Seconds, a list for each round: from one weight to the next, and from an abort until all traffic is back."""

    nexts: list[list[float]] = field(default_factory=list)
    backs: list[list[float]] = field(default_factory=list)


def compare(own: Shop, neighbour: Shop, *, rounds: int, plans: int, gates: int) -> tuple[Spans, Spans]:
    """The spans of a shop alone and beside its neighbour.

    Args:
        own: the shop that is measured.
        neighbour: the shop of the other author.
        rounds: how often both are measured, one after the other.
        plans: how many plans of the shop make a round.
        gates: of each fast plan of the neighbour.
    """
    own.api.patch(f"{own.deployments}/shop-v2", {"spec": {"replicas": 1}})
    until("both versions have pods", lambda: own.endpoints("shop-v2") >= 1)
    may_create_jobs(neighbour)
    routes, alone, beside = _Routes(own), Spans(), Spans()
    _measure(own, routes, Spans(), 1)  # what is done for the first time does not count
    for number in range(1, rounds + 1):
        print_progress(f"round {number} of {rounds}, alone")
        _measure(own, routes, alone, plans)
        with _load(neighbour, gates):
            print_progress(f"round {number} of {rounds}, beside others")
            _measure(own, routes, beside, plans)
    return alone, beside


def ratio(alone: Sequence[list[float]], beside: Sequence[list[float]], percent: float) -> float:
    """How many times the value of a percentile it is beside others: the median of the ratios of all rounds."""
    return statistics.median(
        percentile(slow, percent) / percentile(fast, percent) for fast, slow in zip(alone, beside, strict=True)
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent of them do not exceed."""
    return sorted(values)[int(percent / 100 * (len(values) - 1))]


class _Routes:
    """When each weight was seen."""

    def __init__(self, shop: Shop) -> None:
        self.seen: list[tuple[int, float]] = []
        self._shop = shop
        threading.Thread(target=self._watch, daemon=True).start()
        until("the observer watches", lambda: len(self.seen) > 0)

    def _watch(self) -> None:
        for _, body in self._shop.api.watch(self._shop.routes.rpartition("/")[0], seconds=7200):
            weight = body["spec"]["http"][0]["route"][1].get("weight", 0)
            if not self.seen or self.seen[-1][0] != weight:
                self.seen.append((weight, time.time()))


def _measure(shop: Shop, routes: _Routes, spans: Spans, plans: int) -> None:
    nexts, backs = [], []
    for _ in range(plans):
        mark = len(routes.seen)
        path = shop.apply(_SHIFT)
        shop.until_phase(Phase.WAITING, deadline=300)
        until("all weights are seen", lambda: routes.seen[-1][0] == WEIGHTS[-1])
        moments = [at for weight, at in routes.seen[mark:] if weight]
        assert len(moments) == len(WEIGHTS), routes.seen[mark:]
        nexts += [after - before for before, after in itertools.pairwise(moments)]
        begun = time.time()
        shop.request(RequestVerb.ABORT)
        until("all traffic is back", lambda: routes.seen[-1][0] == 0, deadline=300)
        backs.append(routes.seen[-1][1] - begun)
        shop.until_ended(deadline=300)
        shop.api.delete(path)
    spans.nexts.append(nexts)
    spans.backs.append(backs)


# --- the neighbour ------------------------------------------------------------------------------------------------------


@contextmanager
def _load(neighbour: Shop, gates: int) -> Iterator[None]:
    names = [f"fast-{number}" for number in range(FAST_PLANS)]
    paths = [neighbour.apply(vast(), "vast")]
    side_by_side(lambda name: paths.append(neighbour.apply(_fast(gates), name)), names)
    side_by_side(lambda name: neighbour.until_phase(Phase.RUNNING, name, deadline=300), names)
    time.sleep(_SECONDS_TO_SETTLE)  # a load has no state that one could wait for
    try:
        yield
    finally:
        side_by_side(neighbour.api.delete, paths)
        until("the neighbours are gone", lambda: not neighbour.api.list(neighbour.plans), deadline=300)


def _fast(gates: int) -> dict[str, Any]:
    """A plan that only measures."""
    prometheus = {"interval": _INTERVAL, "successThreshold": 1000, "prometheus": {"query": "vector(0.1)"}}
    of_step = [{"name": f"errors-{number}", "pass": {"max": "0.5"}, **prometheus} for number in range(gates)]
    return {"steps": [{"name": "soak", "timeout": "0s", "check": {"for": "5h"}, "gates": of_step}]}


def vast() -> dict[str, Any]:
    """A plan of which something is missing, and of which each gate has another Job."""

    def gate(step: int, number: int) -> dict[str, Any]:
        containers = [{"name": "check", "image": f"check:{step}.{number}"}]
        template = {"spec": {"template": {"spec": {"containers": containers}}}}
        return {"name": f"job-{number}", "interval": _INTERVAL, "job": {"template": json.dumps(template)}}

    def gates(step: int) -> list[dict[str, Any]]:
        return [gate(step, number) for number in range(VAST_GATES)]

    soaks = [{"name": f"soak-{step}", "check": {"for": "1m"}, "gates": gates(step)} for step in range(VAST_STEPS - 1)]
    last = {"name": "last", "deploy": {"workload": {"name": "missing"}, "replicas": 1}, "gates": gates(VAST_STEPS)}
    return {"startDeadline": "24h", "steps": [*soaks, last]}


def may_create_jobs(shop: Shop) -> None:
    """Give the account of a shop's plans the permissions that gates with Jobs need."""
    path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shop.namespace}/roles/migrator"
    jobs = {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "patch", "delete"]}
    shop.api.patch(path, {"rules": [*shop.api.get(path)["rules"], jobs]})


def side_by_side(act: Callable[[T], object], them: Sequence[T]) -> None:
    """Act on each, in some threads."""
    with ThreadPoolExecutor(12) as pool:
        for done in [pool.submit(act, one) for one in them]:
            done.result()
