"""`traffic` with an HTTPRoute of the Gateway API, where requests really split: by weight, by header, mirrored, and under SIGKILL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.api import ApiError
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import Checkout, example
from support.cluster.object_history import Changes
from support.cluster.shop import Operator, Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  hostnames: [checkout.NAMESPACE.example]
  parentRefs: [{name: gateway, namespace: istio-system}]
  rules:
    - matches: [{path: {value: /help}}]
      backendRefs: [{name: checkout-v1, port: 80}]
    - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-via, value: gateway}]}}]
      backendRefs:
        - {name: checkout-v1, port: 80, weight: 100}
        - {name: checkout-v2, port: 80, weight: 0}
"""
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


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster) -> Iterator[Checkout]:
    made = Checkout(shop, cluster, ROUTE, cluster.mesh.routes_url, f"{shop.http_routes}/checkout")
    made.start()
    yield made
    made.stop()


def rules(checkout: Checkout) -> Any:
    return checkout.spec()["rules"]


def weights(checkout: Checkout) -> list[int]:
    return [entry["weight"] for entry in rules(checkout)[-1]["backendRefs"]]


def the_example(gates: list[Any]) -> dict[str, Any]:
    return example("canary-http-route.yaml", gates)


LOOK = {"name": "look", "prometheus": {"query": "nothing_at_all"}, "pass": {"max": "1"}}
"""It has no data, so the plan stays in its stage until a person skips it."""


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_requests_split_by_weight_and_by_header(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """One endpoint is enough for the header and for half of the rest; the last weight waits for the second one."""
    shop = checkout.shop
    before = shop.objects()
    shop.apply(the_example([]))
    shop.until(lambda s: s.current is not None and s.current.weight == 100)
    until("half of the weight is written", lambda: weights(checkout) == [50, 50])
    assert [len(rule["backendRefs"]) for rule in rules(checkout)] == [1, 1, 2]
    assert checkout.ask(100, canary="true") == {"v2": 100}
    assert checkout.ask(20, canary="false").keys() == {"v1", "v2"}
    assert checkout.ask(20, "/help", canary="true") == {"v1": 20}, "its path is the more specific one"
    checkout.assert_halved()
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    assert len(rules(checkout)) == 2
    assert checkout.ask(50, canary="true") == checkout.ask(50) == {"v1" if back else "v2": 50}
    assert shop.leftovers() == []


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_a_mirror_is_counted_and_never_answers(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    shop = checkout.shop
    checkout.add("v2")
    before, was = shop.objects(), rules(checkout)
    spec = the_example([LOOK])
    shop.apply(spec)
    shop.until(lambda s: s.current is not None and bool(s.current.gates))
    assert [one["type"] for one in rules(checkout)[-1]["filters"]] == ["RequestHeaderModifier", "RequestMirror"]
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(300) == {"v1": 300}
    until("some requests are mirrored", lambda: checkout.counted("v2") - new >= 30)
    assert checkout.counted("v2") - new <= 100, "20 percent was asked for"
    assert checkout.counted("v1") - old == 300
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        shop.request(RequestVerb.SKIP, "shift")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    now = rules(checkout)
    assert [{**rule, "backendRefs": 0} for rule in now] == [{**rule, "backendRefs": 0} for rule in was]
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(100) == {"v1" if back else "v2": 100}
    assert (checkout.counted("v1") - old, checkout.counted("v2") - new) == ((100, 0) if back else (0, 100))
    assert shop.leftovers() == []


def test_what_the_gateways_say_is_told(checkout: Checkout) -> None:
    """A backend that is not there is no business of ours, and the gateway says so; a parent that is not there says nothing."""
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
    """Put the refusal there, once the one that serves the route has said what it says, for it writes the whole list."""
    body = checkout.shop.api.get(checkout.path)
    parents, generation = body.get("status", {}).get("parents", []), body["metadata"]["generation"]
    if any(parent["controllerName"] == "example.com/gateways" for parent in parents):
        return True
    said = [condition["observedGeneration"] for parent in parents for condition in parent["conditions"]]
    if generation in said:
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
    until("the first weight is written", lambda: weights(checkout) == [90, 10])
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
    told = Changes(
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
