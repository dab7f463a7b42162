"""The load of one author must not stop the others."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from harness.cluster import Cluster
from support.cluster.neighbours import VAST_GATES, VAST_STEPS, compare, may_create_jobs, ratio, vast
from support.cluster.shop import Shop

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.local("counts requests in the audit log, and needs the machine for itself"),
]
OPERATOR = "system:serviceaccount:cutover-system:cutover"


def test_what_a_look_at_a_vast_plan_costs(shop: Shop, cluster: Cluster) -> None:
    """About a call for each Job of a gate, and not again at once: before, it was that every few seconds."""
    may_create_jobs(shop)
    mark = cluster.audit.mark()
    shop.apply(vast())
    shop.until(lambda status: "there is no Deployment missing" in status.message, deadline=120)
    time.sleep(20)  # in which it is not looked at again
    made = cluster.audit.since(mark, user=OPERATOR, namespace=shop.namespace)
    counted = Counter((request.verb, request.resource) for request in made)
    assert counted["create", "jobs"] == VAST_STEPS * VAST_GATES, counted
    assert sum(counted.values()) < VAST_STEPS * VAST_GATES * 1.1, counted


@pytest.mark.long
def test_weights_and_rollbacks_beside_a_neighbour(shop: Shop, neighbour: Shop) -> None:
    alone, beside = compare(shop, neighbour, rounds=5, plans=8, gates=4)
    assert ratio(alone.nexts, beside.nexts, 99) <= 2
    assert ratio(alone.backs, beside.backs, 99) <= 1.5


@pytest.fixture
def neighbour(shop: Shop) -> Iterator[Shop]:
    """Another namespace; the whole of it is deleted after the test."""
    api, name = shop.api, f"{shop.namespace}-neighbour"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    made = Shop(api, name)
    made.create(pods=1)
    yield made
    api.delete(f"/api/v1/namespaces/{name}")
