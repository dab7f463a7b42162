"""Who owns the fields of a target, on the real API server: after a rollback its former owners do, after a success the plan does too."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.targets.ownership import fields_of
from harness.api import ApiError
from harness.process import until
from support.cluster.shop import Shop

pytestmark = pytest.mark.cluster

CHART = """
apiVersion: v1
kind: ConfigMap
metadata: {name: flags, namespace: NAMESPACE}
data: {MODE: old}
---
apiVersion: v1
kind: Service
metadata: {name: front, namespace: NAMESPACE}
spec: {selector: {app: shop-v1}, ports: [{name: http, port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: NAMESPACE}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: "web:1", envFrom: [{configMapRef: {name: flags}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: NAMESPACE}
spec:
  hosts: [NAMESPACE.example]
  http: [{name: primary, route: [{destination: {host: shop-v1}, weight: 100}, {destination: {host: shop-v2}, weight: 0}]}]
"""
PLAN = """
steps:
  - {name: up, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: image
    deploy:
      workload: {name: web}
      images: [{container: app, image: "web:2"}]
      patch: '{template: {metadata: {annotations: {config: "2"}}, spec: {terminationGracePeriodSeconds: 7}}}'
  - {name: flip, flags: {configMap: flags, set: {MODE: new, MORE: "1"}, reload: [{name: web}]}}
  - {name: front, switch: {service: front, selector: {app: shop-v2}}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
"""
ASK = "  - {name: ok, approve: {message: go}}\n"
PARTS = ("f:spec", "f:data")


def release(shop: Shop, image: str = "web:1", mode: str = "old", *, only: str = "") -> None:
    """What Helm 4 does, and Flux and Argo CD in their ways: a server-side apply without force. Raises ApiError."""
    text = CHART.replace("NAMESPACE", shop.namespace).replace("web:1", image).replace("MODE: old", f"MODE: {mode}")
    for manifest in yaml.safe_load_all(text):
        if only in ("", manifest["kind"]):
            path = f"{shop.api.path(manifest)}?fieldManager=helm"
            shop.api.request("PATCH", path, manifest, "application/apply-patch+yaml")


def owners(shop: Shop) -> dict[str, Any]:
    """Of each target the managers with the fields that they own; of status and metadata nothing."""
    found = {}
    for manifest in yaml.safe_load_all(CHART.replace("NAMESPACE", shop.namespace)):
        entries = shop.api.get(shop.api.path(manifest))["metadata"]["managedFields"]
        for entry in entries:
            fields = sorted(field for field in fields_of(entry) if field[0] in PARTS)
            if fields:
                found[f"{manifest['kind']}, {entry['manager']} {entry['operation']}"] = fields
    return found


@pytest.fixture
def chart(shop: Shop) -> Shop:
    """The harness has applied these routes itself; they become the chart's."""
    shop.api.delete(shop.routes)
    release(shop)
    until("web runs", lambda: shop.api.get(f"{shop.deployments}/web")["status"].get("availableReplicas") == 2)
    return shop


def test_after_a_rollback_the_next_release_goes_through(chart: Shop) -> None:
    before = owners(chart)
    assert not any("cutover" in who for who in before)
    chart.apply(PLAN + ASK)
    chart.until_phase(Phase.WAITING, deadline=60)
    there = copy.deepcopy(owners(chart))
    assert sum("cutover" in who for who in there) == len(list(yaml.safe_load_all(CHART)))
    chart.request(RequestVerb.ABORT)
    assert chart.until_ended(deadline=60).phase is Phase.ROLLED_BACK
    assert owners(chart) == before
    assert chart.leftovers() == []
    release(chart, "web:3", "next")
    assert owners(chart) == before


def test_after_a_success_a_release_goes_through_where_it_follows(chart: Shop) -> None:
    chart.apply(PLAN.partition("  - {name: flip")[0])
    assert chart.until_ended(deadline=60).phase is Phase.SUCCEEDED
    for image in ("web:1", "web:3"):
        with pytest.raises(ApiError, match='conflict with "cutover"'):
            release(chart, image, only="Deployment")
    release(chart, "web:2", only="Deployment")
    assert ("f:spec", "f:template", "f:spec", "f:containers", 'k:{"name":"app"}', "f:image") in owners(chart)[
        "Deployment, helm Apply"
    ]
