"""Pods that go after traffic has moved, on a mesh that learns of it two seconds late: no request is lost, forward and back.

Two Envoys share the gateway, istiod gathers changes for two seconds, nothing is tried twice, and the process of a pod is
killed the moment the pod is to be deleted. Without a drain the same plans lose requests: that is the control.

For `switch` the Envoys stand for whatever follows the EndpointSlices of a Service late; kube-proxy itself does not run here.
"""

from __future__ import annotations

import json
import logging
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.cluster import ROOT, Cluster
from harness.process import Process, free_ports, until
from support.cluster.pods import Pods
from support.cluster.shop import Shop

pytestmark = [pytest.mark.cluster, pytest.mark.local("restarts istiod, and sends requests through the gateway")]
_LOG = logging.getLogger(__name__)
RATE = 300
LATE = ("2s", "8s")
"""How long istiod waits for another change, and how long in all."""
DRAIN = "10s"
"""Longer than istiod waits and the Envoys take."""

APP = """
apiVersion: v1
kind: Service
metadata: {name: VERSION, namespace: NAMESPACE}
spec:
  selector: {app: VERSION}
  ports: [{name: http, port: 80, targetPort: http}, {name: status, port: 81, targetPort: status}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: VERSION, namespace: NAMESPACE}
spec:
  replicas: REPLICAS
  selector: {matchLabels: {app: VERSION}}
  template:
    metadata: {labels: {app: VERSION}, annotations: {harness.cutover.dev/behaviour: never-ready}}
    spec: {containers: [{name: app, image: "app:1", ports: [{name: status, containerPort: 8081}]}]}
"""
"""Only WorkloadEntries have the port http. The other is for what counts the pods of a Service by its named ports."""
VIRTUAL_SERVICE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: NAMESPACE}
spec:
  hosts: [NAMESPACE.app.example]
  gateways: [istio-system/gateway]
  http:
    - route:
        - {destination: {host: app-v1, port: {number: 80}}, weight: 100}
        - {destination: {host: app-v2, port: {number: 80}}, weight: 0}
"""
HTTP_ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app, namespace: NAMESPACE}
spec:
  hostnames: [NAMESPACE.app.example]
  parentRefs: [{name: gateway, namespace: istio-system}]
  rules: [{backendRefs: [{name: app-v1, port: 80, weight: 100}, {name: app-v2, port: 80, weight: 0}]}]
"""
FRONT = """
apiVersion: v1
kind: Service
metadata: {name: front, namespace: NAMESPACE}
spec:
  selector: {app: app-v1}
  ports: [{name: http, port: 80, targetPort: http}, {name: status, port: 81, targetPort: status}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: app, namespace: NAMESPACE}
spec:
  hosts: [NAMESPACE.app.example]
  gateways: [istio-system/gateway]
  http: [{route: [{destination: {host: front, port: {number: 80}}}]}]
"""
SIDES = "from: {host: app-v1}, to: {host: app-v2}, weights: [50, 100]"
PLAN = """
steps:
  - {name: deploy, deploy: {workload: {name: app-v2}, replicas: 2}}
  - {name: start, approve: {message: go}}
  - {name: move, MOVE}
  - {name: retire, deploy: {workload: {name: app-v1}, replicas: 0}}
  - {name: ok, approve: {message: go}}
"""


@dataclass(frozen=True)
class Way:
    """How traffic gets from the old version to the new one.

    Attributes:
        name: for people.
        manifests: what sends requests to the old version.
        step: that moves them, less its drain.
        routes: whether the Envoys serve it where they serve HTTPRoutes.
    """

    name: str
    manifests: str
    step: str
    routes: bool = False


WAYS = (
    Way("virtualService", VIRTUAL_SERVICE, f"traffic: {{virtualService: {{name: app}}, {SIDES}, drain: DRAIN}}"),
    Way("httpRoute", HTTP_ROUTE, f"traffic: {{httpRoute: {{name: app}}, {SIDES}, drain: DRAIN}}", routes=True),
    Way("switch", FRONT, "switch: {service: front, selector: {app: app-v2}, drain: DRAIN}"),
)


@pytest.fixture(scope="module")
def envoys(cluster: Cluster) -> Iterator[list[str]]:
    """Admin addresses of two Envoys that share the ports of the gateway, behind an istiod that takes its time."""
    mesh = cluster.mesh
    (admin,) = free_ports(1)
    second = mesh.start_envoy("envoy-2", admin)
    mesh.start_istiod(LATE)
    mesh.wait_synced(60)
    yield [mesh.envoy_admin, f"127.0.0.1:{admin}"]
    second.stop()
    mesh.start_istiod()
    mesh.wait_synced(60)


class Load:
    """So many requests a second through the gateway, over many connections, and what was answered.

    Args:
        url: of the gateway.
        host: that is asked for.
    """

    def __init__(self, url: str, host: str, folder: Path) -> None:
        self._file = folder / "requests.txt"
        command = [sys.executable, str(ROOT / "demo/load.py"), url, host, str(RATE), str(self._file), "16"]
        self._process = Process("load", command, log=folder / "load.log")
        self._process.start()

    def answers(self) -> list[str]:
        """Of each request its code, and who answered it; in the order of the answers."""
        lines = self._file.read_text().split("\n")[:-1] if self._file.exists() else []  # the last is not yet whole
        return [" ".join(line.split()[2:]) for line in lines]

    def until_only(self, version: str) -> int:
        """Until the last second has nothing but answers of one version; how many answers there are by then."""
        wanted = {f"200 {version}"}
        until(
            f"only {version} answers",
            lambda: set(self.answers()[-RATE:]) == wanted and len(self.answers()) >= RATE,
            deadline=60,
            process=self._process,
        )
        return len(self.answers())

    def stop(self) -> None:
        """When all that is due is answered."""
        self._process.stop(grace=30)


def _served(admin: str) -> int:
    """Requests that reached an Envoy."""
    with urllib.request.urlopen(f"http://{admin}/stats?filter=downstream_rq_total&format=json", timeout=5) as answer:
        stats = json.load(answer)["stats"]
    return sum(one["value"] for one in stats if "value" in one and ".admin." not in one["name"])


def _known(admin: str, shop: Shop) -> int:
    """How many pods of the new version an Envoy knows."""
    with urllib.request.urlopen(f"http://{admin}/clusters", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    cluster = f"outbound|80||app-v2.{shop.namespace}.svc.cluster.local::127."
    return sum(line.startswith(cluster) and "::cx_total::" in line for line in lines)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
@pytest.mark.parametrize("drain", [DRAIN, "0s"], ids=["drained", "control"])
def test_no_request_is_lost_when_the_pods_go(
    shop: Shop, cluster: Cluster, envoys: list[str], way: Way, drain: str, tmp_path: Path
) -> None:
    for version, replicas in (("app-v1", 2), ("app-v2", 0)):
        _apply(shop, APP.replace("VERSION", version).replace("REPLICAS", str(replicas)))
    _apply(shop, way.manifests)
    served = [_served(admin) for admin in envoys]
    pods = Pods(shop.api, shop.namespace, tmp_path)
    pods.start()
    url, host = cluster.mesh.routes_url if way.routes else cluster.mesh.gateway_url, f"{shop.namespace}.app.example"
    until("the gateway serves the old version", lambda: _ask(url, host), deadline=60)
    load = Load(url, host, tmp_path)
    try:
        begin = load.until_only("app-v1")
        shop.apply(PLAN.replace("MOVE", way.step.replace("DRAIN", drain)))
        shop.until_phase(Phase.WAITING, deadline=90)
        until("each Envoy knows the new pods", lambda: {_known(admin, shop) for admin in envoys} == {2}, deadline=60)
        shop.request(RequestVerb.APPROVE, "start")
        shop.until(lambda s: s.phase is Phase.WAITING and s.current is not None and s.current.step == "ok", deadline=90)
        assert shop.endpoints("app-v1") == 0, "the old pods are gone"
        there = load.until_only("app-v2")
        shop.request(RequestVerb.ABORT)
        assert shop.until_ended(deadline=90).phase is Phase.ROLLED_BACK
        assert shop.endpoints("app-v2") == 0, "the new pods are gone"
        load.until_only("app-v1")
    finally:
        load.stop()
        pods.stop()
    answers = load.answers()
    for told, part in (("forward", answers[begin:there]), ("back", answers[there:])):
        lost = sum(not answer.startswith("200 ") for answer in part)
        _LOG.info("%s, drain %s, %s: %d of %d requests lost", way.name, drain, told, lost, len(part))
        if drain == DRAIN:
            assert lost == 0, f"{told}: {lost} of {len(part)} requests are lost: {Counter(part)}"
        else:
            assert lost > 0, f"{told}: none of {len(part)} requests is lost without a drain, so this test shows nothing"
    assert all(_served(admin) > before for admin, before in zip(envoys, served, strict=True)), "both took part"


def _apply(shop: Shop, manifests: str) -> None:
    for manifest in yaml.safe_load_all(manifests.replace("NAMESPACE", shop.namespace)):
        shop.api.apply(manifest)


def _ask(url: str, host: str) -> bool:
    request = urllib.request.Request(url, headers={"host": host})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return bool(answer.status == 200)
