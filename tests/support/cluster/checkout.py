"""Two versions of a checkout behind the gateway of the local mesh: backends that count what reaches them, and who answers."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections import Counter
from typing import Any

import yaml

from harness.cluster import ROOT, Cluster
from harness.process import until
from support.cluster.shop import Shop
from support.fakes.http_server import Requests, Serving

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
    """Two versions behind the gateway: two backends of the old one, one of the new.

    Args:
        shop: whose namespace it is put into.
        cluster: with the mesh.
        routes: manifests of what splits the requests between checkout-v1 and checkout-v2; NAMESPACE in them is the shop's.
        url: of the gateway.
        path: of the object that splits them.
    """

    def __init__(self, shop: Shop, cluster: Cluster, routes: str, url: str, path: str) -> None:
        self.shop, self.cluster, self.url, self.path = shop, cluster, url, path
        self._manifests = (SERVICES + routes).replace("NAMESPACE", shop.namespace)
        self.backends: dict[str, list[Backend]] = {"v1": [], "v2": []}

    def start(self) -> None:
        for manifest in yaml.safe_load_all(self._manifests):
            self.shop.api.apply(manifest)
        for version in ("v1", "v1", "v2"):
            self.add(version)
        until("the gateway serves the old version", lambda: self.ask(1) == {"v1": 1}, deadline=30)

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
