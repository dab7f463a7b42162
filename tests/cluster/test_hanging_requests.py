"""Requests that hang take neither the Lease nor the plans of other namespaces with them."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import until
from harness.proxy import Exchange, Fault, Proxy
from support.cluster.testbed import Testbed

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
LEASE = "/apis/coordination.k8s.io/v1/namespaces/cutover-system/leases/cutover"
TERMS = {
    "namespace": "cutover-system",
    "duration": "4s", "renewDeadline": "3s", "renewEvery": "1s", "retryEvery": "500ms",
}  # fmt: skip
ASKING = "steps: [{name: ok, approve: {message: go}}, {name: tick, wait: {for: 10ms}}]"
PLANS, GATES = 10, 10
"""Plans and gates of each; each gate asks on its own how the pods are: 100 requests at once, for 64 connections."""


def _asking_for_pods() -> dict[str, Any]:
    readiness = {"workload": {"name": "shop-v1"}, "percent": 100, "for": "1s"}
    gates = [{"name": f"pods-{gate}", "interval": "1s", "readiness": readiness} for gate in range(GATES)]
    return {"steps": [{"name": "soak", "check": {"for": "10m"}, "gates": gates}]}


class Hang:
    """Keeps requests about the pods of one namespace for ever."""

    def __init__(self, namespace: str) -> None:
        self.count, self._path = 0, f"/namespaces/{namespace}/pods"

    def rule(self, exchange: Exchange) -> Fault | None:
        return self._keep if self._path in exchange.path else None

    async def _keep(self, exchange: Exchange) -> web.StreamResponse:
        self.count += 1
        await asyncio.sleep(3600)
        return exchange.reset()

    def settled(self) -> bool:
        """Requests hang, and no more of them come."""
        before = self.count
        time.sleep(1)
        return 0 < before == self.count


def test_requests_of_one_namespace_hang(testbed: Testbed) -> None:
    def renewed() -> str:
        return str(testbed.api.get(LEASE)["spec"]["renewTime"])

    def renewed_since(last: str) -> bool:
        return renewed() != last

    with testbed.site("stuck", operators=0) as stuck, testbed.site("calm", operators=0) as calm:
        hang, proxy = (
            Hang(stuck.shop.namespace),
            Proxy(testbed.cluster.control_plane.url, testbed.cluster.control_plane.ca),
        )
        proxy.start()
        try:
            with testbed.operator("hanging", proxy, TERMS):
                calm.shop.apply(ASKING)
                calm.shop.until_phase(Phase.WAITING)
                proxy.arm(hang.rule)
                for plan in range(PLANS):
                    stuck.shop.apply(_asking_for_pods(), f"plan-{plan}")
                until("all requests that may hang do", hang.settled, deadline=20)
                for _ in range(2):
                    until("the Lease is renewed", partial(renewed_since, renewed()), deadline=8)
                calm.shop.request(RequestVerb.APPROVE, "ok")
                calm.shop.until_phase(Phase.SUCCEEDED, deadline=8)  # each of those that hang does so for 15 s
        finally:
            proxy.stop()
