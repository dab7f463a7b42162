"""Plans that have ended or wait for a person cost the API server nothing: no request but watches, and the Lease."""

from __future__ import annotations

import time

import pytest

from cutover.status.status import ENDED, Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("counts requests in the audit log")]
OPERATOR = "system:serviceaccount:cutover-system:cutover"
FINISHED = "steps: [{name: tick, wait: {for: 10ms}}]"
WAITING = "steps: [{name: ok, approve: {message: go}}]"


def _phases(shop: Shop) -> list[str | None]:
    return [body["status"].get("phase") for body in shop.api.list(shop.plans)]


def _idle(shop: Shop, cluster: Cluster, finished: int, waiting: int, seconds: float) -> None:
    for number in range(finished):
        shop.apply(FINISHED, f"finished-{number}")
    for number in range(waiting):
        shop.apply(WAITING, f"waiting-{number}")

    def settled() -> bool:
        phases = _phases(shop)
        return (
            sum(phase in ENDED for phase in phases) == finished
            and phases.count(Phase.WAITING) == waiting
            and len(_events(shop)) >= 3 * finished + 3 * waiting
        )

    until("all plans have ended or wait, and their events are sent", settled, deadline=60)
    mark = cluster.audit.mark()
    time.sleep(seconds)  # in which nothing happens
    requests = cluster.audit.since(mark, user=OPERATOR)
    here = ("", shop.namespace)  # namespaces of tests before this one may still be going
    assert [request for request in requests if request.resource != "leases" and request.namespace in here] == []
    assert set(_phases(shop)) == {Phase.SUCCEEDED, Phase.WAITING}


def _events(shop: Shop) -> list[object]:
    found = shop.api.list(f"/apis/events.k8s.io/v1/namespaces/{shop.namespace}/events")
    return [event for event in found if event["regarding"].get("kind") == "MigrationPlan"]


def test_a_few_plans_that_rest(shop: Shop, cluster: Cluster) -> None:
    _idle(shop, cluster, finished=15, waiting=5, seconds=15)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_plans_that_rest(shop: Shop, cluster: Cluster) -> None:
    _idle(shop, cluster, finished=100, waiting=20, seconds=120)
