"""`traffic` where requests really split: a gateway, backends that count, and the examples with a header and with a mirror."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from cutover.requests import RequestVerb
from cutover.status import Phase
from harness.cluster import ROOT, Cluster
from harness.process import until
from support.real import Shop
from support.serving import Requests, Serving

pytestmark = [pytest.mark.cluster, pytest.mark.local("sends requests through the gateway of the local mesh")]

CHECKOUT = """
apiVersion: v1
kind: Service
metadata: {name: checkout-v1, namespace: NAMESPACE}
spec: {selector: {app: checkout-v1}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: checkout-v2, namespace: NAMESPACE}
spec: {selector: {app: checkout-v2}, ports: [{name: http, port: 80}]}
---
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


class Backend(Serving):
    """A server that says what version it is, and counts what reaches it."""

    def __init__(self, version: str) -> None:
        self.count = 0
        backend, lock = self, threading.Lock()

        class Handler(Requests):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lock:
                    backend.count += 1
                self.reply(version.encode())

        super().__init__(Handler)


class Checkout:
    """Two versions behind the gateway: two backends of the old one, one of the new."""

    def __init__(self, shop: Shop, cluster: Cluster) -> None:
        self.shop, self.cluster = shop, cluster
        self.backends: dict[str, list[Backend]] = {"v1": [], "v2": []}

    def start(self) -> None:
        for manifest in yaml.safe_load_all(CHECKOUT.replace("NAMESPACE", self.shop.namespace)):
            self.shop.api.apply(manifest)
        for version in ("v1", "v1", "v2"):
            self.add(version)
        until("the gateway serves the old version", lambda: self.ask(1) == {"v1": 1})

    def add(self, version: str) -> None:
        """One more endpoint of a version."""
        backend = Backend(version)
        self.backends[version].append(backend)
        name = f"{version}-{len(self.backends[version])}"
        self.shop.api.apply({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": self.shop.namespace},
            "spec": {"address": "127.0.0.1", "labels": {"app": f"checkout-{version}"}, "ports": {"http": backend.port}},
        })  # fmt: skip

    def stop(self) -> None:
        for backend in (one for some in self.backends.values() for one in some):
            backend.close()

    def ask(self, times: int, path: str = "/", **headers: str) -> Counter[str]:
        """Requests through the gateway, and which version has answered how many; a code that is not 200 counts as itself."""
        found = Counter[str]()
        for _ in range(times):
            request = urllib.request.Request(f"{self.cluster.mesh.gateway_url}{path}")
            for name, value in {"host": f"checkout.{self.shop.namespace}.example", **headers}.items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    found[answer.read().decode()] += 1
            except urllib.error.HTTPError as error:
                found[str(error.code)] += 1
        return found

    def counted(self, version: str) -> int:
        return sum(backend.count for backend in self.backends[version])

    def routes(self) -> Any:
        """The http routes as they are, known to the gateway."""
        self.cluster.mesh.wait_synced()
        path = f"{self.shop.routes.rpartition('/')[0]}/checkout"
        return self.shop.api.get(path)["spec"]["http"]

    def names(self) -> list[str]:
        return [route["name"] for route in self.routes()]


@pytest.fixture
def checkout(shop: Shop, cluster: Cluster) -> Iterator[Checkout]:
    made = Checkout(shop, cluster)
    made.start()
    yield made
    made.stop()


def example(name: str, gates: list[Any]) -> dict[str, Any]:
    """A plan of the examples that loses no time, and is judged by these gates."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / name).read_text())["spec"]
    del spec["serviceAccountName"]
    (step,) = spec["steps"]
    step["gates"] = gates
    step["traffic"].pop("dwell")
    step["traffic"].get("mirror", {}).pop("dwell", None)
    return spec


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_requests_with_the_header_reach_the_new_version(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """One endpoint is enough for the header and for half of the rest; the last weight waits for the second one."""
    shop = checkout.shop
    before = shop.objects()
    shop.apply(example("canary-by-header.yaml", []))
    shop.until(lambda s: s.current is not None and s.current.weight == 100)
    until("half of the weight is written", lambda: checkout.routes()[2]["route"][1].get("weight") == 50)
    assert checkout.names() == ["help", "cutover-shift-primary", "primary"]
    assert checkout.ask(100, canary="true") == {"v2": 100}
    assert checkout.ask(20, canary="false").keys() == {"v1", "v2"}
    assert checkout.ask(20, "/help", canary="true") == {"v1": 20}, "what stands further up still takes what it took"
    split = checkout.ask(400)
    assert split.total() == 400
    assert 140 <= split["v2"] <= 260, split
    if back:
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended().phase is Phase.ROLLED_BACK
        assert shop.objects() == before
    else:
        checkout.add("v2")
        assert shop.until_ended().phase is Phase.SUCCEEDED
    assert checkout.names() == ["help", "primary"]
    assert checkout.ask(50, canary="true") == checkout.ask(50) == {"v1" if back else "v2": 50}
    assert shop.leftovers() == []


@pytest.mark.parametrize("back", [False, True], ids=["forward", "backward"])
def test_a_mirror_is_counted_and_never_answers(checkout: Checkout, back: bool) -> None:  # noqa: FBT001 -- a parameter
    """A gate that has no data keeps the plan at the mirror, until a person skips it."""
    shop = checkout.shop
    checkout.add("v2")
    before, was = shop.objects(), checkout.routes()
    shop.apply(
        example(
            "mirror-then-canary.yaml",
            [{"name": "look", "prometheus": {"query": "nothing_at_all"}, "pass": {"max": "1"}}],
        )
    )
    shop.until(lambda s: s.current is not None and bool(s.current.gates))
    assert checkout.routes()[1]["mirror"] == {"host": "checkout-v2"}
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
    now = checkout.routes()
    assert [{**route, "route": None} for route in now] == [{**route, "route": None} for route in was]
    old, new = checkout.counted("v1"), checkout.counted("v2")
    assert checkout.ask(100) == {"v1" if back else "v2": 100}
    assert (checkout.counted("v1") - old, checkout.counted("v2") - new) == ((100, 0) if back else (0, 100))
    assert shop.leftovers() == []


def test_pairs_of_all_protocols_in_one_write(checkout: Checkout) -> None:
    """Each change of its spec raises the generation of an object by one."""
    shop = checkout.shop
    path = f"{shop.routes.rpartition('/')[0]}/checkout"
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
