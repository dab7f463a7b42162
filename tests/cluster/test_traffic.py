"""`traffic` where requests really split: the examples with a header and with a mirror, on both kinds of routes; then VirtualServices."""

from __future__ import annotations

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import SERVICES, VIRTUAL_SERVICE, Checkout, example
from support.cluster.shop import Shop
from support.fakes.shop import RUNBOOK

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

virtual_service = pytest.mark.parametrize("route_kind", [VIRTUAL_SERVICE], indirect=True, ids=["virtualService"])


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_requests_with_the_header_reach_the_new_version(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """One endpoint is enough for the header and for half of the rest; the last weight waits for the second one."""
    shop, kind = checkout.shop, checkout.kind
    before = shop.objects()
    shop.apply(example(kind.header_example, []))
    shop.until(lambda s: s.current is not None and s.current.weight == 100)
    checkout.until_weights(50, 50)
    kind.assert_routes(checkout.spec(), header_route=True)
    assert checkout.ask(100, canary="true") == {"v2": 100}
    assert checkout.ask(20, canary="false").keys() == {"v1", "v2"}
    assert checkout.ask(20, "/help", canary="true") == {"v1": 20}, "what is more specific still takes what it took"
    checkout.assert_halved()
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    kind.assert_routes(checkout.spec(), header_route=False)
    assert checkout.ask(50, canary="true") == checkout.ask(50) == {"v1" if back else "v2": 50}
    assert shop.leftovers() == []


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_a_mirror_is_counted_and_never_answers(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """A gate that has no data keeps the plan at the mirror, until a person skips it."""
    shop, kind = checkout.shop, checkout.kind
    checkout.add("v2")
    before, was = shop.objects(), kind.without_weights(checkout.spec())
    shop.apply(
        example(
            kind.mirror_example, [{"name": "look", "prometheus": {"query": "nothing_at_all"}, "pass": {"max": "1"}}]
        )
    )
    shop.until(lambda s: s.current is not None and bool(s.current.gates))
    kind.assert_mirrors(checkout.spec())
    old, new = checkout.counted("v1"), checkout.counted("v2")
    requests, least, most = kind.mirrored
    assert checkout.ask(requests) == {"v1": requests}
    until("the share of the requests is mirrored", lambda: checkout.counted("v2") - new >= least)
    assert checkout.counted("v2") - new <= most
    assert checkout.counted("v1") - old == requests
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        shop.request(RequestVerb.SKIP, "shift")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    assert kind.without_weights(checkout.spec()) == was
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(100) == {"v1" if back else "v2": 100}
    assert (checkout.counted("v1") - old, checkout.counted("v2") - new) == ((100, 0) if back else (0, 100))
    assert shop.leftovers() == []


@virtual_service
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
    checkout = Checkout(shop, cluster, VIRTUAL_SERVICE, DELEGATED)
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
    checkout.until_weights(50, 50)
    assert [route["name"] for route in checkout.routes()] == ["cutover-shift-primary", "primary"]
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
    services = SERVICES.replace("{name: checkout-", "{name: app-")
    checkout = Checkout(shop, cluster, VIRTUAL_SERVICE, services + yaml.safe_dump(body), "app-migration")
    checkout.start()
    before = shop.objects()
    assert checkout.ask(50, canary="true") == {"v2": 50}
    sides = {"from": {"host": "app-v1"}, "to": {"host": "app-v2"}}
    shift = {"name": "shift", "traffic": {"virtualService": {"name": "app-migration"}, **sides, "weights": [50, 100]}}
    shop.apply({"steps": [shift]})
    shop.until(lambda s: s.current is not None and s.current.weight == 100)  # which waits for a second endpoint
    until("half of the weight is written", lambda: checkout.routes()[1]["route"][1]["weight"] == 50)
    checkout.assert_halved()
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
        assert checkout.routes() == yaml.safe_load(RUNBOOK)["spec"]["http"]
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
        assert checkout.routes()[0] == yaml.safe_load(RUNBOOK)["spec"]["http"][0]
        assert checkout.ask(50) == {"v2": 50}
    assert checkout.ask(50, canary="true") == {"v2": 50}
    checkout.stop()
