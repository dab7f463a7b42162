"""`traffic` with an HTTPRoute of the Gateway API: what gateways say of it, what its definition allows, and SIGKILL under load.

How its requests split, by weight, header and mirror, is in `test_traffic.py` for both kinds of routes.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from cutover.status.status import Phase
from harness.api import ApiError
from harness.process import until
from support.cluster.checkout import HTTP_ROUTE, Checkout
from support.cluster.object_history import ObjectHistory
from support.cluster.shop import Operator

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.local("sends requests through the gateway of the local mesh"),
    pytest.mark.parametrize("route_kind", [HTTP_ROUTE], indirect=True, ids=["httpRoute"]),
]

SHIFT = """
steps:
  - name: shift
    traffic:
      httpRoute: {name: checkout}
      from: {host: checkout-v1}
      to: {host: checkout-v2}
      weights: [10, 25, 50, 100]
      dwell: 500ms
"""


def test_what_the_gateways_say_is_reported(checkout: Checkout) -> None:
    """A backend that is not there is not ours to judge: the gateway reports it. A parent that is not there reports nothing."""
    shop = checkout.shop
    spec = shop.api.get(checkout.path)["spec"]
    spec["rules"][0]["backendRefs"][0]["name"] = "help"
    shop.api.patch(checkout.path, {"spec": {"rules": spec["rules"]}})
    until("istiod has seen it", lambda: "BackendNotFound" in str(shop.api.get(checkout.path)["status"]))
    checkout.add("v2")
    shop.apply(SHIFT)
    assert shop.until_ended().phase is Phase.SUCCEEDED
    started = next(event["note"] for event in shop.events() if event["reason"] == "Started")
    assert (
        "Gateway istio-system/gateway (istio.io/gateway-controller) says ResolvedRefs=False of HTTPRoute checkout: "
        in started
    )
    assert "BackendNotFound" in started


def _refused_beside(checkout: Checkout) -> bool:
    """Put the refusal there, once the one that serves the route has written its status, for it writes the whole list."""
    body = checkout.shop.api.get(checkout.path)
    parents, generation = body.get("status", {}).get("parents", []), body["metadata"]["generation"]
    if any(parent["controllerName"] == "example.com/gateways" for parent in parents):
        return True
    observed = [condition["observedGeneration"] for parent in parents for condition in parent["conditions"]]
    if generation in observed:
        refuses = {
            "type": "Accepted", "status": "False", "reason": "Unsupported", "message": "no such weight",
            "observedGeneration": generation, "lastTransitionTime": "2026-01-01T00:00:00Z",
        }  # fmt: skip
        mine = {"parentRef": {"name": "edge"}, "controllerName": "example.com/gateways", "conditions": [refuses]}
        checkout.shop.api.patch(f"{checkout.path}/status", {"status": {"parents": [*parents, mine]}})
    return False


def test_what_a_gateway_refuses_goes_back(checkout: Checkout) -> None:
    """A controller of our own says no to what was written, beside the one that serves it; the real server keeps both."""
    shop = checkout.shop
    checkout.add("v2")
    before = shop.objects()
    shop.apply(SHIFT.replace("500ms", "1h"))
    until("the first weight is written", lambda: checkout.weights() == [90, 10])
    until("a gateway refuses it", lambda: _refused_beside(checkout))
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert status.failure.reason == "NotServed"
    assert (
        "Gateway edge (example.com/gateways) says Accepted=False of HTTPRoute checkout: Unsupported: no such weight"
        in (status.failure.message)
    )
    assert shop.objects() == before
    assert shop.leftovers() == []


def test_what_the_definition_allows_is_what_is_counted(checkout: Checkout) -> None:
    """Its bounds are ours, tried on the real server: one more of anything is refused by it as well."""
    shop = checkout.shop
    rule = shop.api.get(checkout.path)["spec"]["rules"][-1]

    def takes(rules: list[Any]) -> bool:
        try:
            shop.api.patch(f"{checkout.path}?dryRun=All", {"spec": {"rules": rules}})
        except ApiError as error:
            if error.status != 422:
                raise
            return False
        return True

    def matches(count: int) -> list[Any]:
        return [{"path": {"value": f"/{number}"}} for number in range(count)]

    def headers(count: int) -> list[Any]:
        return [{"headers": [{"name": f"h{number}", "value": "x"} for number in range(count)]}]

    def filters(count: int) -> list[Any]:
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "checkout-v1", "port": 80}}}
        return [mirror] * count

    for most, made in (
        (16, lambda count: [rule] * count),
        (64, lambda count: [{**rule, "matches": matches(count)}]),
        (128, lambda count: [{**rule, "matches": matches(part)} for part in (63, 60, count - 123)]),
        (16, lambda count: [{**rule, "matches": headers(count)}]),
        (16, lambda count: [{**rule, "filters": filters(count)}]),
    ):
        assert takes(made(most))
        assert not takes(made(most + 1))


def test_killed_at_any_moment(checkout: Checkout, operator: Operator) -> None:
    """SIGKILL at five moments over the whole run, under load: each weight once, no request lost, nothing left."""
    shop = checkout.shop
    checkout.add("v2")
    told = ObjectHistory(
        shop.api, shop.http_routes, lambda body: [ref["weight"] for ref in body["spec"]["rules"][-1]["backendRefs"]]
    )
    answers, over = Counter[str](), threading.Event()

    def load() -> None:
        while not over.is_set():
            answers.update(checkout.ask(1))

    asking = threading.Thread(target=load)
    asking.start()
    try:
        for number in range(5):
            _reset(checkout)
            told.begin()
            name = f"killed-{number}"
            shop.apply(SHIFT, name)
            threading.Event().wait(0.1 + number * 0.55)  # the moment is the point of the test
            operator.kill()
            operator.start()
            assert shop.until_ended(name).phase is Phase.SUCCEEDED
            assert told.all()["checkout"] == [[100, 0], [90, 10], [75, 25], [50, 50], [0, 100]], name
            assert shop.leftovers() == []
    finally:
        over.set()
        asking.join()
        told.end()
    assert answers.keys() <= {"v1", "v2"}, answers
    assert answers["v1"]
    assert answers["v2"]


def _reset(checkout: Checkout) -> None:
    """All the traffic is on the old version again."""
    given = checkout.shop.api.get(checkout.path)["spec"]["rules"]
    for entry, weight in zip(given[-1]["backendRefs"], (100, 0), strict=True):
        entry["weight"] = weight
    checkout.shop.api.patch(checkout.path, {"spec": {"rules": given}})


def test_a_backend_of_weight_0_is_not_resolved_and_one_with_weight_that_is_not_there_is_answered_with_500(
    checkout: Checkout,
) -> None:
    """So a clean status before the first weight proves nothing, and ResolvedRefs=False does not leave the traffic where it was."""
    api, spec = checkout.shop.api, checkout.spec()

    def give(weight: int) -> str:
        """What the gateway says of references, once it has seen that weight."""
        spec["rules"][1]["backendRefs"][1] |= {"name": "gone", "weight": weight}
        generation = api.patch(checkout.path, {"spec": {"rules": spec["rules"]}})["metadata"]["generation"]

        def said() -> str | None:
            parents = api.get(checkout.path)["status"].get("parents", [])
            found = [one for parent in parents for one in parent["conditions"] if one["type"] == "ResolvedRefs"]
            return str(found[0]["status"]) if found and found[0].get("observedGeneration") == generation else None

        return until("the gateway has seen it", said)

    assert give(0) == "True"
    checkout.cluster.mesh.wait_synced()
    assert checkout.ask(50) == {"v1": 50}
    assert give(100) == "False"
    checkout.cluster.mesh.wait_synced()
    split = checkout.ask(200)
    assert split.keys() == {"v1", "500"}
    assert 60 <= split["500"] <= 140, split
