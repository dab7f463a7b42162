"""Sequences that users of such tools have reported, on the real control plane, from their first object to the end of the run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness import tools
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Shop
from support.fakes.migration_tool import MigrationTool

pytestmark = pytest.mark.cluster

ASK = "  - {name: ok, approve: {message: go}}\n"
ROLL = """
steps:
  - name: roll
    deploy:
      workload: {name: shop-v1}
      images: [{container: app, image: "shop:2"}]
      patch: '{template: {metadata: {annotations: {config-version: "42"}}}}'
"""
RESTARTED = "kubectl.kubernetes.io/restartedAt"
SHIFT = """
startDeadline: 1s
steps:
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: OLD}, to: {host: shop-v2}, weights: [50, 100]}
"""
LEGACY = "legacy.example.com"


def _pods(shop: Shop, app: str) -> list[Any]:
    return list(shop.api.list(f"/api/v1/namespaces/{shop.namespace}/pods", f"app={app}"))


@pytest.mark.local("runs kubectl with its kubeconfig")
def test_a_restart_by_hand_after_the_step_is_kept_by_the_rollback(shop: Shop, cluster: Cluster) -> None:
    before = shop.api.get(f"{shop.deployments}/shop-v1")["spec"]
    assert "annotations" not in before["template"]["metadata"]
    shop.apply(ROLL + ASK)
    shop.until_phase(Phase.WAITING)
    command = [str(tools.locate("kubectl")), "rollout", "restart", "deployment/shop-v1", "-n", shop.namespace]
    env = {**os.environ, "KUBECONFIG": str(cluster.control_plane.kubeconfig)}
    subprocess.run(command, env=env, check=True, capture_output=True, timeout=60)
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    after = shop.api.get(f"{shop.deployments}/shop-v1")["spec"]
    assert set(after["template"]["metadata"].pop("annotations")) == {RESTARTED}
    assert after == before
    assert shop.leftovers() == []


@pytest.mark.local("its tool is a process of the process node")
def test_what_cannot_be_undone_begins_when_the_last_old_pod_is_gone(shop: Shop, tmp_path: Path) -> None:
    """The controller counts a rollout as complete while pods of the version before still run."""
    tool, busy = MigrationTool(shop, tmp_path), "test.example/busy"
    held = {"spec": {"template": {"metadata": {"finalizers": [busy]}, "spec": {"terminationGracePeriodSeconds": 600}}}}
    shop.api.patch(f"{shop.deployments}/shop-v1", held)
    until(
        "each pod is held", lambda: all(busy in pod["metadata"].get("finalizers", ()) for pod in _pods(shop, "shop-v1"))
    )
    old = {pod["metadata"]["name"] for pod in _pods(shop, "shop-v1")}
    image = {"workload": {"name": "shop-v1"}, "images": [{"container": "app", "image": "shop:2"}]}
    contract = {"name": "contract", "irreversible": True, "job": tool.job(down=None)}
    shop.apply({"steps": [{"name": "v2", "deploy": image}, contract]})
    status = shop.until(lambda status: status.current is not None and "still terminating" in status.current.message)
    assert status.current is not None
    assert status.current.message.startswith(
        f"{len(old)} pods of Deployment shop-v1 are still terminating, such as {min(old)}"
    )
    rollout = shop.api.get(f"{shop.deployments}/shop-v1")["status"]
    assert rollout["updatedReplicas"] == rollout["availableReplicas"] == rollout["replicas"] == len(old)
    *others, last = sorted(old)
    for name in others:
        _let_go(shop, name)
    shop.until(
        lambda status: (
            status.current is not None
            and f"1 pods of Deployment shop-v1 are still terminating, such as {last}" in status.current.message
        )
    )
    assert (tool.jobs(), tool.done()) == ([], [])
    _let_go(shop, last)
    assert shop.until_ended(deadline=60).phase is Phase.SUCCEEDED
    assert tool.done() == ["up"]
    for pod in _pods(shop, "shop-v1"):
        _let_go(shop, pod["metadata"]["name"])


def _let_go(shop: Shop, pod: str) -> None:
    shop.api.patch(f"/api/v1/namespaces/{shop.namespace}/pods/{pod}", {"metadata": {"finalizers": None}})


def test_an_old_side_outside_of_the_namespace_is_refused_before_anything_is_touched(shop: Shop) -> None:
    entry = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "legacy", "namespace": shop.namespace},
        "spec": {
            "hosts": [LEGACY],
            "location": "MESH_EXTERNAL",
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
        },
    }
    shop.api.apply(entry)
    host = [{"op": "replace", "path": "/spec/http/0/route/0/destination/host", "value": LEGACY}]
    shop.api.patch(shop.routes, host, kind="json")
    before = shop.objects()
    shop.apply(SHIFT.replace("OLD", LEGACY))
    shop.refuses(
        before,
        f"steps[shift].traffic.from.host: host {LEGACY} is not a Service of the plan's namespace; "
        "traffic can be shifted between its Services only; name one, or give what runs elsewhere a WorkloadEntry that one selects",
    )


def test_an_old_service_that_selects_the_new_pods_too_is_told_and_gets_traffic_back_with_pods_of_its_own(
    shop: Shop,
) -> None:
    for name, count in (("shop-v1", 3), ("shop-v2", 3)):
        team = {"spec": {"replicas": count, "template": {"metadata": {"labels": {"team": "shop"}}}}}
        shop.api.patch(f"{shop.deployments}/{name}", team)
    shop.api.patch(
        f"/api/v1/namespaces/{shop.namespace}/services/shop-v1", {"spec": {"selector": {"app": None, "team": "shop"}}}
    )
    until("both sides have their pods", lambda: (shop.endpoints("shop-v1"), shop.endpoints("shop-v2")) == (6, 3))
    shop.apply(SHIFT.replace("OLD", "shop-v1") + ASK)
    shop.until_phase(Phase.WAITING)
    started = next(event["note"] for event in shop.events() if event["reason"] == "Started")
    assert (
        "steps[shift].traffic.from: shop-v1 selects the pods of Deployment shop-v2, as shop-v2 does, so a rollback sends traffic to them; "
        "add to the selector of Service shop-v1 app: shop-v1, which only its own pods have" in started
    )
    old = f"{shop.deployments}/shop-v1"
    shop.api.patch(old, {"spec": {"replicas": 0}})
    until("only the new pods are left", lambda: shop.endpoints("shop-v1") == 3)
    shop.request(RequestVerb.ABORT)
    shop.until(lambda status: "shop-v1 has no ready endpoint but those that shop-v2 selects too" in status.message)
    assert shop.weights() == [0, 100]
    shop.api.patch(old, {"spec": {"replicas": 3}})
    assert shop.until_ended(deadline=90).phase is Phase.ROLLED_BACK
    assert shop.weights() == [100, 0]
