"""What a stage costs the API server, counted in its audit log."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase, Verdict
from harness.cluster import Cluster
from harness.process import until
from support.cluster.fixtures import Gauges
from support.cluster.shop import DEPLOY, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("counts requests in the audit log")]

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
    until("the events so far are sent", lambda: len(_events(shop)) >= 4)
    mark = cluster.audit.mark()  # before the approval: all that comes later is counted
    shop.request(RequestVerb.APPROVE, "ok")
    shop.until(lambda s: s.phase is Phase.WAITING and s.current is not None and s.current.step == "rest")
    counted = Counter(
        (request.verb, "/".join(filter(None, (request.resource, request.subresource))))
        for request in cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace)
    )
    stages, around = 10, 3  # around them: the approval, the end of the step, the wait after it
    assert counted["patch", "virtualservices"] == stages, counted
    assert stages <= counted["update", "migrationplans/status"] <= stages + around, counted
    assert counted["create", "events"] <= stages + around, counted
    reads = sum(count for (verb, _), count in counted.items() if verb in ("get", "list"))
    # Once a step: whether its account is there, what its snapshot will keep, and the ports of both Services.
    assert reads <= 2 * stages + 4, counted
    once = 5  # a step: these four, and the snapshot
    assert sum(counted.values()) <= 5 * stages + 2 * around + once, counted


def test_a_verdict_that_flips(shop: Shop, cluster: Cluster, gauges: Gauges) -> None:
    """A gate that changes its mind every second costs a status every ten at most."""
    gauges.lines["mind"] = 0
    gate = '{name: mind, interval: 1s, failureThreshold: 1000, prometheus: {query: mind}, pass: {max: "0.5"}}'
    shop.apply(f"steps:\n  - {{name: soak, check: {{for: 5m}}, gates: [{gate}]}}\n")
    shop.until(lambda s: s.current is not None and bool(s.current.gates) and s.current.gates[0].verdict is Verdict.PASS)
    mark, begun, flips = cluster.audit.mark(), time.monotonic(), 0
    while time.monotonic() < begun + 25:
        gauges.lines["mind"] = float(flips % 2 == 0)
        until("Prometheus has seen it", lambda: _mind(cluster) == gauges.lines["mind"])
        flips += 1
    took = time.monotonic() - begun
    saved = [
        request
        for request in cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace)
        if request.verb == "update" and request.resource == "migrationplans"
    ]
    assert flips >= 6
    assert 1 <= len(saved) <= 1 + took // 10, (flips, saved)


def _mind(cluster: Cluster) -> float:
    return float(cluster.prometheus.query("mind")[0]["value"][1])


def test_a_waiting_plan_costs_nothing(shop: Shop, cluster: Cluster) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go}}}}\n")
    shop.until_phase(Phase.WAITING)
    until("the events are sent", lambda: len(_events(shop)) >= 4)
    mark, since = cluster.audit.mark(), time.monotonic()
    with pytest.raises(AssertionError):
        shop.until_phase(Phase.SUCCEEDED, deadline=12)
    waited = time.monotonic() - since  # longer where all of the machine is slow
    assert cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace) == []
    lease = cluster.audit.since(mark, user=OPERATOR, namespace="cutover-system")
    assert {(request.verb, request.resource) for request in lease} == {("update", "leases")}
    assert len(lease) <= waited / 5 + 1


def _events(shop: Shop) -> list[object]:
    found = shop.api.list(f"/apis/events.k8s.io/v1/namespaces/{shop.namespace}/events")
    return [event for event in found if event["regarding"].get("kind") == "MigrationPlan"]
