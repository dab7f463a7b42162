"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler and KWOK as plain processes on 127.0.0.1."""

from __future__ import annotations

import functools
import json
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import trustme
import yaml

from harness import kwok, tools
from harness.api import Api, ApiError
from harness.process import Process, free_ports, until

_AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}


class ControlPlane:
    """A Kubernetes without containers.

    Args:
        folder: for its data, certificates and logs.
        detached: the processes outlive us.
        fsync: etcd flushes to disk; without it everything is faster, and a power cut would lose data.
    """

    def __init__(
        self, folder: Path, *, detached: bool = False, fsync: bool = False, report: Callable[[str], None] = print
    ) -> None:
        self.folder, self._detached, self._fsync, self._report = folder, detached, fsync, report
        self.admin_token = secrets.token_hex(16)
        self.processes: dict[str, Process] = {}
        self.url = ""

    # --- addresses and files ------------------------------------------------------------------------------------------

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        return self.folder / "audit.log"

    @functools.cached_property
    def api(self) -> Api:
        return Api(self.url, self.ca, self.admin_token)

    def kubeconfig_for(self, name: str, token: str, namespace: str = "default", server: str = "") -> Path:
        """A kubeconfig for another user; through another address when one is given."""
        path = self.folder / f"kubeconfig-{name}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "cutover-local",
            "clusters": [
                {"name": "local", "cluster": {"server": server or self.url, "certificate-authority": str(self.ca)}}
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [
                {"name": "cutover-local", "context": {"cluster": "local", "user": name, "namespace": namespace}}
            ],
        }
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return path

    def attach(self, url: str, token: str, ca: str = "") -> None:
        """Use one that runs already; with its CA's certificate, one whose files are not in our folder."""
        self.url, self.admin_token = url, token
        if ca:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.ca.write_text(ca)
            self.kubeconfig_for("admin", token).rename(self.kubeconfig)

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start all of it and wait until pods can be scheduled."""
        self.folder.mkdir(parents=True, exist_ok=True)
        names = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"]
        tools.locate_all(names, self._report)
        self._write_files()
        self._start_etcd()
        self.start_api()
        self._start_controllers()
        self.start_nodes()

    def _write_files(self) -> None:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        server = authority.issue_cert("127.0.0.1", "localhost", "kubernetes.default.svc", common_name="kube-apiserver")
        server.private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        server.private_key_pem.write_to_path(self.folder / "server.key")
        (self.folder / "tokens.csv").write_text(f'{self.admin_token},admin,admin,"system:masters"\n')
        (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(_AUDIT))

    def _process(self, name: str, *arguments: str) -> Process:
        process = Process(
            name,
            [str(tools.locate(name, self._report)), *arguments],
            log=self.folder / "logs" / f"{name}.log",
            cwd=self.folder,
            detached=self._detached,
        )
        process.start()
        self.processes[name] = process
        return process

    def _start_etcd(self) -> None:
        client, peer = free_ports(2)
        self._etcd = f"http://127.0.0.1:{client}"
        arguments = [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={self._etcd}",
            f"--advertise-client-urls={self._etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--log-level=warn",
        ]
        process = self._process("etcd", *arguments, *(() if self._fsync else ("--unsafe-no-fsync",)))
        until("etcd is healthy", lambda: _answers(f"{self._etcd}/health"), process=process)

    def start_api(self) -> None:
        """Start the API server, on the port it had before if there was one."""
        port = int(self.url.rpartition(":")[2]) if self.url else free_ports(1)[0]
        self.url = f"https://127.0.0.1:{port}"
        process = self._process(
            "kube-apiserver",
            f"--etcd-servers={self._etcd}",
            f"--secure-port={port}",
            "--bind-address=127.0.0.1",
            f"--tls-cert-file={self.folder / 'server.pem'}",
            f"--tls-private-key-file={self.folder / 'server.key'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--service-account-key-file={self.folder / 'server.key'}",
            f"--service-account-signing-key-file={self.folder / 'server.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--endpoint-reconciler-type=none",
            f"--audit-policy-file={self.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self.audit_log}",
            "--profiling=false",
            # Stricter than the default, and what OpenShift has: who sets an owner must be allowed to delete the object.
            "--enable-admission-plugins=OwnerReferencesPermissionEnforcement",
        )
        self.kubeconfig_for("admin", self.admin_token).rename(self.kubeconfig)
        tls = ssl.create_default_context(cafile=str(self.ca))
        until("the API server is ready", lambda: _answers(f"{self.url}/readyz", tls, self.admin_token), process=process)
        for name in ("kube-controller-manager", "kube-scheduler", "kwok"):
            if name in self.processes:  # after an outage they wait longer and longer, which is none of our business
                self.processes[name].kill()
                self.processes[name].start()

    def stop_api(self, *, kill: bool = False) -> None:
        """Take the API server away."""
        process = self.processes["kube-apiserver"]
        process.kill() if kill else process.stop()

    def _start_controllers(self) -> None:
        common = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--secure-port=0"]
        self._process(
            "kube-controller-manager",
            *common[:2],
            f"--secure-port={free_ports(1)[0]}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'kcm'}",
            "--controllers=*,-nodeipam,-nodelifecycle,-cloud-node-lifecycle",
            f"--service-account-private-key-file={self.folder / 'server.key'}",
            f"--root-ca-file={self.ca}",
            "--use-service-account-credentials=false",
            "--concurrent-deployment-syncs=20",
            "--concurrent-replicaset-syncs=20",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )
        self._process(
            "kube-scheduler",
            *common[:2],
            f"--secure-port={free_ports(1)[0]}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={self.folder / 'scheduler'}",
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
        )

    def start_nodes(self) -> None:
        """Start KWOK and give it its nodes."""
        stages = kwok.stages()
        (self.folder / "kwok.yaml").write_text(stages)
        self._process(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self.folder / 'kwok.yaml'}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-label-selector={kwok.LABEL}=true",
            "--node-lease-duration-seconds=0",  # one that is started again would wait for the lease of the one before
            f"--server-address=127.0.0.1:{free_ports(1)[0]}",
        )
        api = self.api
        until(
            "the default namespace has its account",
            lambda: api.find("/api/v1/namespaces/default/serviceaccounts/default"),
        )
        for name in ("kwok-1", "kwok-2"):
            self.add_node(kwok.node(name))

    def add_node(self, manifest: dict[str, Any]) -> None:
        """Register a node and take the taint away that nobody else would: node lifecycle is off."""
        api = self.api
        name = manifest["metadata"]["name"]
        wanted = manifest["spec"].get("taints", [])
        if api.find(f"/api/v1/nodes/{name}") is None:
            api.create("/api/v1/nodes", manifest)

        def untainted() -> bool:
            taints = api.get(f"/api/v1/nodes/{name}")["spec"].get("taints", [])
            if [taint["key"] for taint in taints] == [taint["key"] for taint in wanted]:
                return True
            api.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": wanted}})
            return False

        until(f"node {name} has lost its first taint", untainted)

    def stop(self) -> None:
        """End all of it, each gone before the next: an API server whose etcd is gone lingers for a minute."""
        for name in ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd"):
            if name in self.processes:
                self.processes[name].stop()

    # --- accounts -----------------------------------------------------------------------------------------------------

    def token_for(self, namespace: str, account: str) -> str:
        """A token of a service account, as the kubelet would hand it to a pod."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        }
        token: str = self.api.create(path, request)["status"]["token"]
        return token

    def operator_kubeconfig(self, rules: list[Any], own: Sequence[Any] = (), namespace: str = "cutover-system") -> Path:
        """A kubeconfig of the operator's account, with these rights in the whole cluster, and its own in its namespace."""
        name = "cutover"
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        rbac = f"{group}/v1"
        install(
            self.api,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
            {"apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules},
            {
                "apiVersion": rbac,
                "kind": "ClusterRoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [subject],
            },
            {"apiVersion": rbac, "kind": "Role", "metadata": {"name": name, "namespace": namespace}, "rules": [*own]},
            {
                "apiVersion": rbac,
                "kind": "RoleBinding",
                "metadata": {"name": name, "namespace": namespace},
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [subject],
            },
        )
        return self.kubeconfig_for("operator", self.token_for(namespace, name))

    def make_namespace(self, name: str) -> None:
        """A namespace whose default account exists, so that pods can be made in it."""
        api = self.api
        api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        until(
            f"namespace {name} has its account", lambda: api.find(f"/api/v1/namespaces/{name}/serviceaccounts/default")
        )

    def drop_namespace(self, name: str, deadline: float = 60.0) -> None:
        api = self.api
        api.delete(f"/api/v1/namespaces/{name}")
        until(f"namespace {name} is gone", lambda: api.find(f"/api/v1/namespaces/{name}") is None, deadline=deadline)


def _answers(url: str, tls: ssl.SSLContext | None = None, token: str = "") -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=2, context=tls) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError:
        return False


def install(api: Api, *manifests: dict[str, Any]) -> None:
    """Apply manifests; a CRD is there only when it is established."""
    for manifest in manifests:
        api.apply(manifest)
        if manifest["kind"] == "CustomResourceDefinition":
            path = api.path(manifest)
            until(f"{manifest['metadata']['name']} is established", lambda path=path: _established(api, path))  # type: ignore[misc]


def _established(api: Api, path: str) -> bool:
    body = api.get(path)
    conditions = body.get("status", {}).get("conditions") or []
    if not any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions):
        return False
    spec = body["spec"]
    version = next(found["name"] for found in spec["versions"] if found["served"])
    try:
        api.get(f"/apis/{spec['group']}/{version}/{spec['names']['plural']}?limit=1")
    except ApiError:
        time.sleep(0.02)
        return False
    return True


def load(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML or JSON file."""
    text = path.read_text()
    return [json.loads(text)] if path.suffix == ".json" else [found for found in yaml.safe_load_all(text) if found]
