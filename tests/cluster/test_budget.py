"""What a stage costs the API server, counted in its audit log."""

from __future__ import annotations

from collections import Counter

import pytest

from cutover.requests import RequestVerb
from cutover.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.real import DEPLOY, Shop

pytestmark = pytest.mark.cluster

OPERATOR = "system:serviceaccount:cutover-system:cutover"
SHIFT = """
  - name: shift
    traffic:
      virtualService: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      weights: [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
      dwell: 300ms
"""


def test_requests_of_a_weight(shop: Shop, cluster: Cluster) -> None:
    """One status, one VirtualService, at most one event, at most two reads."""
    shop.apply(
        f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n{SHIFT}\n  - {{name: rest, approve: {{message: go}}}}\n"
    )
    shop.until_phase(Phase.WAITING)
    shop.request(RequestVerb.APPROVE, "ok")
    shop.until(lambda s: s.current is not None and s.current.stage == "1/10" and s.current.step == "shift")
    until("weight 10 is written", lambda: shop.weights()[1] >= 10)
    mark = cluster.audit.mark()
    shop.until(lambda s: s.current is not None and s.current.step == "rest")
    counted = Counter(
        (request.verb, "/".join(filter(None, (request.resource, request.subresource))))
        for request in cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace)
    )
    stages = 9
    assert counted["patch", "virtualservices"] == stages
    assert (
        stages <= counted["update", "migrationplans/status"] <= stages + 2
    )  # the end of the step and the wait after it
    assert counted["create", "events"] <= stages + 2
    reads = sum(count for (verb, _), count in counted.items() if verb in ("get", "list"))
    assert reads <= 2 * stages
    assert sum(counted.values()) <= 5 * stages + 4, counted


def test_a_waiting_plan_costs_nothing(shop: Shop, cluster: Cluster) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n")
    shop.until_phase(Phase.WAITING)
    until("the events are sent", lambda: len(_events(shop)) >= 4)
    mark = cluster.audit.mark()
    with pytest.raises(AssertionError):
        shop.until_phase(Phase.SUCCEEDED, deadline=12)
    assert cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace) == []
    lease = cluster.audit.since(mark, user=OPERATOR, namespace="cutover-system")
    assert {(request.verb, request.resource) for request in lease} == {("update", "leases")}
    assert len(lease) <= 12 / 5 + 1


def _events(shop: Shop) -> list[object]:
    found = shop.api.list(f"/apis/events.k8s.io/v1/namespaces/{shop.namespace}/events")
    return [event for event in found if event["regarding"].get("kind") == "MigrationPlan"]
