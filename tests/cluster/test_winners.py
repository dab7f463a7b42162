"""`traffic` where another object wins, counted in requests: refused while it does, moved when it does not, and back when it begins to.

The order itself is in `test_istio_order.py`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.api import Api
from harness.cluster import Cluster
from harness.envoy import LABELS, SYSTEM
from harness.process import until
from support.cluster.checkout import HTTP_ROUTE, VIRTUAL_SERVICE, Checkout, RouteKind
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

_VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: rival, namespace: OTHER}
spec:
  hosts: [rival.NAMESPACE.example]
  gateways: [istio-system/gateway]
  http: [{match: [{uri: {prefix: /}}], directResponse: {status: 418}}]
"""
_HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: NAMESPACE, namespace: istio-system}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: gateway.istio-system.svc.cluster.local}]
  listeners:
    - {name: http, port: 80, protocol: HTTP, hostname: checkout.NAMESPACE.example, allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rival, namespace: OTHER}
spec:
  hostnames: [rival.NAMESPACE.example]
  parentRefs: [{name: NAMESPACE, namespace: istio-system}]
  rules: [{matches: [{path: {value: /}}]}]
"""


@dataclass(frozen=True)
class Rival:
    """An object that is older than that of the checkout, and wins once it has these hosts."""

    kind: RouteKind
    manifests: str
    wins: dict[str, Any]
    answers: str


RIVALS = {
    "an older VirtualService of another namespace": Rival(
        VIRTUAL_SERVICE, _VIRTUAL_SERVICE, {"hosts": ["checkout.NAMESPACE.example"]}, "418"
    ),
    "an older HTTPRoute without hostnames at a listener with one": Rival(
        HTTP_ROUTE, _HTTP_ROUTE, {"hostnames": None}, "500"
    ),
}
SHIFT = """
startDeadline: 1s
steps:
  - {name: half, traffic: {ROUTE, from: {host: checkout-v1}, to: {host: checkout-v2}, weights: [50]}}
  - {name: ok, approve: {message: go}}
  - {name: rest, traffic: {ROUTE, from: {host: checkout-v1}, to: {host: checkout-v2}, weights: [100]}}
"""


@pytest.fixture
def other(api: Api, namespace: str) -> Iterator[str]:
    """Another namespace, which the plan's account knows nothing of."""
    name = f"{namespace}-other"
    api.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    api.delete(f"/api/v1/namespaces/{name}")
    gateway = f"/apis/gateway.networking.k8s.io/v1/namespaces/{SYSTEM}/gateways/{namespace}"
    if api.find(gateway):
        api.delete(gateway)


@pytest.mark.parametrize("rival", RIVALS.values(), ids=RIVALS)
def test_traffic_moves_only_where_no_other_object_takes_it(
    shop: Shop, cluster: Cluster, other: str, rival: Rival
) -> None:
    def filled(text: str) -> str:
        return text.replace("NAMESPACE", shop.namespace).replace("OTHER", other)

    *_, body = bodies = list(yaml.safe_load_all(filled(rival.manifests)))
    for one in bodies:
        shop.api.apply(one)
    time.sleep(1)  # an age is in whole seconds
    path, wins = shop.api.path(body), yaml.safe_load(filled(yaml.safe_dump(rival.wins)))
    field = next(iter(wins))
    own = rival.kind.manifest
    if rival.kind is HTTP_ROUTE:
        own = own.replace("name: gateway, namespace", "name: NAMESPACE, namespace")
    checkout = Checkout(shop, cluster, rival.kind, own)
    checkout.start()
    checkout.add("v2")

    def let(spec: dict[str, Any], answers: str) -> None:
        shop.api.patch(path, {"spec": spec})
        until("the gateway knows it", lambda: checkout.ask(1) == {answers: 1}, deadline=30)

    before = shop.objects()
    named = f"{rival.kind.field}: {yaml.safe_dump(rival.kind.named, default_flow_style=True).strip()}"
    shift = SHIFT.replace("ROUTE", named)
    let(wins, rival.answers)
    assert checkout.ask(20) == {rival.answers: 20}
    shop.apply(shift, "lost")
    status = shop.until_ended("lost")
    assert status.phase is Phase.REFUSED
    assert "gets no requests, so its weights have no effect: a " in status.message
    assert "of another namespace, which the plan's account may not get, is tried before it" in status.message
    assert other not in status.message
    assert shop.objects() == before

    let({field: body["spec"][field]}, "v1")
    shop.apply(shift)
    shop.until_phase(Phase.WAITING)
    checkout.until_weights(50, 50)
    checkout.assert_halved()
    let(wins, rival.answers)
    shop.request(RequestVerb.APPROVE, "ok")
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "NotServed"
    assert shop.objects() == before
    let({field: body["spec"][field]}, "v1")
    assert checkout.ask(20) == {"v1": 20}

    shop.apply(shift, "again")
    shop.until_phase(Phase.WAITING, "again")
    shop.request(RequestVerb.APPROVE, "ok", "again")
    assert shop.until_ended("again").phase is Phase.SUCCEEDED
    checkout.until_weights(0, 100)
    assert checkout.ask(50) == {"v2": 50}
    checkout.stop()


@pytest.mark.parametrize("route_kind", [VIRTUAL_SERVICE], indirect=True, ids=["virtualService"])
def test_a_route_below_one_that_takes_all_is_refused(checkout: Checkout) -> None:
    """The expression takes all, so no weight would move any request."""
    shop = checkout.shop
    routes = [
        {"match": [{"uri": {"regex": ".*"}}], "name": "all", "route": [{"destination": {"host": "checkout-v1"}}]},
        *checkout.routes(),
    ]
    shop.api.patch(checkout.path, {"spec": {"http": routes}})
    checkout.add("v2")
    shop.apply(SHIFT.replace("ROUTE", "virtualService: {name: checkout, routes: [primary]}"))
    status = shop.until_ended()
    assert status.phase is Phase.REFUSED
    assert (
        "route primary gets no requests, so its weights have no effect: route all is tried before it" in status.message
    )
    assert checkout.ask(20) == {"v1": 20}


@pytest.mark.parametrize("route_kind", [VIRTUAL_SERVICE], indirect=True, ids=["virtualService"])
def test_a_host_that_no_server_of_its_gateway_serves_is_refused(checkout: Checkout) -> None:
    """No request comes to it, and nobody says so: a VirtualService has no status."""
    shop, cluster = checkout.shop, checkout.cluster
    server = {"port": {"number": cluster.mesh.gateway_port, "name": "http", "protocol": "HTTP"}, "bind": "127.0.0.1"}
    place = {"name": "inner", "namespace": shop.namespace}
    hosts = ["inner.example", f"*/*.checkout.{shop.namespace}.example", f"elsewhere/checkout.{shop.namespace}.example"]
    shop.api.apply({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": place,
        "spec": {"selector": LABELS, "servers": [{**server, "hosts": hosts}]},
    })  # fmt: skip
    shop.api.patch(checkout.path, {"spec": {"gateways": ["inner"]}})
    until("no request comes to it", lambda: checkout.ask(1) == {"404": 1}, deadline=30)
    checkout.add("v2")
    before = shop.objects()
    shop.apply(SHIFT.replace("ROUTE", "virtualService: {name: checkout, routes: [primary]}"))
    shop.refuses(before, "no server of the gateways of VirtualService checkout serves any of its hosts")
