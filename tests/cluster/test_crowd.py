"""What a plan costs in a namespace with many objects of others, and what many plans cost there; counted in the audit log."""

from __future__ import annotations

from collections import Counter

import pytest

from harness.api import Api
from harness.cluster import Cluster
from harness.process import until
from support.cluster.crowd import Crowd, Watcher
from support.cluster.shop import DEPLOY, SHIFT, Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("counts requests in the audit log")]

OPERATOR = "system:serviceaccount:cutover-system:cutover"
RETIRE = "  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}\n"
MORE = 10
"""Requests beside many objects of others, at most: their lists have several pages, and a rollout has more or fewer events."""
RUNS = 3
WEIGHTS = (10, 25, 50, 100)
A_WEIGHT = 17.0
"""Requests a weight in a crowd of twenty, at most, with all of the life of its plan. 13.0 were counted among a hundred; how many reads are shared varies."""


@pytest.mark.parametrize("size", [100, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.timeout(1800)
def test_objects_of_others_cost_nothing(shop: Shop, cluster: Cluster, size: int) -> None:
    """So many Services, twice so many Deployments and so many VirtualServices that have nothing to do with the plan."""
    alone = _cost(shop, cluster, "alone")
    Crowd(cluster, shop.namespace, size, pods=0, prefix="other").make()
    beside: list[Counter[str]] = []
    # A rollout that takes a second longer is asked about more often: what others cost is in every run, a pause is not.
    while not beside or (beside[-1].total() > alone.total() + MORE and len(beside) < RUNS):
        beside.append(_cost(shop, cluster, f"beside-{len(beside)}"))
    assert min(cost.total() for cost in beside) <= alone.total() + MORE, (alone, beside)


def _cost(shop: Shop, cluster: Cluster, name: str) -> Counter[str]:
    """All requests of a plan from when it is applied until it has ended, those for no namespace included.

    Not those for others: what is left of plans that were deleted with theirs is looked for again minutes later.
    """
    shop.create()
    mark = cluster.audit.mark()
    shop.apply(f"steps:{DEPLOY}{SHIFT}{RETIRE}", name)
    shop.until_ended(name, deadline=60)
    until("its events are sent", lambda: any(event["reason"] == "Succeeded" for event in shop.events(name)))
    found = cluster.audit.since(mark, user=OPERATOR)
    return Counter(f"{one.verb} {one.resource}" for one in found if one.namespace in (shop.namespace, ""))


@pytest.mark.usefixtures("operator")
def test_a_crowd_shares_its_reads(api: Api, cluster: Cluster, namespace: str, operator: Operator) -> None:
    """Twenty plans at once in one namespace: each asks for much that all of them ask for."""
    del api, operator
    crowd = Crowd(cluster, namespace, 20)
    crowd.make()
    crowd.make_account()
    until("the old pods are ready", lambda: _ready(crowd) == len(crowd.names))
    watcher, mark = Watcher(crowd), cluster.audit.mark()
    crowd.apply(WEIGHTS)
    watcher.until_over(deadline=120)
    shop = Shop(crowd.api, namespace)
    for name in crowd.names:
        shop.until_ended(name, deadline=60)
    found = Counter(
        f"{one.verb} {one.resource}" for one in cluster.audit.since(mark, user=OPERATOR, namespace=namespace)
    )
    assert found.total() <= A_WEIGHT * len(crowd.names) * len(WEIGHTS), found


def _ready(crowd: Crowd) -> int:
    found = crowd.api.list(f"/apis/apps/v1/namespaces/{crowd.namespace}/deployments")
    return sum(body["status"].get("availableReplicas", 0) == 1 for body in found)
