"""`traffic` where requests really split: a gateway, backends that count, and the examples with a header and with a mirror."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import SERVICES, Checkout, example
from support.cluster.shop import Shop
from support.fakes.shop import RUNBOOK

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

CHECKOUT = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  hosts: [checkout.NAMESPACE.example]
  gateways: [istio-system/gateway]
  http:
    - name: help
      match: [{uri: {prefix: /help}}]
      route: [{destination: {host: checkout-v1}}]
    - name: primary
      retries: {attempts: 0}
      mirror: {host: recorder, port: {number: 80}}
      mirrorPercentage: {value: 12.5}
      route:
        - {destination: {host: checkout-v1}, weight: 100}
        - {destination: {host: checkout-v2}}
"""
"""Somebody mirrors already, and a weight is left out: both must come back as they are."""


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster) -> Iterator[Checkout]:
    path = f"{shop.routes.rpartition('/')[0]}/checkout"
    made = Checkout(shop, cluster, CHECKOUT, cluster.mesh.gateway_url, path)
    made.start()
    yield made
    made.stop()


def routes(checkout: Checkout) -> Any:
    """The http routes as they are, known to the gateway."""
    return checkout.spec()["http"]


def names(checkout: Checkout) -> list[str]:
    return [route["name"] for route in routes(checkout)]


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_requests_with_the_header_reach_the_new_version(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """One endpoint is enough for the header and for half of the rest; the last weight waits for the second one."""
    shop = checkout.shop
    before = shop.objects()
    shop.apply(example("canary-by-header.yaml", []))
    shop.until(lambda s: s.current is not None and s.current.weight == 100)
    until("half of the weight is written", lambda: routes(checkout)[2]["route"][1].get("weight") == 50)
    assert names(checkout) == ["help", "cutover-shift-primary", "primary"]
    assert checkout.ask(100, canary="true") == {"v2": 100}
    assert checkout.ask(20, canary="false").keys() == {"v1", "v2"}
    assert checkout.ask(20, "/help", canary="true") == {"v1": 20}, "what stands further up still takes what it took"
    checkout.assert_halved()
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    assert names(checkout) == ["help", "primary"]
    assert checkout.ask(50, canary="true") == checkout.ask(50) == {"v1" if back else "v2": 50}
    assert shop.leftovers() == []


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_a_mirror_is_counted_and_never_answers(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """A gate that has no data keeps the plan at the mirror, until a person skips it."""
    shop = checkout.shop
    checkout.add("v2")
    before, was = shop.objects(), routes(checkout)
    shop.apply(
        example(
            "mirror-then-canary.yaml",
            [{"name": "look", "prometheus": {"query": "nothing_at_all"}, "pass": {"max": "1"}}],
        )
    )
    shop.until(lambda s: s.current is not None and bool(s.current.gates))
    assert routes(checkout)[1]["mirror"] == {"host": "checkout-v2"}
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(100) == {"v1": 100}
    until("every request is mirrored", lambda: checkout.counted("v2") - new == 100)
    assert checkout.counted("v1") - old == 100
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        shop.request(RequestVerb.SKIP, "shift")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    now = routes(checkout)
    assert [{**route, "route": None} for route in now] == [{**route, "route": None} for route in was]
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(100) == {"v1" if back else "v2": 100}
    assert (checkout.counted("v1") - old, checkout.counted("v2") - new) == ((100, 0) if back else (0, 100))
    assert shop.leftovers() == []


def test_pairs_of_all_protocols_in_one_write(checkout: Checkout) -> None:
    """Each change of its spec raises the generation of an object by one."""
    shop = checkout.shop
    path = checkout.path
    pair = [
        {"destination": {"host": f"checkout-{version}"}, "weight": 100 * (version == "v1")} for version in ("v1", "v2")
    ]
    sni = f"checkout.{shop.namespace}.example"
    tcp = [{"match": [{"port": 5432}], "route": pair}, {"match": [{"port": 5433}], "route": pair}]
    shop.api.patch(path, {"spec": {"tcp": tcp, "tls": [{"match": [{"port": 443, "sniHosts": [sni]}], "route": pair}]}})
    before, began = shop.objects(), shop.api.get(path)["metadata"]["generation"]
    service = {"name": "checkout", "routes": ["primary"], "tcp": [5433], "tls": [sni]}
    sides = {"from": {"host": "checkout-v1"}, "to": {"host": "checkout-v2"}}
    steps = [
        {"name": "shift", "traffic": {"virtualService": service, **sides, "weights": [50]}},
        {"name": "ok", "approve": {"message": "go"}},
    ]
    shop.apply({"steps": steps})
    shop.until_phase(Phase.WAITING)
    body = shop.api.get(path)
    routes = [body["spec"]["http"][1], *body["spec"]["tcp"], *body["spec"]["tls"]]
    assert [[entry["weight"] for entry in route["route"]] for route in routes] == [
        [50, 50],
        [100, 0],
        [50, 50],
        [50, 50],
    ]
    assert body["metadata"]["generation"] == began + 1
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    assert shop.objects() == before
    assert shop.api.get(path)["metadata"]["generation"] == began + 2


DELEGATED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: NAMESPACE}
spec:
  hosts: [checkout.NAMESPACE.example]
  gateways: [istio-system/gateway]
  http:
    - name: help
      match: [{uri: {prefix: /help}}]
      route: [{destination: {host: checkout-v1}}]
    - name: rest
      delegate: {name: checkout}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: checkout, namespace: NAMESPACE}
spec:
  http:
    - name: primary
      route:
        - {destination: {host: checkout-v1}, weight: 100}
        - {destination: {host: checkout-v2}}
"""
"""Requests to the host of the one go through the routes of the other, which has no hosts."""


def test_a_delegate_splits_what_its_root_hands_on(shop: Shop, cluster: Cluster) -> None:
    """The root is refused, by name; named itself, the delegate is shifted as any other, and by header."""
    path = f"{shop.routes.rpartition('/')[0]}/checkout"
    checkout = Checkout(shop, cluster, DELEGATED, cluster.mesh.gateway_url, path)
    checkout.start()
    before = shop.objects()
    spec = example("canary-by-header.yaml", [])
    traffic = spec["steps"][0]["traffic"]
    traffic["virtualService"] = {"name": "front"}
    shop.apply({**spec, "startDeadline": "1s"}, "root")
    status = shop.until_ended("root")
    assert status.phase is Phase.REFUSED
    assert (
        "route rest of VirtualService front hands its requests to VirtualService checkout; name that one"
        in status.message
    )
    traffic |= {"virtualService": {"name": "checkout"}, "weights": [50, 100]}
    shop.apply(spec)
    shop.until(lambda s: s.current is not None and s.current.weight == 100)  # which waits for a second endpoint
    until("half of the weight is written", lambda: routes(checkout)[-1]["route"][1].get("weight") == 50)
    assert names(checkout) == ["cutover-shift-primary", "primary"]
    assert checkout.ask(50, canary="true") == {"v2": 50}
    assert checkout.ask(20, "/help", canary="true") == {"v1": 20}
    checkout.assert_halved()
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK
    checkout.spec()
    assert checkout.ask(50, canary="true") == {"v1": 50}
    assert shop.objects() == before
    assert shop.leftovers() == []
    checkout.stop()


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_the_manifest_of_a_runbook_runs_as_it_stands(shop: Shop, cluster: Cluster, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """Neither of its routes has a name, and its header route is nobody's to touch. It is given the hosts that it lacks."""
    body = yaml.safe_load(RUNBOOK)
    body["metadata"]["namespace"] = shop.namespace
    body["spec"] |= {"hosts": [f"checkout.{shop.namespace}.example"], "gateways": ["istio-system/gateway"]}
    path = f"{shop.routes.rpartition('/')[0]}/app-migration"
    services = SERVICES.replace("{name: checkout-", "{name: app-")
    checkout = Checkout(shop, cluster, services + yaml.safe_dump(body), cluster.mesh.gateway_url, path)
    checkout.start()
    before = shop.objects()
    assert checkout.ask(50, canary="true") == {"v2": 50}
    sides = {"from": {"host": "app-v1"}, "to": {"host": "app-v2"}}
    shift = {"name": "shift", "traffic": {"virtualService": {"name": "app-migration"}, **sides, "weights": [50, 100]}}
    shop.apply({"steps": [shift]})
    shop.until(lambda s: s.current is not None and s.current.weight == 100)  # which waits for a second endpoint
    until("half of the weight is written", lambda: routes(checkout)[1]["route"][1]["weight"] == 50)
    checkout.assert_halved()
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
        assert routes(checkout) == yaml.safe_load(RUNBOOK)["spec"]["http"]
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
        assert routes(checkout)[0] == yaml.safe_load(RUNBOOK)["spec"]["http"][0]
        assert checkout.ask(50) == {"v2": 50}
    assert checkout.ask(50, canary="true") == {"v2": 50}
    checkout.stop()
