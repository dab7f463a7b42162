"""How much memory a process takes beside what anybody may put into a cluster: the chart gives it 256 MB."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cutover.plan.parsing import hash_of, parse
from cutover.ports import PLAN_LABEL
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("measures a process of this machine")]
MB = 1_000_000
MOST, MORE = 200, 40
"""MB, at most at any time, and at most more than an idle process while all that is there."""
CROWD = {"app": "shop-v2"}
PLAN = """
steps:
  - name: deploy
    deploy: {workload: {name: shop-v2}, replicas: 3}
    gates: [{name: pods, readiness: {percent: 100, for: 1s}}]
  - name: switch
    switch: {service: shop-v1, selector: {app: shop-v2}}
"""
"""Its gate reads the pods of the workload as they are now, and the step after it from the cache of the API server."""


@pytest.fixture
def alone(cluster: Cluster, operator: Operator, tmp_path: Path) -> Iterator[Operator]:
    """The program as the image starts it, and no other; not started yet."""
    operator.stop()
    made = Operator(
        cluster, tmp_path, {}, program=[str(Path(sys.executable).with_name("cutover-operator"))], name="measured"
    )
    yield made
    made.stop()
    operator.start()
    until("the operator is ready", operator.ready)


def _memory(operator: Operator, which: str) -> int:
    """MB of resident memory: `VmRSS` now, `VmHWM` the most it ever was (proc(5))."""
    lines = Path(f"/proc/{operator.process.pid}/status").read_text().splitlines()
    (found,) = (line for line in lines if line.startswith(which))
    return int(found.split()[1]) // 1000


def _side_by_side(work: Callable[[int], object], count: int) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(count)))


def _config_maps(shop: Shop, count: int) -> None:
    """That carry our label, and no plan has claimed."""
    text = "x" * MB

    def one(number: int) -> None:
        metadata = {"name": f"large-{number}", "labels": {PLAN_LABEL: "no-such-plan"}}
        shop.api.create(
            f"/api/v1/namespaces/{shop.namespace}/configmaps", {"metadata": metadata, "data": {"key": text}}
        )

    _side_by_side(one, count)


def _pods(shop: Shop, count: int) -> None:
    """That carry the labels of the workload, and nobody starts."""
    spec = {"schedulerName": "nobody", "containers": [{"name": "app", "image": "shop:2"}]}

    def one(number: int) -> None:
        metadata = {"name": f"pod-{number}", "labels": CROWD, "annotations": {"note": "x" * 5_000}}
        shop.api.create(f"/api/v1/namespaces/{shop.namespace}/pods", {"metadata": metadata, "spec": spec})

    _side_by_side(one, count)


def _ended_plans(shop: Shop, of: str, count: int) -> None:
    """Copies of one that has ended."""
    real = shop.api.get(f"{shop.plans}/{of}")
    body = {name: real[name] for name in ("apiVersion", "kind", "spec")}

    def one(number: int) -> None:
        name = f"ended-{number}"
        shop.api.create(shop.plans, body | {"metadata": {"name": name, "namespace": shop.namespace}})
        run = real["status"]["run"] | {"specHash": hash_of(name, real["spec"], parse(real["spec"]))}
        shop.api.patch(f"{shop.plans}/{name}/status", {"status": real["status"] | {"run": run}})

    _side_by_side(one, count)


def _migrate(shop: Shop, operator: Operator, name: str, spec: str) -> None:
    shop.apply(spec, name)
    status = shop.until_ended(name, deadline=120)
    assert status.phase is Phase.SUCCEEDED, (status, operator.process.tail())


def _started(operator: Operator) -> None:
    operator.start()
    until("the operator is ready", operator.ready, deadline=60)


def _crowd(shop: Shop, alone: Operator, config_maps: int, pods: int, plans: int) -> None:
    """Around a process that works."""
    _started(alone)
    _migrate(shop, alone, "first", "steps: [{name: tick, wait: {for: 10ms}}]")
    idle = _memory(alone, "VmHWM")
    _config_maps(shop, config_maps)
    _pods(shop, pods)
    _migrate(shop, alone, "second", PLAN)
    streamed = _memory(alone, "VmHWM")
    alone.stop()
    _ended_plans(shop, "first", plans)
    _started(alone)
    _migrate(shop, alone, "third", "steps: [{name: tick, wait: {for: 10ms}}]")
    until("the queue is empty", lambda: "cutover_queue_depth 0.0" in alone.ask("/metrics"), deadline=120)
    most, now = _memory(alone, "VmHWM"), _memory(alone, "VmRSS")
    print(f"idle {idle} MB, with all that {streamed} MB, started with it {most} MB, then {now} MB")  # noqa: T201 -- the figures
    assert max(streamed, most) < MOST
    assert max(streamed, now) < idle + MORE


def test_a_crowd(shop: Shop, alone: Operator) -> None:
    _crowd(shop, alone, 60, 1_000, 100)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_large_crowd(shop: Shop, alone: Operator) -> None:
    _crowd(shop, alone, 400, 5_000, 1_000)
