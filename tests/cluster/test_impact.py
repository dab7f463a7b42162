"""What else a plan meets, on the real API server: quotas and limit ranges that its admission heeds, marks of other tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from cli.test_cli import cutover
from cutover.status.status import Phase, Status
from harness.kind import AnyCluster
from harness.process import until
from support.cluster.shop import Shop

pytestmark = pytest.mark.cluster
_LIMITS = "{type: Container, max: {memory: 1Gi}, default: {memory: 1Gi, cpu: 100m}}"


def condition(status: Status, kind: str) -> Any:
    return next((found for found in status.conditions if found.type == kind), None)


def put_quota(shop: Shop, pods: int) -> None:
    """As Kubernetes has it: its controller counts what is there, and only then the quota is in force."""
    spec = {"hard": {"pods": str(pods), "requests.cpu": "10"}}
    metadata = {"name": "compute", "namespace": shop.namespace}
    shop.api.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec})
    path = f"/api/v1/namespaces/{shop.namespace}/resourcequotas/compute"

    def counted() -> bool:
        status = shop.api.get(path).get("status") or {}
        return bool(status.get("hard") == spec["hard"] and status.get("used", {}).get("pods") == "3")

    until("the quota is counted", counted)


def test_a_quota_that_would_refuse_the_pods_is_reported_with_its_figures(shop: Shop) -> None:
    """What is foretold is what the server does: of these pods it takes as many as there is room for, and no more."""
    limits = {"metadata": {"name": "range", "namespace": shop.namespace}, "spec": {"limits": [yaml.safe_load(_LIMITS)]}}
    shop.api.apply({"apiVersion": "v1", "kind": "LimitRange", **limits})
    put_quota(shop, pods=5)
    before = shop.objects()
    shop.apply("startDeadline: 2m\nsteps: [{name: scale, deploy: {workload: {name: shop-v2}, replicas: 3}}]")
    status = shop.until(lambda s: s.phase is Phase.PENDING and "ResourceQuota" in s.message)
    assert status.message == (
        "steps[scale].deploy: pods of Deployment shop-v2 would be refused: "
        "ResourceQuota compute: needs 3 more pods, 3 of 5 used; raise the quota or request less"
    )
    assert shop.objects() == before
    put_quota(shop, pods=6)
    assert shop.until_ended().phase is Phase.SUCCEEDED
    until("there is no room left", lambda: shop.endpoints("shop-v2") == 3)


def test_a_limit_range_that_would_refuse_the_pods(shop: Shop) -> None:
    limits = {"metadata": {"name": "range", "namespace": shop.namespace}, "spec": {"limits": [yaml.safe_load(_LIMITS)]}}
    shop.api.apply({"apiVersion": "v1", "kind": "LimitRange", **limits})
    before = shop.objects()
    patch = "{template: {spec: {containers: [{name: app, resources: {limits: {memory: 2Gi}}}]}}}"
    shop.apply(
        f"startDeadline: 1s\nsteps: [{{name: big, deploy: {{workload: {{name: shop-v1}}, patch: '{patch}'}}}}]",
    )
    shop.refuses(before, "LimitRange range: container app has memory limit 2Gi, which must be at most 1Gi")


def test_the_marks_of_argo_cd_make_a_condition_and_stop_nothing(shop: Shop) -> None:
    mark = {"argocd.argoproj.io/tracking-id": f"site:apps/Deployment:{shop.namespace}/shop-v2"}
    shop.api.patch(f"{shop.deployments}/shop-v2", {"metadata": {"annotations": mark}})
    budget = {"metadata": {"name": "keep", "namespace": shop.namespace}}
    spec = {"minAvailable": 3, "selector": {"matchLabels": {"app": "shop-v1"}}}
    shop.api.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", **budget, "spec": spec})
    path = f"/apis/policy/v1/namespaces/{shop.namespace}/poddisruptionbudgets/keep"
    until("the budget is counted", lambda: shop.api.get(path).get("status", {}).get("currentHealthy") == 3)
    shop.apply("""
steps:
  - {name: roll, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}]}}
  - {name: old, deploy: {workload: {name: shop-v1}, images: [{container: app, image: "shop:2"}]}}
""")
    status = shop.until_ended()
    assert status.phase is Phase.SUCCEEDED
    drift = condition(status, "GitOpsDriftRisk")
    assert (drift.status, drift.reason) == ("True", "OwnedByArgoCD")
    assert "Argo CD application site owns Deployment shop-v2 and writes back what git says" in drift.message
    (ignored,) = yaml.safe_load(drift.message.partition("\n")[2])["spec"]["ignoreDifferences"]
    assert ignored["jqPathExpressions"] == ['.spec.template.spec.containers[] | select(.name == "app") | .image']
    hindered = condition(status, "CapacityRisk")
    assert "PodDisruptionBudget keep allows no pod of Deployment shop-v1 to be evicted now" in hindered.message


PLAN = """
apiVersion: cutover.dev/v1alpha1
kind: MigrationPlan
metadata: {name: release}
spec:
  serviceAccountName: migrator
  steps:
    - {name: roll, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
    - {name: old, deploy: {workload: {name: shop-v1}, images: [{container: app, image: "shop:2"}]}}
    - {name: shift, traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [100]}}
    - {name: gone, deploy: {workload: {name: shop-v9}, replicas: 1}}
"""


def test_the_command_line_says_all_that_stands_around(shop: Shop, cluster: AnyCluster) -> None:
    """Of a plan in a file and of one in the cluster, as text and as JSON; nothing is written."""
    mark = {"argocd.argoproj.io/tracking-id": f"site:apps/Deployment:{shop.namespace}/shop-v2"}
    shop.api.patch(f"{shop.deployments}/shop-v2", {"metadata": {"annotations": mark}})
    metadata = {"name": "scaler", "namespace": shop.namespace}
    aim = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop-v1"}
    spec: dict[str, Any] = {"scaleTargetRef": aim, "minReplicas": 2, "maxReplicas": 9}
    scaler = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata}
    shop.api.apply({**scaler, "spec": spec})
    shop.apply(
        "steps: [{name: ok, approve: {message: go}}, {name: v1, deploy: {workload: {name: shop-v1}, replicas: 3}}]",
        "other",
    )
    put_quota(shop, pods=5)
    before = shop.objects()
    kubeconfig = cluster.kubeconfig
    done = cutover("impact", "/dev/stdin.yaml", "-n", shop.namespace, kubeconfig=kubeconfig)
    assert done.returncode == 64
    done = cutover("impact", "-", "-n", shop.namespace, kubeconfig=kubeconfig, stdin=PLAN)
    assert done.returncode == 0, done.stderr
    for line in (
        "Deployment shop-v2, owned by Argo CD (application site)",
        '  writes: .spec.replicas, .spec.template.spec.containers[] | select(.name == "app") | .image',
        "  Services: shop-v2",
        "  VirtualServices: shop (weight 0)",
        "  VirtualServices: shop (weight 100)",
        "  HorizontalPodAutoscalers: scaler (2 to 9)",
        "  Services: shop-v1, shop-v2",
        "Deployment shop-v9: does not exist",
        "  step roll: Deployment shop-v2: 0 pods, then 3, at most 3 in between",
        "  step old: Deployment shop-v1: 3 pods, then 3, at most 4 in between",
        "GitOpsDriftRisk: Argo CD application site owns Deployment shop-v2 and writes back what git says; ",
        "needs 3 more pods, 3 of 5 used",
    ):
        assert line in done.stdout, done.stdout
    assert "other plans: other (" in done.stdout
    done = cutover("impact", "other", "-n", shop.namespace, "-o", "json", kubeconfig=kubeconfig)
    (target,) = json.loads(done.stdout)["targets"]
    assert (target["target"], target["plans"]) == ("Deployment shop-v1", [])
    assert shop.objects() == before
