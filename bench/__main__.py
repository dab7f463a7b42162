"""``make bench``: how fast the operator is, on a real control plane with simulated pods, one plan at a time.

Everything is seen from outside by one observer that watches, so both ends of a span have the same delay. Beside it runs a
bare loop that makes the same two calls (status, then weights) and nothing else: only ratios to it say much, because
milliseconds depend on the machine. Writes the table in docs/performance.md.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cutover.status import Phase
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.process import until
from harness.tools import print_progress
from support.real import DEPLOY, Operator, Shop

PLANS = 30
SHIFT = """
  - name: shift
    traffic:
      virtualService: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [10, 25, 50, 100]
"""
GATE = """
      dwell: 1s
    gates: [{name: errors, interval: 300ms, prometheus: {query: errors}, pass: {max: "0.5"}}]
"""
DOC = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- bench -->\n", "<!-- end of bench -->\n"


class Answers:
    """A stand-in for Prometheus that says one number and remembers when it first said a bad one."""

    def __init__(self) -> None:
        self.bad = False
        self.said_bad: float | None = None
        answers = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                value = "0.9" if answers.bad else "0.1"
                result = [{"metric": {}, "value": [time.time(), value]}]
                body = json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                if answers.bad and answers.said_bad is None:
                    answers.said_bad = time.time()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()


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


def main() -> int:
    answers = Answers()
    spans: dict[str, list[float]] = {"available": [], "next": [], "back": [], "bare": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cluster = Cluster(folder / "cluster")
        try:
            cluster.start(("mesh",))
            cluster.mesh.processes["istiod"].stop()  # its webhook is none of our time
            cluster.api.delete("/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator")
            operator = Operator(cluster, folder, {"default": {"prometheus": {"url": answers.url}}})
            operator.start()
            for number in range(PLANS):
                print_progress(f"plan {number + 1} of {PLANS}")
                _one(cluster, answers, number, spans)
            operator.stop()
        finally:
            cluster.stop()
    table = _table(spans)
    sys.stdout.write(table)
    text = DOC.read_text()
    head, _, rest = text.partition(BEGIN)
    DOC.write_text(head + BEGIN + table + END + rest.partition(END)[2])
    return 0


def _one(cluster: Cluster, answers: Answers, number: int, spans: dict[str, list[float]]) -> None:
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


def _table(spans: dict[str, list[float]]) -> str:
    bare = statistics.median(spans["bare"])
    rows = (
        ("Deployment available → first weight written", "available"),
        ("weight written → next weight written, nothing to wait for", "next"),
        ("failing sample answered → all traffic back", "back"),
        ("a bare loop: one status, then one weight", "bare"),
    )
    lines = ["| what | p50 | p95 | ratio of p50 to the bare loop | count |", "|---|---|---|---|---|"]
    for text, key in rows:
        values = sorted(spans[key])
        p50, p95 = statistics.median(values), values[int(0.95 * (len(values) - 1))]
        lines.append(f"| {text} | {1000 * p50:.1f} ms | {1000 * p95:.1f} ms | {p50 / bare:.2f} | {len(values)} |")
    machine = (
        f"{len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}, kube-apiserver and etcd beside it"
    )
    return "\n".join(lines) + f"\n\nOne plan at a time, {PLANS} plans, three simulated pods each; {machine}.\n"


if __name__ == "__main__":
    sys.exit(main())
