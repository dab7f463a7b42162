"""Who is really given a request at the port that a destination means: counted at istiod's Envoy and at the backends, forward and back."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from cutover.errors import NotFound
from cutover.names import EVERYTHING, Selector
from cutover.objects.endpoints import Side, resolve
from cutover.objects.listed import listed
from cutover.objects.serving import count
from cutover.ports import Ref, Resource
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.api import Api
from harness.cluster import Cluster
from harness.process import until
from support.cluster.checkout import VIRTUAL_SERVICE, Checkout
from support.cluster.shop import Shop

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.local("asks the gateway of the local mesh, and its pods have no kubelet"),
]

SHIFT = """
steps:
  - name: shift
    timeout: 60s
    traffic: {FIELD: {name: checkout}, from: {host: checkout-v1}, to: {host: checkout-v2}, weights: [50, 100]}
  - {name: end, approve: {message: go}}
"""


def _plan(checkout: Checkout, more: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(more + SHIFT.replace("FIELD", checkout.kind.field))
    spec["steps"][0]["traffic"][checkout.kind.field] = checkout.kind.named
    return spec


def _services(checkout: Checkout, *ports: dict[str, Any]) -> None:
    for version in ("v1", "v2"):
        path = f"/api/v1/namespaces/{checkout.shop.namespace}/services/checkout-{version}"
        checkout.shop.api.patch(path, {"spec": {"ports": list(ports)}})


def _name_ports(checkout: Checkout, *ports: int) -> list[Any]:
    """The last route names these ports, that of the old side first."""
    routes = checkout.routes()
    for entry, port in zip(routes[-1][checkout.kind.split], ports, strict=True):
        if checkout.kind is VIRTUAL_SERVICE:
            entry["destination"]["port"] = {"number": port}
        else:
            entry["port"] = port
    checkout.shop.api.patch(checkout.path, {"spec": {checkout.kind.entries: routes}})
    return routes


def _entry(checkout: Checkout, name: str, **ports: int | None) -> None:
    """The WorkloadEntry has these ports; None: not that one."""
    path = f"/apis/networking.istio.io/v1/namespaces/{checkout.shop.namespace}/workloadentries/{name}"
    checkout.shop.api.patch(path, {"spec": {"ports": ports}})
    checkout.cluster.mesh.wait_synced()


def test_a_port_that_the_service_lacks_is_refused(checkout: Checkout) -> None:
    """No gateway says so, before or after a weight: about half of the requests fail where somebody writes it all the same."""
    shop, split = checkout.shop, checkout.kind.split
    routes = _name_ports(checkout, 80, 8080)
    before = shop.objects()
    shop.apply(_plan(checkout, "startDeadline: 1s"))
    place = "steps[shift].traffic.to: host checkout-v2: Service checkout-v2 has no port 8080, which the route names, but 80 (http)"
    shop.refuses(before, place)
    assert checkout.ask(20) == {"v1": 20}
    for entry in routes[-1][split]:
        entry["weight"] = 50
    shop.api.patch(checkout.path, {"spec": {checkout.kind.entries: routes}})
    checkout.until_weights(50, 50)
    lost = checkout.ask(40)
    assert lost.keys() == {"v1", "503" if checkout.kind is VIRTUAL_SERVICE else "500"}, lost
    for parent in shop.api.get(checkout.path).get("status", {}).get("parents", ()):
        assert {condition["status"] for condition in parent["conditions"]} == {"True"}, "no gateway says so"


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
def test_weight_waits_for_an_endpoint_that_has_the_port(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """No request is lost, whether the new side does not have the port yet or loses it again."""
    shop = checkout.shop
    _services(checkout, {"name": "http", "port": 80, "targetPort": "http"})
    port = checkout.backends["v2"][0].port
    _entry(checkout, "v2-1", http=None, web=port)
    shop.apply(_plan(checkout))
    waits = "weight 50 waits: checkout-v2 has 0 ready endpoints and needs 1"
    shop.until(lambda status: status.current is not None and waits in status.current.message)
    assert checkout.ask(40) == {"v1": 40}
    _entry(checkout, "v2-1", http=port, web=None)
    checkout.until_weights(50, 50)
    checkout.assert_halved()
    if back:
        _entry(checkout, "v2-1", http=None, web=port)
        status = shop.until_ended()
        assert status.phase is Phase.ROLLED_BACK
        assert status.failure is not None
        assert status.failure.message == "checkout-v2 carries traffic and has no ready endpoint, for 2s"
    else:
        checkout.add("v2")
        shop.until_phase(Phase.WAITING)
        shop.request(RequestVerb.APPROVE, "end")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    checkout.spec()
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(40) == {"v1" if back else "v2": 40}
    assert (checkout.counted("v1") - old, checkout.counted("v2") - new) == ((40, 0) if back else (0, 40))


def test_a_service_that_gets_another_number_for_its_port_brings_the_weights_back(checkout: Checkout) -> None:
    """Its EndpointSlices and WorkloadEntries stay as they are."""
    shop = checkout.shop
    _name_ports(checkout, 80, 80)
    shop.apply(_plan(checkout))
    checkout.until_weights(50, 50)
    checkout.assert_halved()
    path = f"/api/v1/namespaces/{shop.namespace}/services/checkout-v2"
    shop.api.patch(path, {"spec": {"ports": [{"name": "http", "port": 8000}]}})
    status = shop.until_ended()
    assert status.phase is Phase.ROLLED_BACK
    assert status.failure is not None
    assert (
        "checkout-v2 carries traffic, and host checkout-v2: Service checkout-v2 has no port 80"
        in status.failure.message
    )
    checkout.spec()
    assert checkout.ask(40) == {"v1": 40}


@pytest.mark.parametrize("route_kind", [VIRTUAL_SERVICE], indirect=True, ids=["virtualService"])
def test_a_port_for_udp_is_one_of_several_too(checkout: Checkout) -> None:
    """Routes that name none mean the number of the gateway's port then, which the Service lacks."""
    shop = checkout.shop
    _services(checkout, {"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"})
    until("requests fail", lambda: checkout.ask(1) == {"503": 1}, deadline=20)
    assert checkout.ask(20) == {"503": 20}
    shop.apply(_plan(checkout))
    checkout.until_weights(50, 50)
    (started,) = (event["note"] for event in shop.events() if event["reason"] == "Started")
    for side in ("v1", "v2"):
        assert (
            f"names no port of checkout-{side}, and its Service has 80 (http) and 53 (dns), so Istio takes" in started
        )
    shop.request(RequestVerb.ABORT)
    assert shop.until_ended().phase is Phase.ROLLED_BACK


PODS = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: NAMESPACE}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {version: NAME}}
  template:
    metadata: {labels: {app: web, version: NAME}}
    spec: {containers: [{name: app, image: "app:1", ports: [{name: PORT, containerPort: 8080}]}]}
---
"""
"""Pods of one Service, of which some have the port that it names."""
OTHERS = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: status, port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: NAMESPACE}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: status, port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: by-hand, namespace: NAMESPACE}
spec: {ports: [{name: http, port: 80}, {name: status, port: 81}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-hand, namespace: NAMESPACE, labels: {kubernetes.io/service-name: by-hand}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [192.0.2.1]}, {addresses: [192.0.2.2], conditions: {ready: false}}, {addresses: [192.0.2.3], conditions: {ready: true}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: by-name, namespace: NAMESPACE, labels: {kubernetes.io/service-name: by-hand}}
addressType: FQDN
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [web.example]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: NAMESPACE}
spec: {host: web, subsets: [{name: named, labels: {version: named}}, {name: unnamed, labels: {version: unnamed}}, {name: entries, labels: {version: entry}}]}
---
"""
ENTRIES = {
    "plain": {"address": "192.0.2.11", "labels": {"app": "web", "version": "entry"}, "ports": {"http": 8080}},
    "without-the-port": {"address": "192.0.2.12", "labels": {"app": "web", "version": "entry"}},
    "by-name": {"address": "web.example", "labels": {"app": "web", "version": "entry"}, "ports": {"http": 8080}},
    "other-label": {"address": "192.0.2.13", "labels": {"app": "web", "version": "entry"}, "ports": {"http": 8080}},
    "own-label": {"address": "192.0.2.14", "labels": {"version": "entry"}, "ports": {"http": 8080}},
    "unproved": {"address": "192.0.2.15", "labels": {"app": "web", "version": "entry"}, "ports": {"http": 8080}},
}
OF_ENTRIES: dict[str, dict[str, Any]] = {
    "other-label": {"labels": {"app": "till"}},
    "own-label": {"labels": {"app": "web"}},
    "unproved": {"annotations": {"proxy.istio.io/health-checks-enabled": "true"}},
}
"""What is in the metadata of some of them."""
ROWS = [
    ("web", 80, None, 2 + 2),
    ("web", 81, None, 3 + 3),
    ("web", 80, "named", 2),
    ("web", 80, "unnamed", 0),
    ("web", 81, "unnamed", 1),
    ("web", 80, "entries", 2),
    ("web", 81, "entries", 3),
    ("headless", 80, None, 2),
    ("headless", 81, None, 3),
    ("by-hand", 80, None, 2),
    ("by-hand", 81, None, 0),
]
"""Service, port, subset, and how many endpoints that has."""


def test_what_is_counted_is_what_istio_gives_to_its_proxies(shop: Shop, cluster: Cluster) -> None:
    """Pods with and without a port, WorkloadEntries, Services without an address and without a selector."""
    pods = [("named", "2", "http"), ("unnamed", "1", "web")]
    manifests = "".join(
        PODS.replace("NAMESPACE", shop.namespace).replace("NAME", name).replace("REPLICAS", count).replace("PORT", port)
        for name, count, port in pods
    )
    for manifest in yaml.safe_load_all(manifests + OTHERS.replace("NAMESPACE", shop.namespace)):
        if manifest:
            shop.api.apply(manifest)
    for name, spec in ENTRIES.items():
        metadata = {"name": name, "namespace": shop.namespace, **OF_ENTRIES.get(name, {})}
        entry = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": metadata, "spec": spec}
        shop.api.apply(entry)
    until("all pods are endpoints", lambda: shop.endpoints("web") == shop.endpoints("headless") == 3, deadline=60)
    cluster.mesh.wait_synced()
    wanted = {(service, port, subset): found for service, port, subset, found in ROWS}
    until("Envoy has all of them", lambda: _envoy_has(cluster, shop) == wanted, deadline=20)
    assert asyncio.run(_counted(shop)) == wanted


def _envoy_has(cluster: Cluster, shop: Shop) -> dict[tuple[str, int, str | None], int]:
    with urllib.request.urlopen(f"http://{cluster.mesh.envoy_admin}/clusters", timeout=5) as answer:
        lines = [line for line in answer.read().decode().splitlines() if "::cx_total::" in line]
    found = {}
    for service, port, subset, _ in ROWS:
        name = f"outbound|{port}|{subset or ''}|{service}.{shop.namespace}.svc.cluster.local::"
        found[service, port, subset] = sum(line.startswith(name) for line in lines)
    return found


async def _counted(shop: Shop) -> dict[tuple[str, int, str | None], int]:
    reader: Any = _Reader(shop.api)
    found = {}
    for service, port, subset, _ in ROWS:
        side = await resolve(reader, shop.namespace, service, subset, [port])
        assert isinstance(side, Side), side
        found[service, port, subset] = (await count(reader, shop.namespace, side))[0].total
    return found


class _Reader:
    """What counting needs of the port `Cluster`, over the real server."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def get(self, ref: Ref) -> Any:
        if (found := self._api.find(ref.path())) is None:
            raise NotFound(str(ref))
        return found

    async def list(
        self, resource: Resource, namespace: str, labels: Selector = EVERYTHING, *, fresh: bool = True
    ) -> Sequence[Any]:
        del fresh
        return [listed(resource, body) for body in self._api.list(resource.path(namespace), labels)]


def test_new_pods_that_lack_the_port_are_refused(shop: Shop) -> None:
    """All of them are ready, and the real controller has none of them at the port."""
    http = [{"name": "http", "port": 80, "targetPort": "http"}]
    for version, name in (("v1", "http"), ("v2", "web")):
        shop.api.patch(f"/api/v1/namespaces/{shop.namespace}/services/shop-{version}", {"spec": {"ports": http}})
        pod = {"containers": [{"name": "app", "ports": [{"name": name, "containerPort": 8080}]}]}
        body = {"spec": {"replicas": 3, "template": {"spec": pod}}}
        shop.api.patch(f"{shop.deployments}/shop-{version}", body, "strategic")
    until("the new pods are ready", lambda: shop.endpoints("shop-v2") == 3, deadline=60)
    before = shop.objects()
    sides = "from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]"
    shop.apply(
        f"startDeadline: 1s\nsteps:\n  - {{name: shift, traffic: {{virtualService: {{name: shop}}, {sides}}}}}\n"
    )
    says = "steps[shift].traffic.to: Service shop-v2 sends requests for port 80 to the port http of its pods, and no container of Deployment shop-v2"
    shop.refuses(before, says)
