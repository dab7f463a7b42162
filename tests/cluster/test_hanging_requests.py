"""Requests that hang take neither the Lease nor the plans of other namespaces with them."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from cutover.adapters.shares import OF_A_NAMESPACE
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import until
from harness.proxy import Exchange, Fault, Proxy
from support.cluster.neighbours import may_create_jobs
from support.cluster.testbed import Testbed

pytestmark = [pytest.mark.cluster, pytest.mark.local("puts a proxy between the operator and the API server")]
LEASE = "/apis/coordination.k8s.io/v1/namespaces/cutover-system/leases/cutover"
TERMS = {
    "namespace": "cutover-system",
    "duration": "4s", "renewDeadline": "3s", "renewEvery": "1s", "retryEvery": "500ms",
}  # fmt: skip
ASKING = "steps: [{name: ok, approve: {message: go}}, {name: tick, wait: {for: 10ms}}]"
PLANS, GATES = 10, 16
"""Plans and gates of each; each gate looks for its Job on its own: 160 requests at once, for 64 connections."""
RENEWALS = 15
"""Of the Lease while they hang; each of them hangs for 15 s, and then the next one does."""


def _looking_for_jobs() -> dict[str, Any]:
    """A plan that asks, and then measures with Jobs."""
    template = json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "check", "image": "check:1"}]}}}})
    gates = [{"name": f"job-{gate}", "interval": "1s", "job": {"template": template}} for gate in range(GATES)]
    return {
        "steps": [
            {"name": "ok", "approve": {"message": "go"}},
            {"name": "soak", "check": {"for": "10m"}, "gates": gates},
        ]
    }


class Hang:
    """Answers no request about the Jobs of one namespace.

    Attributes:
        held: how many of them wait for an answer now.
    """

    def __init__(self, namespace: str) -> None:
        self.held, self._path = 0, f"/namespaces/{namespace}/jobs"

    def rule(self, exchange: Exchange) -> Fault | None:
        return self._keep if self._path in exchange.path else None

    async def _keep(self, exchange: Exchange) -> web.StreamResponse:
        self.held += 1
        try:
            while not exchange.given_up:
                await asyncio.sleep(0.1)
        finally:
            self.held -= 1
        return exchange.reset()


def test_requests_of_one_namespace_hang(testbed: Testbed) -> None:
    def renewed() -> str:
        return str(testbed.api.get(LEASE)["spec"]["renewTime"])

    def renewed_since(last: str) -> bool:
        return renewed() != last

    with testbed.site("stuck", operators=0) as stuck, testbed.site("calm", operators=0) as calm:
        plane, names = testbed.cluster.control_plane, [f"plan-{number}" for number in range(PLANS)]
        hang, proxy = Hang(stuck.shop.namespace), Proxy(plane.url, plane.ca)
        may_create_jobs(stuck.shop)
        proxy.start()
        try:
            with testbed.operator("hanging", proxy, TERMS):
                calm.shop.apply(ASKING)
                for name in names:
                    stuck.shop.apply(_looking_for_jobs(), name)
                calm.shop.until_phase(Phase.WAITING)
                for name in names:
                    stuck.shop.until_phase(Phase.WAITING, name)
                proxy.arm(hang.rule)
                for name in names:
                    stuck.shop.request(RequestVerb.APPROVE, "ok", name)
                until("as many hang as may", lambda: hang.held >= OF_A_NAMESPACE, deadline=30)
                for _ in range(RENEWALS):
                    until("the Lease is renewed", partial(renewed_since, renewed()), deadline=8)
                calm.shop.request(RequestVerb.APPROVE, "ok")
                calm.shop.until_phase(Phase.SUCCEEDED, deadline=8)
                assert hang.held == OF_A_NAMESPACE
        finally:
            proxy.stop()
