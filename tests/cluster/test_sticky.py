"""Visitors who stay on the version that answered first, counted through Envoy, on both kinds of routes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.process import until
from support.cluster.checkout import Checkout, RouteKind

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]


def sticky(kind: RouteKind, weights: list[int]) -> dict[str, Any]:
    sides = {"from": {"host": "checkout-v1"}, "to": {"host": "checkout-v2"}}
    kept = {"cookie": "visit", "maxAge": "1h"}
    traffic = {kind.field: kind.named, **sides, "weights": weights, "dwell": "20s", "stickiness": kept}
    return {"steps": [{"name": "shift", "traffic": traffic}]}


def at_weight(checkout: Checkout, weight: int) -> None:
    checkout.until_weights(100 - weight, weight, deadline=60)


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


def test_a_visitor_stays_until_its_version_has_nothing_left(checkout: Checkout) -> None:
    shop = checkout.shop
    checkout.add("v2")
    before = shop.objects()
    shop.apply(sticky(checkout.kind, [50, 100]))
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


def test_a_cookie_of_another_run_means_nothing(checkout: Checkout) -> None:
    shop = checkout.shop
    checkout.add("v2")
    shop.apply(sticky(checkout.kind, [50]), "first")
    at_weight(checkout, 50)
    visitors = newcomers(checkout)
    shop.request(RequestVerb.ABORT, name="first")
    assert shop.until_ended("first").phase is Phase.ROLLED_BACK
    shop.apply(sticky(checkout.kind, [50]), "second")
    at_weight(checkout, 50)
    for cookie in visitors.values():
        answers = Counter(checkout.visit(cookie)[0][0] for _ in range(100))
        assert 20 <= answers["v2"] <= 80, answers
    assert shop.until_ended("second", deadline=60).phase is Phase.SUCCEEDED
    checkout.spec()
    assert checkout.visit("", 1)[1] == "", "nobody sets a cookie any more"
    assert shop.leftovers() == []


def test_users_whom_a_rule_keeps_on_their_pods_come_to_another_one(checkout: Checkout) -> None:
    """Where the rules of both sides do so: Envoy joins their hashes, so the first weight is another hash for all."""
    shop, users = checkout.shop, [f"user-{number}" for number in range(40)]
    for number in range(4):
        checkout.add("v1", says=f"v1-{number}")
    for host in ("checkout-v1", "checkout-v2"):
        hashed = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}
        shop.api.apply({
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": {"name": host, "namespace": shop.namespace},
            "spec": {"host": host, "trafficPolicy": hashed},
        })  # fmt: skip

    def pods() -> dict[str, str]:
        checkout.cluster.mesh.wait_synced()
        return {user: next(iter(checkout.ask(1, **{"x-user": user}))) for user in users}

    def settled() -> bool:
        return pods() == pods()

    until("users are kept on pods", settled)
    before = pods()
    shop.apply({"steps": [{"name": "shift", "traffic": {
        checkout.kind.field: checkout.kind.named, "from": {"host": "checkout-v1"}, "to": {"host": "checkout-v2"}, "weights": [10],
        "dwell": "10m",
    }}]})  # fmt: skip
    at_weight(checkout, 10)
    (started,) = (event["note"] for event in shop.events() if event["reason"] == "Started")
    assert (
        "DestinationRule checkout-v1 keeps users on their pods by spec.trafficPolicy.loadBalancer.consistentHash"
        in started
    )
    now = pods()
    stayed = [user for user in users if now[user].startswith("v1")]
    moved = [user for user in stayed if now[user] != before[user]]
    assert len(moved) > len(stayed) / 2, (len(moved), len(stayed))
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert pods() == before
