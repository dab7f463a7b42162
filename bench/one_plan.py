"""One plan at a time: what Cutover itself adds to a rollout and to each weight, beside a bare loop that makes the same two calls.

Both ends of a span are seen from outside by one observer that watches.
"""

from __future__ import annotations

import itertools
import threading
import time

from environment import machine, median, percentile, table
from prometheus_stub import PrometheusStub

from cutover.status.status import Phase
from harness.api import Api
from harness.cluster import Cluster
from harness.process import until
from harness.tools import print_progress
from support.cluster.shop import DEPLOY, SHIFT, Shop

PLANS = 30
GATE = """
      dwell: 1s
    gates: [{name: errors, interval: 1s, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""


class Observer:
    """Watches one shop, and notes when things were seen."""

    def __init__(self, api: Api, shop: Shop) -> None:
        self.available: float | None = None
        self.weights: list[tuple[int, float]] = []
        self._api, self._shop = api, shop
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=watch, daemon=True) for watch in (self._deployments, self._routes)]
        for thread in self._threads:
            thread.start()

    def _deployments(self) -> None:
        for _, body in self._api.watch(self._shop.deployments, seconds=60, fields="metadata.name=shop-v2"):
            if self._ending.is_set():
                return
            status, spec = body.get("status", {}), body["spec"]
            seen = status.get("observedGeneration") == body["metadata"]["generation"]
            counts = {status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")}
            if seen and spec["replicas"] == 3 and counts == {3} and self.available is None:  # noqa: PLR2004 -- the plan's
                self.available = time.time()

    def _routes(self) -> None:
        for _, body in self._api.watch(self._shop.routes.rpartition("/")[0], seconds=60):
            if self._ending.is_set():
                return
            weight = body["spec"]["http"][0]["route"][1].get("weight", 0)
            if not self.weights or self.weights[-1][0] != weight:
                self.weights.append((weight, time.time()))

    def stop(self) -> None:
        """The threads end with their next event, or with the watch."""
        self._ending.set()


def bare_loop(shop: Shop) -> list[float]:
    """Seconds for a status and a weight, one after the other, by a client that does nothing else."""
    path = shop.apply("suspend: true\nsteps: [{name: a, wait: {for: 1s}}]", "bare")
    shop.until(lambda status: status.phase is Phase.PENDING, "bare")
    taken = []
    for number in range(40):
        begun = time.perf_counter()
        shop.api.patch(f"{path}/status", {"status": {"message": f"number {number}"}})
        weights = [100 - number % 2, number % 2]
        changes = [
            {"op": "replace", "path": f"/spec/http/0/route/{at}/weight", "value": weight}
            for at, weight in enumerate(weights)
        ]
        shop.api.patch(shop.routes, changes, kind="json")
        taken.append(time.perf_counter() - begun)
    shop.api.delete(path)
    return taken[5:]


def measure(cluster: Cluster, answers: PrometheusStub) -> tuple[str, float]:
    """The table, and the seconds that a status and a weight take the bare loop (median)."""
    spans: dict[str, list[float]] = {"available": [], "next": [], "back": [], "bare": []}
    for number in range(PLANS):
        print_progress(f"plan {number + 1} of {PLANS}, one at a time")
        _one(cluster, answers, number, spans)
    bare = median(spans["bare"])
    named = (
        ("Deployment available → first weight written", "available"),
        ("weight written → next weight written, nothing to wait for", "next"),
        ("failing sample answered → all traffic back", "back"),
        ("a bare loop: one status, then one weight", "bare"),
    )
    rows = []
    for text, key in named:
        p50, p95 = median(spans[key]), percentile(spans[key], 95)
        rows.append((text, f"{1000 * p50:.1f} ms", f"{1000 * p95:.1f} ms", f"{p50 / bare:.2f}", str(len(spans[key]))))
    head = ("what", "p50", "p95", "ratio of p50 to the bare loop", "count")
    return f"{table(head, rows)}\nOne plan at a time, {PLANS} plans, three simulated pods each; {machine()}.\n", bare


def _one(cluster: Cluster, answers: PrometheusStub, number: int, spans: dict[str, list[float]]) -> None:
    name = f"bench-{number}"
    cluster.control_plane.make_namespace(name)
    shop = Shop(cluster.api, name)
    shop.create()
    if number % 10 == 0:
        spans["bare"] += bare_loop(shop)
        shop.create()
    observer = Observer(cluster.api, shop)
    until("the observer watches", lambda: observer.weights)
    shop.apply(f"steps:{DEPLOY}{SHIFT}")
    shop.until_ended()
    until("all weights are seen", lambda: observer.weights[-1][0] == 100)  # noqa: PLR2004 -- percent
    seen = observer.weights[-4:]
    assert observer.available is not None
    spans["available"].append(seen[0][1] - observer.available)
    spans["next"] += [after[1] - before[1] for before, after in itertools.pairwise(seen)]
    shop.create()  # back to the beginning
    answers.bad, answers.said_bad = False, None
    shop.apply(f"steps:{DEPLOY}{SHIFT.rstrip()}{GATE}", "second")
    shop.until(lambda status: status.current is not None and status.current.weight == 25, "second")  # noqa: PLR2004
    until("weight 25 is seen", lambda: observer.weights[-1][0] == 25)  # noqa: PLR2004
    answers.bad = True
    shop.until_ended("second")
    until("all is back", lambda: observer.weights[-1][0] == 0)
    assert answers.said_bad is not None
    spans["back"].append(observer.weights[-1][1] - answers.said_bad)
    observer.stop()
