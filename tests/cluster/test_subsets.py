"""Subsets of a rule for all hosts of the namespace, counted in requests: shifted, and taken back once the rule has lost the new one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import VIRTUAL_SERVICE, Checkout
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: both, namespace: NAMESPACE}
spec: {selector: {team: checkout}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: NAMESPACE}
spec:
  host: "*.NAMESPACE.svc.cluster.local"
  subsets: [{name: v1, labels: {app: checkout-v1}}, {name: v2, labels: {app: checkout-v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  hosts: [checkout.NAMESPACE.example]
  gateways: [istio-system/gateway]
  http:
    - name: primary
      retries: {attempts: 0}
      route:
        - {destination: {host: both, subset: v1}, weight: 100}
        - {destination: {host: both, subset: v2}, weight: 0}
"""
ROUTE = "virtualService: {name: checkout}, from: {host: both, subset: v1}, to: {host: both, subset: v2}"
SHIFT = f"""
steps:
  - {{name: half, traffic: {{{ROUTE}, weights: [50]}}}}
  - {{name: ok, approve: {{message: go}}}}
  - {{name: rest, traffic: {{{ROUTE}, weights: [100]}}}}
"""


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster) -> Iterator[Checkout]:
    made = Checkout(shop, cluster, VIRTUAL_SERVICE, MANIFESTS)
    made.start()
    made.add("v2")
    yield made
    made.stop()


@pytest.mark.parametrize("lost", [False, True], ids=["forward", "back"])
def test_a_subset_gets_traffic_as_long_as_a_rule_defines_it(checkout: Checkout, lost: bool) -> None:  # noqa: FBT001 -- a parameter
    shop = checkout.shop
    rule = f"/apis/networking.istio.io/v1/namespaces/{shop.namespace}/destinationrules/all"
    subsets: list[Any] = shop.api.get(rule)["spec"]["subsets"]
    shop.apply(SHIFT)
    shop.until_phase(Phase.WAITING)
    checkout.until_weights(50, 50)
    checkout.assert_halved()
    if lost:
        shop.api.patch(rule, {"spec": {"subsets": subsets[:1]}})
        until("requests fail", lambda: "503" in checkout.ask(10))
        assert checkout.ask(40).keys() == {"v1", "503"}, "though all its former endpoints are ready"
    shop.request(RequestVerb.APPROVE, "ok")
    status = shop.until_ended()
    checkout.spec()
    assert checkout.ask(40) == {"v1" if lost else "v2": 40}
    assert status.phase is (Phase.ROLLED_BACK if lost else Phase.SUCCEEDED)
    if lost:
        assert status.failure is not None
        assert status.failure.reason == "SideNotReady"
        assert (
            "both subset v2 carries traffic, and subset v2 of host both is in no DestinationRule"
            in status.failure.message
        )
