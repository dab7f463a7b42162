"""Istio without containers: istiod and the Envoy of a gateway as processes, the CRDs of Istio and the Gateway API, the webhook."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from harness import tools
from harness.control_plane import ControlPlane, install, load
from harness.envoy import LABELS, SYSTEM, bootstrap
from harness.process import Process, free_ports, until

GATEWAY: Final = f"{SYSTEM}/gateway"
"""What a VirtualService names in `gateways` to be served here."""

_HOST: Final = f"gateway.{SYSTEM}.svc.cluster.local"
_PORT: Final = 80

_MESH = {
    "defaultHttpRetryPolicy": {"attempts": 0},  # so that every failure is seen
    "enableAutoMtls": False,
    "enablePrometheusMerge": False,
    "ingressControllerMode": "OFF",
    "rootNamespace": SYSTEM,
    "trustDomain": "cluster.local",
}


class Mesh:
    """istiod and a gateway.

    Args:
        control_plane: running.
        folder: for configuration and logs.
        detached: the processes outlive us.
    """

    def __init__(
        self,
        control_plane: ControlPlane,
        folder: Path,
        *,
        detached: bool = False,
        report: Callable[[str], None] = print,
    ) -> None:
        self._control_plane, self.folder, self._detached, self._report = control_plane, folder, detached, report
        self.processes: dict[str, Process] = {}
        self._proxies = {"envoy": f"envoy.{SYSTEM}"}  # what istiod calls each Envoy

    def attach(self, gateway_port: int, admin_port: int, istiod_port: int, route_port: int) -> None:
        """Use one that runs already."""
        self.gateway_port, self.admin_port, self.istiod_port = gateway_port, admin_port, istiod_port
        self.route_port = route_port

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def routes_url(self) -> str:
        """Where the same Envoy serves the HTTPRoutes."""
        return f"http://127.0.0.1:{self.route_port}"

    @property
    def envoy_admin(self) -> str:
        return f"127.0.0.1:{self.admin_port}"

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._tools = tools.locate_all(["pilot-discovery", "envoy"], self._report)
        (
            self.istiod_port,
            self._https,
            self._grpc,
            self._secure,
            self._monitoring,
            self.gateway_port,
            self.admin_port,
            self.route_port,
        ) = free_ports(8)
        api = self._control_plane.api
        install(api, *crds(), *gateway_crds())
        api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}})
        self.start_istiod()
        install(api, self._webhook(), self._gateway_object(), *self._gateway_of_the_gateway_api())
        self.start_envoy()
        until("the webhook refuses what is wrong", self._webhook_works, process=self.processes["istiod"])

    def start_istiod(self, debounce: tuple[str, str] = ("10ms", "100ms")) -> None:
        """Start it; one that runs is ended first.

        Args:
            debounce: how long it waits for another change before it sends any to the Envoys, and how long in all.
        """
        if "istiod" in self.processes:
            self.processes["istiod"].stop()
        mesh = self.folder / "mesh.yaml"
        mesh.write_text(yaml.safe_dump({**_MESH, "defaultConfig": {"discoveryAddress": f"127.0.0.1:{self._grpc}"}}))
        env = {
            "POD_NAMESPACE": SYSTEM,
            "POD_NAME": "istiod-local",
            "REVISION": "default",
            "CLUSTER_ID": "Kubernetes",
            "INJECT_ENABLED": "false",
            "ISTIOD_CUSTOM_HOST": "127.0.0.1",
            "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER": "false",
            "PILOT_ENABLE_METADATA_EXCHANGE": "false",
            "PILOT_ENABLE_ALPN_FILTER": "false",
            "PILOT_DEBOUNCE_AFTER": debounce[0],
            "PILOT_DEBOUNCE_MAX": debounce[1],
        }
        process = Process(
            "istiod",
            [
                str(self._tools["pilot-discovery"]),
                "discovery",
                f"--kubeconfig={self._control_plane.kubeconfig}",
                f"--meshConfig={mesh}",
                "--networksConfig=/dev/null",
                f"--httpAddr=127.0.0.1:{self.istiod_port}",
                f"--httpsAddr=127.0.0.1:{self._https}",
                f"--grpcAddr=127.0.0.1:{self._grpc}",
                f"--secureGRPCAddr=127.0.0.1:{self._secure}",
                f"--monitoringAddr=127.0.0.1:{self._monitoring}",
                "--ctrlz_port=0",
            ],
            log=self.folder / "istiod.log",
            env=env,
            cwd=self.folder,
            detached=self._detached,
        )
        process.start()
        self.processes["istiod"] = process
        until("istiod is ready", lambda: _ok(f"http://127.0.0.1:{self.istiod_port}/ready"), process=process)

    def start_envoy(self, name: str = "envoy", admin_port: int = 0) -> Process:
        """Start one; a second one shares the ports of the gateway with the first, and the kernel divides the connections.

        Args:
            name: of the process.
            admin_port: its own; that of the gateway by default.
        """
        return self._start_proxy(name, SYSTEM, admin_port or self.admin_port)

    def start_sidecar(self, name: str, namespace: str) -> Process:
        """Start one of a pod with the label ``app`` of this name; what it listens on is for a Sidecar to say."""
        (admin_port,) = free_ports(1)
        return self._start_proxy(name, namespace, admin_port, sidecar=True)

    def known_to(self, namespace: str, labels: Mapping[str, str]) -> dict[str, set[str]]:
        """The clusters that istiod gives to a proxy of this namespace with these labels, with their endpoints' addresses.

        It is asked by an Envoy of its own, which ends here.
        """
        (admin_port,) = free_ports(1)
        self._start_proxy("client", namespace, admin_port, labels=labels)
        try:
            return clusters_of(admin_port)
        finally:
            self.stop_one("client")

    def stop_one(self, name: str) -> None:
        """End an Envoy that a test has started, if it is there."""
        if process := self.processes.pop(name, None):
            process.stop()
            del self._proxies[name]

    def _start_proxy(self, name: str, namespace: str, admin_port: int, **kind: Any) -> Process:
        config = self.folder / f"{name}.json"
        self._proxies[name] = f"{name}.{namespace}"
        config.write_text(json.dumps(bootstrap(self._proxies[name], admin_port, self._grpc, **kind)))
        process = Process(
            name,
            [
                str(self._tools["envoy"]),
                "-c",
                str(config),
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "-l",
                "warning",
            ],
            log=self.folder / f"{name}.log",
            cwd=self.folder,
            detached=self._detached,
        )
        process.start()
        self.processes[name] = process
        until("Envoy is ready", lambda: _ok(f"http://127.0.0.1:{admin_port}/ready"), process=process)
        return process

    def stop(self) -> None:
        """The Envoys first."""
        for name in sorted(self.processes):
            self.processes[name].stop()

    # --- objects ------------------------------------------------------------------------------------------------------

    def _gateway_object(self) -> dict[str, Any]:
        server = {
            "port": {"number": self.gateway_port, "name": "http", "protocol": "HTTP"},
            "hosts": ["*"],
            "bind": "127.0.0.1",
        }
        return {
            "apiVersion": "networking.istio.io/v1",
            "kind": "Gateway",
            "metadata": {"name": "gateway", "namespace": SYSTEM},
            "spec": {"selector": LABELS, "servers": [server]},
        }

    def _gateway_of_the_gateway_api(self) -> list[dict[str, Any]]:
        """The Gateway that an HTTPRoute names, bound to the same Envoy by the host of a service whose one endpoint that is.

        Istio makes no pods for a Gateway that names its address. It cannot name the one on which a port is bound.
        """
        port = {"number": _PORT, "name": "http", "protocol": "HTTP", "targetPort": self.route_port}
        place = {"name": "gateway", "namespace": SYSTEM}
        listener = {"name": "http", "port": _PORT, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
        group = "gateway.networking.k8s.io/v1"
        return [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "ServiceEntry",
                "metadata": place,
                "spec": {
                    "hosts": [_HOST],
                    "ports": [port],
                    "resolution": "STATIC",
                    "location": "MESH_INTERNAL",
                    "endpoints": [{"address": "127.0.0.1", "labels": LABELS}],
                },
            },
            {
                "apiVersion": group,
                "kind": "GatewayClass",
                "metadata": {"name": "istio"},
                "spec": {"controllerName": "istio.io/gateway-controller"},
            },
            {
                "apiVersion": group,
                "kind": "Gateway",
                "metadata": place,
                "spec": {
                    "gatewayClassName": "istio",
                    "addresses": [{"type": "Hostname", "value": _HOST}],
                    "listeners": [listener],
                },
            },
        ]

    def _webhook(self) -> dict[str, Any]:
        rule = {
            "operations": ["CREATE", "UPDATE"],
            "apiGroups": ["networking.istio.io"],
            "apiVersions": ["*"],
            "resources": ["*"],
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": "istio-validator", "labels": {"istio.io/rev": "default", "istio": "istiod"}},
            "webhooks": [
                {
                    "name": "rev.validation.istio.io",
                    "clientConfig": {"url": f"https://127.0.0.1:{self._https}/validate"},
                    "rules": [rule],
                    "failurePolicy": "Ignore",
                    "sideEffects": "None",
                    "admissionReviewVersions": ["v1"],
                }
            ],
        }

    def _webhook_works(self) -> bool:
        path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator"
        return bool(self._control_plane.api.get(path)["webhooks"][0]["failurePolicy"] == "Fail")

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_synced(self, deadline: float = 10.0) -> None:
        """Until each Envoy has acknowledged everything istiod has for it."""
        alive = {name for name, process in self.processes.items() if name in self._proxies and process.alive}
        names = {self._proxies[name] for name in alive | {"envoy"}}

        def synced() -> bool:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.istiod_port}/debug/syncz", timeout=2) as answer:
                clients = [client for client in json.load(answer) or () if client.get("proxy") in names]
            kinds = ("cluster", "listener", "route", "endpoint")
            return {client["proxy"] for client in clients} == names and all(
                client.get(f"{kind}_sent") == client.get(f"{kind}_acked") for client in clients for kind in kinds
            )

        time.sleep(
            0.05
        )  # istiod gathers changes for 10 ms before it sends any: asked at once, it would say all is well
        until("Envoy has what istiod sent", synced, deadline=deadline)


def crds() -> list[dict[str, Any]]:
    """Istio's CRDs, read once from its module."""
    kept = tools.cache() / f"pilot-discovery-{tools.ISTIO}" / "crds.yaml"
    if not kept.exists():
        source = tools.module_dir("istio", "istio.io/istio") / "manifests/charts/base/files/crd-all.gen.yaml"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(source.read_text())
    return load(kept)


def gateway_crds() -> list[dict[str, Any]]:
    """The standard CRDs of the Gateway API, of the release that Istio is built with, read once from its module."""
    kept = tools.cache() / f"pilot-discovery-{tools.ISTIO}" / "gateway-crds.yaml"
    if not kept.exists():
        folder = tools.module_dir("istio", "sigs.k8s.io/gateway-api") / "config/crd/standard"
        text = "---\n".join(file.read_text() for file in sorted(folder.glob("*.yaml")))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(text)
    return [body for body in load(kept) if body["kind"] == "CustomResourceDefinition"]


def clusters_of(admin_port: int) -> dict[str, set[str]]:
    """The clusters that an Envoy knows, with the addresses of their endpoints."""
    with urllib.request.urlopen(f"http://127.0.0.1:{admin_port}/clusters?format=json", timeout=5) as answer:
        found = json.load(answer).get("cluster_statuses") or ()
    return {
        one["name"]: {host["address"]["socket_address"]["address"] for host in one.get("host_statuses") or ()}
        for one in found
    }


def _ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
