"""Pods that go while a plan has moved traffic, on the real control plane: noticed by a stream, and nothing is asked until then."""

from __future__ import annotations

import time

import pytest

from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import DEPLOY, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("counts requests in the audit log, and pods have no kubelet")]
OPERATOR = "system:serviceaccount:cutover-system:cutover"
SHIFT = """
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100], dwell: 10m}
"""
BOUND = 5.0


def _become_unready(shop: Shop, app: str) -> None:
    path = f"/api/v1/namespaces/{shop.namespace}/pods"
    for pod in shop.api.list(path, f"app={app}"):
        status = {"conditions": [{"type": "Ready", "status": "False"}]}
        shop.api.patch(f"{path}/{pod['metadata']['name']}/status", {"status": status}, "strategic")


def test_it_waits_without_a_request_and_notices_at_once(shop: Shop, cluster: Cluster) -> None:
    shop.apply(f"steps:{DEPLOY}\n{SHIFT}")
    shop.until(lambda status: status.current is not None and status.current.weight == 50, deadline=120)
    until("half of the traffic is moved", lambda: shop.weights() == [50, 50])

    def asked(mark: int) -> list[str]:
        made = cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace)
        return [f"{one.verb} {one.uri}" for one in made]

    def quiet() -> bool:
        mark = cluster.audit.mark()
        time.sleep(12)  # longer than a status is put off, and than the two seconds of a count without a stream
        return not asked(mark)

    until("it is streamed", quiet, deadline=60)
    mark = cluster.audit.mark()
    time.sleep(10)  # in which nothing happens
    assert asked(mark) == []
    _become_unready(shop, "shop-v2")
    until("the Service has no endpoint", lambda: shop.endpoints("shop-v2") == 0)
    begun = time.monotonic()
    until("the traffic is back", lambda: shop.weights() == [100, 0])
    assert time.monotonic() - begun < BOUND
    status = shop.until(lambda status: status.failure is not None)
    assert status.failure is not None
    assert status.failure.reason == "SideNotReady"
    assert status.phase in (Phase.ROLLING_BACK, Phase.ROLLED_BACK)
