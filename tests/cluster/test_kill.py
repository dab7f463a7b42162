"""The operator dies by SIGKILL at random moments of the demo's migrations, under load, and is started again.

`make test` takes five moments of each migration, `make test-long` twenty.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.plan import read_status
from cutover.status import ENDED, Phase, Status
from harness.cluster import ROOT, Cluster
from harness.process import Process, until
from support.real import Operator

pytestmark = pytest.mark.cluster
DEMO = ROOT / "demo"
SEED = int(os.environ.get("SEED", "1"))
PLANS = "/apis/cutover.dev/v1alpha1/namespaces/shop/migrationplans"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
ROUTES = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
ENTRIES = "/apis/networking.istio.io/v1/namespaces/shop/workloadentries"


class DemoShop:
    """The shop of the demo under load, and what was seen of it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.api, self.folder = cluster, cluster.api, folder
        self.sums: set[int] = set()
        self.templates: dict[str, list[Any]] = {}
        self._ending = threading.Event()

    def start(self) -> None:
        self.reset()
        url, record = self.cluster.mesh.gateway_url, self.folder / "requests.txt"
        until("the first pods are routed", lambda: len(self.api.list(ENTRIES)) >= 2)
        self.cluster.mesh.wait_synced()
        command = [sys.executable, str(DEMO / "load.py"), url, "shop.example", "100", str(record)]
        self.load = Process("load", command, log=self.folder / "load.log")
        self.load.start()
        for watch in (self._watch_routes, self._watch_deployments, self._follow_pods):
            threading.Thread(target=watch, daemon=True).start()

    def reset(self) -> None:
        """The shop as it is before migration 1."""
        text = (DEMO / "shop.yaml").read_text().replace("$(DEMO)", str(DEMO))
        for manifest in yaml.safe_load_all(text):
            self.api.apply(manifest, manager="demo")

    def stop(self) -> None:
        self._ending.set()
        self.load.stop()

    def _watch_routes(self) -> None:
        while not self._ending.is_set():
            for _, body in self.api.watch(ROUTES, seconds=30):
                for route in body["spec"]["http"]:
                    self.sums.add(sum(entry.get("weight", 0) for entry in route["route"]))

    def _watch_deployments(self) -> None:
        while not self._ending.is_set():
            for _, body in self.api.watch(DEPLOYMENTS, seconds=30):
                spec = body["spec"]
                seen = self.templates.setdefault(body["metadata"]["name"], [])
                value = (spec["replicas"], spec["template"]["spec"]["containers"][0]["image"])
                if not seen or seen[-1] != value:
                    seen.append(value)

    def _follow_pods(self) -> None:
        known: list[str] = []
        while not self._ending.wait(0.2):
            addresses = sorted(f"{entry['spec']['address']}:8080" for entry in self.api.list(ENTRIES))
            if addresses != known:
                known = addresses
                self.cluster.prometheus.scrape("shop", *known)

    def requests(self) -> list[tuple[float, int]]:
        lines = (self.folder / "requests.txt").read_text().splitlines()[:-1]
        return [(float(line.split()[0]), int(line.split()[2])) for line in lines]

    def objects(self) -> dict[tuple[str, str], Any]:
        found = {}
        for path in (DEPLOYMENTS, ROUTES):
            for body in self.api.list(path):
                metadata = body["metadata"]
                annotations = dict(metadata.get("annotations") or {})
                annotations.pop("deployment.kubernetes.io/revision", None)
                found[metadata["name"], path] = (body["spec"], metadata.get("labels"), annotations)
        return found


@pytest.fixture(scope="module")
def demo_shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoShop]:
    made = DemoShop(cluster, tmp_path_factory.mktemp("demo"))
    made.start()
    yield made
    made.stop()
    cluster.api.delete("/api/v1/namespaces/shop")


def _migrate(
    shop: DemoShop, operator: Operator, file: str, name: str, kill_after: float
) -> tuple[Status, float, float]:
    """Run one migration with dwells of a second; kill the operator after so many seconds. Status, begin, end."""
    plan = yaml.safe_load((DEMO / file).read_text())
    plan["metadata"]["name"] = name
    plan["spec"]["steps"][0]["gates"][0]["readiness"]["for"] = "500ms"
    traffic = plan["spec"]["steps"][1]
    traffic["traffic"]["dwell"] = "1s"
    prometheus = traffic["gates"][0]["prometheus"]
    prometheus["window"] = "3s"
    traffic["gates"][0]["interval"] = "500ms"
    begun = time.time()
    shop.api.apply(plan, manager="demo")
    time.sleep(kill_after)  # the moment is the point of the test
    operator.kill()
    operator.start()
    status = Status()

    def ended() -> bool:
        nonlocal status
        body = shop.api.get(f"{PLANS}/{name}")
        status = read_status(body.get("status"))
        return status.phase in ENDED and not body["metadata"].get("finalizers")

    until(f"{name} has ended", ended, deadline=90, process=operator.process)
    return status, begun, time.time()


def _moments(count: int, longest: float) -> list[float]:
    chosen = random.Random(SEED)  # noqa: S311 -- repeatable on purpose
    return [chosen.uniform(0.05, longest) for _ in range(count)]


def _check_clean(shop: DemoShop) -> None:
    assert shop.sums <= {100}
    assert shop.api.list("/apis/apps/v1/namespaces/shop/controllerrevisions") == []
    for _, labels, _ in shop.objects().values():
        assert not any(label.startswith("cutover.dev/") for label in labels or {})


def _both(shop: DemoShop, operator: Operator, moments: list[float], tag: str) -> None:
    for number, moment in enumerate(moments):
        shop.reset()
        until("the first pods are routed", lambda: _blue_only(shop), deadline=60)
        shop.cluster.mesh.wait_synced()
        shop.templates.clear()
        status, begun, ended = _migrate(shop, operator, "migration-1.yaml", f"{tag}-{number}-2", moment)
        where = f"killed after {moment:.2f}s: {status}"
        assert status.phase is Phase.SUCCEEDED, where
        failed = [code for at, code in shop.requests() if begun <= at <= ended and code != 200]
        assert failed == [], where
        assert shop.templates["shop-green"][-2:] == [(0, "shop:0"), (2, "shop:2")], where
        _check_clean(shop)
        before = shop.objects()
        shop.templates.clear()
        status, _, _ = _migrate(shop, operator, "migration-2.yaml", f"{tag}-{number}-3", moment)
        where = f"killed after {moment:.2f}s: {status}"
        assert status.phase is Phase.ROLLED_BACK, where
        assert shop.objects() == before, where
        assert shop.templates["shop-blue"][-3:] == [(2, "shop:1"), (2, "shop:3"), (2, "shop:1")], where
        _check_clean(shop)


def _blue_only(shop: DemoShop) -> bool:
    entries = shop.api.list(ENTRIES)
    names = sorted(entry["spec"]["labels"]["app"] for entry in entries)
    status = shop.api.get(f"{DEPLOYMENTS}/shop-blue")["status"]
    return names == ["shop-blue", "shop-blue"] and status.get("updatedReplicas") == 2


@pytest.mark.timeout(600)
def test_killed_at_five_moments(demo_shop: DemoShop, operator: Operator) -> None:
    if not operator.alive:
        operator.start()
    _both(demo_shop, operator, _moments(5, 7.0), "few")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_killed_at_twenty_moments(demo_shop: DemoShop, operator: Operator) -> None:
    if not operator.alive:
        operator.start()
    _both(demo_shop, operator, _moments(20, 8.0), "many")


def test_the_demo_leaves_no_process() -> None:
    """What the harness starts dies with it."""
    script = "from harness.process import Process; from pathlib import Path; import time\n"
    script += "p = Process('s', ['sleep', '300'], log=Path('/dev/null')); p.start(); print(p.pid, flush=True); time.sleep(300)"
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(
        "the child is gone", lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()
    )
