"""The operator dies by SIGKILL at random moments of the demo's migrations, under load, and is started again.

`make test` takes five moments of each migration, `make test-long` twenty, spread over the time that it takes uncrashed.
"""

from __future__ import annotations

import copy
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import follow
import pytest
import yaml

from cutover.plan.status_document import read_status
from cutover.status.status import ENDED, Phase, Status
from harness.cluster import ROOT, Cluster
from harness.process import Process, until
from support.cluster.object_history import ObjectHistory
from support.cluster.shop import Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("kills, pauses or starts operators that are processes")]
DEMO = ROOT / "demo"
SEED = int(os.environ.get("SEED", "1"))
PLANS = "/apis/cutover.dev/v1alpha1/namespaces/shop/migrationplans"
DEPLOYMENTS = "/apis/apps/v1/namespaces/shop/deployments"
ROUTES = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices"
ENTRIES = "/apis/networking.istio.io/v1/namespaces/shop/workloadentries"


def _weights(body: Any) -> list[list[int]]:
    return [[entry.get("weight", 0) for entry in route["route"]] for route in body["spec"]["http"]]


def _template(body: Any) -> Any:
    return body["spec"]["replicas"], body["spec"]["template"]


class DemoShop:
    """The shop of the demo under load, and what was seen of it."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.api, self.folder = cluster, cluster.api, folder

    def start(self) -> None:
        self.reset()
        url, record = self.cluster.mesh.gateway_url, self.folder / "requests.txt"
        until("the first pods are routed", lambda: len(self.api.list(ENTRIES)) >= 2)
        self.cluster.mesh.wait_synced()
        command = [sys.executable, str(DEMO / "load.py"), url, "shop.example", "200", str(record)]
        self.load = Process("load", command, log=self.folder / "load.log")
        self.load.start()
        self.follow = follow.process(self.cluster, "shop", self.folder / "follow.log")
        self.follow.start()
        self.weights = ObjectHistory(self.api, ROUTES, _weights)
        self.templates = ObjectHistory(self.api, DEPLOYMENTS, _template)

    def reset(self) -> None:
        """The shop as it is before migration 1."""
        text = (DEMO / "shop.yaml").read_text().replace("$(DEMO)", str(DEMO))
        for manifest in yaml.safe_load_all(text):
            self.api.apply(manifest, manager="demo")

    def stop(self) -> None:
        for changes in (self.weights, self.templates):
            changes.end()
        for process in (self.load, self.follow):
            process.stop()

    def codes(self, begun: float, ended: float) -> set[int]:
        """What the requests of some time were answered with."""
        lines = (self.folder / "requests.txt").read_text().splitlines()[:-1]
        told = [(float(line.split()[0]), int(line.split()[2])) for line in lines]
        return {code for at, code in told if begun <= at <= ended}

    def objects(self) -> dict[str, Any]:
        return Shop(self.api, "shop").objects()


@pytest.fixture(scope="module")
def demo_shop(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoShop]:
    made = DemoShop(cluster, tmp_path_factory.mktemp("demo"))
    made.start()
    yield made
    made.stop()
    cluster.control_plane.drop_namespace("shop")  # waits: no process of a pod may outlive the test run


@pytest.fixture(scope="module")
def lengths(demo_shop: DemoShop, operator: Operator) -> tuple[float, float]:
    """How long each migration takes when nobody is killed, in seconds."""
    if not operator.alive:
        operator.start()
    return _first(demo_shop, operator, "whole-2", None), _second(demo_shop, operator, "whole-3", None)


def _migrate(
    shop: DemoShop, operator: Operator, file: str, name: str, kill_after: float | None
) -> tuple[Status, float]:
    """Run one migration with dwells of a second; kill the operator after so many seconds. The end, and when it began."""
    plan = yaml.safe_load((DEMO / file).read_text())
    plan["metadata"]["name"] = name
    plan["spec"]["steps"][0]["gates"][0]["readiness"]["for"] = "500ms"
    traffic = plan["spec"]["steps"][1]
    traffic["traffic"]["dwell"] = "1s"
    prometheus = traffic["gates"][0]["prometheus"]
    prometheus["window"] = "3s"
    traffic["gates"][0]["interval"] = "1s"
    for changes in (shop.weights, shop.templates):
        changes.begin()
    begun = time.time()
    shop.api.apply(plan, manager="demo")
    if kill_after is not None:
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
    return status, begun


def _moments(count: int, longest: float, salt: int) -> list[float]:
    """One at random in each of so many equal parts of the time, so that no part of a migration is left out."""
    chosen = random.Random(SEED + salt)  # noqa: S311 -- repeatable on purpose
    return [(number + chosen.random()) * longest / count for number in range(count)]


def _first(shop: DemoShop, operator: Operator, name: str, moment: float | None) -> float:
    """Migration 1, from the shop as it is at first; how long it took."""
    shop.reset()
    until("the first pods are routed", lambda: _blue_only(shop), deadline=60)
    shop.cluster.mesh.wait_synced()
    status, begun = _migrate(shop, operator, "migration-1.yaml", name, moment)
    ended, where = time.time(), f"killed after {moment}s: {status}"
    assert status.phase is Phase.SUCCEEDED, where
    assert shop.codes(begun, ended) == {200}, where
    _check(shop, where, {"shop-blue": ["2 of shop:1"], "shop-green": ["0 of shop:0", "2 of shop:2"]})
    assert shop.weights.all()["shop"] == [[[100 - weight, weight]] for weight in (0, 10, 25, 50, 100)], where
    return ended - begun


def _second(shop: DemoShop, operator: Operator, name: str, moment: float | None) -> float:
    """Migration 2, after migration 1; how long it took."""
    before = shop.objects()
    status, begun = _migrate(shop, operator, "migration-2.yaml", name, moment)
    ended, where = time.time(), f"killed after {moment}s: {status}"
    assert status.phase is Phase.ROLLED_BACK, where
    assert shop.objects() == before, where
    assert {200} <= shop.codes(begun, ended) <= {200, 500}, where  # the new version says 500 at times, nobody else does
    _check(shop, where, {"shop-blue": ["2 of shop:1", "2 of shop:3", "2 of shop:1"], "shop-green": ["2 of shop:2"]})
    assert all(sum(weights) == 100 for routes in shop.weights.all()["shop"] for weights in routes), where
    return ended - begun


def _check(shop: DemoShop, where: str, wanted: dict[str, list[str]]) -> None:
    """Each step changed its Deployment once, in image and replicas alone; nothing of ours is left."""
    found = shop.templates.all()
    brief = {name: [f"{replicas} of {_image(template)}" for replicas, template in told] for name, told in found.items()}
    assert brief == wanted, where
    for told in found.values():
        rests = []
        for _, template in copy.deepcopy(told):
            template["spec"]["containers"][0].pop("image")
            rests.append(template)
        assert all(rest == rests[0] for rest in rests), where
    assert Shop(shop.api, "shop").leftovers() == [], where


def _image(template: Any) -> str:
    image: str = template["spec"]["containers"][0]["image"]
    return image


def _both(shop: DemoShop, operator: Operator, lengths: tuple[float, float], count: int, tag: str) -> None:
    """Both migrations so many times, killed at moments over their whole length and a little beyond."""
    moments = [_moments(count, 1.05 * length + 0.2, salt) for salt, length in enumerate(lengths)]
    for number, (first, second) in enumerate(zip(*moments, strict=True)):
        _first(shop, operator, f"{tag}-{number}-2", first)
        _second(shop, operator, f"{tag}-{number}-3", second)


def _blue_only(shop: DemoShop) -> bool:
    entries = shop.api.list(ENTRIES)
    names = sorted(entry["spec"]["labels"]["app"] for entry in entries)
    status = shop.api.get(f"{DEPLOYMENTS}/shop-blue")["status"]
    return names == ["shop-blue", "shop-blue"] and status.get("updatedReplicas") == 2


@pytest.mark.timeout(900)
def test_killed_at_five_moments(demo_shop: DemoShop, operator: Operator, lengths: tuple[float, float]) -> None:
    _both(demo_shop, operator, lengths, 5, "few")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_killed_at_twenty_moments(demo_shop: DemoShop, operator: Operator, lengths: tuple[float, float]) -> None:
    _both(demo_shop, operator, lengths, 20, "many")


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
