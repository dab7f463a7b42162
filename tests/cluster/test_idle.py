"""Plans that have ended or wait for a person cost the API server nothing: no request but watches, the Lease, and a look at the CRD now and then."""

from __future__ import annotations

import time

import pytest

from cutover.status.status import ENDED, Phase
from harness.audit import Request
from harness.cluster import Cluster
from harness.process import until
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("counts requests in the audit log")]
OPERATOR = "system:serviceaccount:cutover-system:cutover"
FINISHED = "steps: [{name: tick, wait: {for: 10ms}}]"
WAITING = "steps: [{name: ok, approve: {message: go}}]"
QUIET = 2.0  # seconds


def _phases(shop: Shop) -> list[str | None]:
    return [body["status"].get("phase") for body in shop.api.list(shop.plans)]


def _idle(shop: Shop, cluster: Cluster, finished: int, waiting: int, seconds: float) -> None:
    for number in range(finished):
        shop.apply(FINISHED, f"finished-{number}")
    for number in range(waiting):
        shop.apply(WAITING, f"waiting-{number}")

    def requests_since(mark: int) -> list[Request]:
        here = ("", shop.namespace)  # namespaces of tests before this one may still be going
        made = cluster.audit.since(mark, user=OPERATOR)
        seldom = ("leases", "customresourcedefinitions")  # the latter once in ten minutes, however many plans there are
        # It asks whether the API server is ready after a 403: one in this namespace would be in the list itself, and one in
        # the namespace of a test before this one, which is being deleted, is none of these plans.
        other = ("/readyz",)
        return [one for one in made if one.resource not in seldom and one.namespace in here and one.uri not in other]

    def settled() -> bool:
        phases = _phases(shop)
        return sum(phase in ENDED for phase in phases) == finished and phases.count(Phase.WAITING) == waiting

    def quiet() -> bool:
        # Events are sent behind the status, and how many there are depends on which looks coincide: so the requests
        # are watched, not a number. One that comes at an interval passes here and is found in the longer wait below.
        mark = cluster.audit.mark()
        time.sleep(QUIET)
        return not requests_since(mark)

    until("all plans have ended or wait", settled, deadline=60)
    until("their last events are sent", quiet, deadline=60)
    mark = cluster.audit.mark()
    time.sleep(seconds)  # in which nothing happens
    assert requests_since(mark) == []
    assert set(_phases(shop)) == {Phase.SUCCEEDED, Phase.WAITING}


def test_a_few_plans_that_rest(shop: Shop, cluster: Cluster) -> None:
    _idle(shop, cluster, finished=15, waiting=5, seconds=15)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_plans_that_rest(shop: Shop, cluster: Cluster) -> None:
    _idle(shop, cluster, finished=100, waiting=20, seconds=120)
