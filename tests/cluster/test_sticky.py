"""Visitors who stay on the version that answered first, counted through Envoy; and VirtualServices that hand requests on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import Checkout
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  hosts: [checkout.NAMESPACE.example]
  gateways: [istio-system/gateway]
  http:
    - name: primary
      retries: {attempts: 0}
      route:
        - {destination: {host: checkout-v1}, weight: 100}
        - {destination: {host: checkout-v2}, weight: 0}
"""
HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  hostnames: [checkout.NAMESPACE.example]
  parentRefs: [{name: gateway, namespace: istio-system}]
  rules:
    - backendRefs:
        - {name: checkout-v1, port: 80, weight: 100}
        - {name: checkout-v2, port: 80, weight: 0}
"""


def sticky(where: str, weights: list[int]) -> dict[str, Any]:
    sides = {"from": {"host": "checkout-v1"}, "to": {"host": "checkout-v2"}}
    kept = {"cookie": "visit", "maxAge": "1h"}
    traffic = {where: {"name": "checkout"}, **sides, "weights": weights, "dwell": "20s", "stickiness": kept}
    return {"steps": [{"name": "shift", "traffic": traffic}]}


@pytest.fixture(params=["virtualService", "httpRoute"])
def where(request: pytest.FixtureRequest) -> str:
    named: str = request.param
    return named


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster, where: str) -> Iterator[Checkout]:
    if where == "httpRoute":
        made = Checkout(shop, cluster, HTTP_ROUTE, cluster.mesh.routes_url, f"{shop.http_routes}/checkout")
    else:
        path = f"{shop.routes.rpartition('/')[0]}/checkout"
        made = Checkout(shop, cluster, VIRTUAL_SERVICE, cluster.mesh.gateway_url, path)
    made.start()
    made.add("v2")
    yield made
    made.stop()


def at_weight(checkout: Checkout, weight: int) -> None:
    """The weight is written, and the gateway knows it."""

    def written() -> bool:
        spec = checkout.spec()
        last = spec["http"][-1]["route"] if "http" in spec else spec["rules"][-1]["backendRefs"]
        return [entry.get("weight", 0) for entry in last] == [100 - weight, weight]

    until(f"weight {weight} is written", written, deadline=60)
    checkout.spec()


def newcomers(checkout: Checkout) -> dict[str, str]:
    """A visitor of each version, with the cookie that says so."""
    found = dict[str, str]()
    for _ in range(200):
        (version,), cookie = checkout.visit("")
        assert cookie.startswith("visit=")
        found.setdefault(version, cookie)
        if found.keys() == {"v1", "v2"}:
            return found
    raise AssertionError(f"half of them should be of each version, and there was only {found}")


def test_a_visitor_stays_until_its_version_has_nothing_left(checkout: Checkout, where: str) -> None:
    shop = checkout.shop
    before = shop.objects()
    shop.apply(sticky(where, [50, 100]))
    at_weight(checkout, 50)
    visitors = newcomers(checkout)
    for version, cookie in visitors.items():
        assert checkout.visit(f"a=b; {cookie}", 5)[0] == [version] * 5
        assert checkout.visit(f"{cookie}; c=d", 5)[0] == [version] * 5
    at_weight(checkout, 100)
    assert checkout.visit(visitors["v2"], 5)[0] == ["v2"] * 5
    versions, cookie = checkout.visit(visitors["v1"], 5)
    assert versions == ["v2"] * 5, "the old version has no weight left, so nobody is kept there"
    assert cookie == visitors["v2"]
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    checkout.spec()
    for cookie in visitors.values():
        assert checkout.visit(cookie, 5) == (["v1"] * 5, cookie), "the new version is gone, and nobody is kept there"
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_a_cookie_of_another_run_means_nothing(checkout: Checkout, where: str) -> None:
    shop = checkout.shop
    shop.apply(sticky(where, [50]), "first")
    at_weight(checkout, 50)
    visitors = newcomers(checkout)
    shop.request(RequestVerb.ABORT, name="first")
    assert shop.until_ended("first").phase is Phase.ROLLED_BACK
    shop.apply(sticky(where, [50]), "second")
    at_weight(checkout, 50)
    for cookie in visitors.values():
        answers = Counter(checkout.visit(cookie)[0][0] for _ in range(100))
        assert 20 <= answers["v2"] <= 80, answers
    assert shop.until_ended("second", deadline=60).phase is Phase.SUCCEEDED
    checkout.spec()
    assert checkout.visit("", 1)[1] == "", "nobody sets a cookie any more"
    assert shop.leftovers() == []
