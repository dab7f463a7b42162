"""Two versions of a checkout behind the gateway of the local mesh: backends that count what reaches them, and who answers.

What splits the requests is a VirtualService or an HTTPRoute; `RouteKind` is how a test speaks to either.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import dataclass
from typing import Any

import yaml

from harness.cluster import ROOT, Cluster
from harness.process import until
from support.cluster.shop import Shop
from support.fakes.http_server import HttpServer, RequestHandler

SERVICES = """
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
"""


_VIRTUAL_SERVICE = """
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
_HTTP_ROUTE = """
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


@dataclass(frozen=True)
class RouteKind:
    """A kind of object that splits requests.

    Attributes:
        field: of a `traffic` step, where such an object is named.
        named: the object below, as a `traffic` step names it.
        manifest: one that has a route of its own for /help, and one for the rest.
        entries: the field of its spec that holds the routes; `split`: that of a route with the weights.
        header_example: the plan of examples/ that shifts by header, and `mirror_example` the one that mirrors.
        mirrored: of so many requests at least and at most so many reach the mirror of that example.
    """

    field: str
    named: dict[str, Any]
    manifest: str
    entries: str
    split: str
    header_example: str
    mirror_example: str
    mirrored: tuple[int, int, int]

    def routes(self, spec: Any) -> list[Any]:
        """The routes, or rules, in their order."""
        found: list[Any] = spec[self.entries]
        return found

    def weights(self, spec: Any) -> list[int]:
        """Of the last route; one that is left out is none."""
        return [entry.get("weight", 0) for entry in self.routes(spec)[-1][self.split]]

    def without_weights(self, spec: Any) -> list[Any]:
        """All that is beside them."""
        return [{**route, self.split: None} for route in self.routes(spec)]

    def assert_routes(self, spec: Any, *, header_route: bool) -> None:
        """The two of the manifest, and in between that of the header if it is there."""
        routes = self.routes(spec)
        if self is VIRTUAL_SERVICE:
            names = ["help", "cutover-shift-primary", "primary"] if header_route else ["help", "primary"]
            assert [route["name"] for route in routes] == names
        else:
            assert [len(rule["backendRefs"]) for rule in routes] == ([1, 1, 2] if header_route else [1, 2])

    def assert_mirrors(self, spec: Any) -> None:
        """The last route mirrors to the new version, beside its other filters."""
        last = self.routes(spec)[-1]
        if self is VIRTUAL_SERVICE:
            assert last["mirror"] == {"host": "checkout-v2"}
        else:
            assert [one["type"] for one in last["filters"]] == ["RequestHeaderModifier", "RequestMirror"]


VIRTUAL_SERVICE = RouteKind(
    field="virtualService",
    named={"name": "checkout", "routes": ["primary"]},
    manifest=_VIRTUAL_SERVICE,
    entries="http",
    split="route",
    header_example="canary-by-header.yaml",
    mirror_example="mirror-then-canary.yaml",
    mirrored=(100, 100, 100),
)
HTTP_ROUTE = RouteKind(
    field="httpRoute",
    named={"name": "checkout"},
    manifest=_HTTP_ROUTE,
    entries="rules",
    split="backendRefs",
    header_example="canary-http-route.yaml",
    mirror_example="canary-http-route.yaml",
    mirrored=(300, 30, 100),
)
ROUTE_KINDS = (VIRTUAL_SERVICE, HTTP_ROUTE)


class Backend(HttpServer):
    """A server that answers with its version, or another text, and counts what reaches it."""

    def __init__(self, says: str) -> None:
        self.count = 0
        backend, lock = self, threading.Lock()

        class Handler(RequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with lock:
                    backend.count += 1
                self.reply(says.encode())

        super().__init__(Handler)


class Checkout:
    """Two versions behind the gateway: two backends of the old one, one of the new.

    Args:
        shop: whose namespace it is put into.
        cluster: with the mesh.
        kind: of the object that splits the requests between checkout-v1 and checkout-v2.
        manifests: of that object and what else it needs, where not that of the kind; NAMESPACE in them is the shop's.
        name: of that object.
    """

    def __init__(
        self, shop: Shop, cluster: Cluster, kind: RouteKind, manifests: str = "", name: str = "checkout"
    ) -> None:
        self.shop, self.cluster, self.kind = shop, cluster, kind
        if kind is VIRTUAL_SERVICE:
            self.url, self.path = cluster.mesh.gateway_url, f"{shop.routes.rpartition('/')[0]}/{name}"
        else:
            self.url, self.path = cluster.mesh.routes_url, f"{shop.http_routes}/{name}"
        self._manifests = (SERVICES + (manifests or kind.manifest)).replace("NAMESPACE", shop.namespace)
        self.backends: dict[str, list[Backend]] = {"v1": [], "v2": []}

    def start(self) -> None:
        for manifest in yaml.safe_load_all(self._manifests):
            self.shop.api.apply(manifest)
        for version in ("v1", "v1", "v2"):
            self.add(version)
        until("the gateway serves the old version", lambda: self.ask(1) == {"v1": 1}, deadline=30)

    def add(self, version: str, says: str = "") -> None:
        """One more endpoint of a version, whose answers say so."""
        backend = Backend(says or version)
        self.backends[version].append(backend)
        name, labels = f"{version}-{len(self.backends[version])}", {"app": f"checkout-{version}", "team": "checkout"}
        self.shop.api.apply({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": name, "namespace": self.shop.namespace},
            "spec": {"address": "127.0.0.1", "labels": labels, "ports": {"http": backend.port}},
        })  # fmt: skip

    def stop(self) -> None:
        for backend in (one for some in self.backends.values() for one in some):
            backend.close()

    def ask(self, times: int, path: str = "/", **headers: str) -> Counter[str]:
        """Requests through the gateway, and which version has answered how many; a code that is not 200 counts as itself."""
        found = Counter[str]()
        for _ in range(times):
            request = urllib.request.Request(f"{self.url}{path}")
            for name, value in {"host": f"checkout.{self.shop.namespace}.example", **headers}.items():
                request.add_header(name, value)
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    found[answer.read().decode()] += 1
            except urllib.error.HTTPError as error:
                found[str(error.code)] += 1
        return found

    def assert_halved(self) -> None:
        """Of many requests about half reach each version, and none is lost."""
        split = self.ask(400)
        assert split.total() == 400
        assert 140 <= split["v2"] <= 260, split

    def visit(self, cookie: str, times: int = 1) -> tuple[list[str], str]:
        """What a visitor gets who brings this cookie and any that the answers set: the versions, and the cookie then."""
        found = []
        for _ in range(times):
            headers = {"host": f"checkout.{self.shop.namespace}.example", **({"cookie": cookie} if cookie else {})}
            with urllib.request.urlopen(urllib.request.Request(self.url, headers=headers), timeout=5) as answer:
                found.append(answer.read().decode())
                given = answer.headers.get_all("set-cookie") or []
            cookie = given[-1].partition(";")[0] if given else cookie
        return found, cookie

    def counted(self, version: str) -> int:
        return sum(backend.count for backend in self.backends[version])

    def routes(self) -> list[Any]:
        """The routes of what splits the requests, known to the gateway."""
        return self.kind.routes(self.spec())

    def weights(self) -> list[int]:
        """Of the last route, known to the gateway."""
        return self.kind.weights(self.spec())

    def until_weights(self, *weights: int, deadline: float = 30.0) -> None:
        """The last route has these weights, and the gateway knows it."""
        until(f"the weights are {weights}", lambda: self.weights() == [*weights], deadline=deadline)
        self.cluster.mesh.wait_synced()  # what was just read may be newer than what the gateway had before

    def spec(self) -> Any:
        """What splits the requests, as it is, known to the gateway."""
        self.cluster.mesh.wait_synced()
        return self.shop.api.get(self.path)["spec"]


def example(name: str, gates: list[Any]) -> dict[str, Any]:
    """A plan of the examples that loses no time, and is judged by these gates."""
    spec: dict[str, Any] = yaml.safe_load((ROOT / "examples" / name).read_text())["spec"]
    del spec["serviceAccountName"]
    (step,) = spec["steps"]
    step["gates"] = gates
    step["traffic"].pop("dwell")
    step["traffic"].get("mirror", {}).pop("dwell", None)
    return spec
