"""The kind way: the operator as its chart installs it, on a cluster in Docker that pytest-kind creates and deletes.

Real are here its API server and controllers, Istio, the image and its pods. The shop's pods are KWOK's and the metrics a
Prometheus of this machine's, as on the local cluster, so that the tests are the same. Called by the pytest plugin alone.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from harness import tools
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.control_plane import ControlPlane, install
from harness.mesh import gateway_crds
from harness.process import until
from harness.prometheus import Prometheus

TOOLS: Final = ("kind", "helm", "kwok", "prometheus")
NAMESPACE: Final = "cutover-system"
CHART: Final = ROOT / "charts" / "cutover"
ISTIO_CHARTS: Final = {"istio-base": "base", "istiod": "istio-control/istio-discovery"}
"""Releases, in this order, and their places below `manifests/charts` in Istio's module: those of the very source that the
local cluster's istiod is built from."""
ISTIO_VALUES: Final[dict[str, Any]] = {
    "global": {"hub": "istio", "tag": "1.31.4"},
    "autoscaleEnabled": False,
    "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
}
_REPOSITORY, _TAG = "cutover", "kind"
_CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
_RBAC: Final = "rbac.authorization.k8s.io"
_ADMIN: Final = {"kind": "ServiceAccount", "name": "admin", "namespace": "kube-system"}


class Created(Protocol):
    """What of pytest-kind's KindCluster is used here."""

    name: str
    kubeconfig_path: Path
    api: Any

    def load_docker_image(self, docker_image: str) -> None: ...


def _run(*command: str) -> str:
    """The output of a command. Raises RuntimeError with its errors when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {done.returncode} and says: {done.stderr.strip()}")
    return done.stdout.strip()


def require_docker() -> None:
    """Raises ToolMissing unless Docker answers. All else that is needed can be got."""
    try:
        _run("docker", "info", "--format", "{{.ServerVersion}}")
    except (OSError, RuntimeError) as error:
        raise tools.ToolMissing(
            f"the kind way needs Docker on Linux, and it is not there: {error}\n"
            "Install it (https://docs.docker.com/engine/install/) and let your user use it (`docker info` must work); "
            "kind, Helm and the rest are then got by `make test-kind`."
        ) from None


def build_image() -> str:
    """Build the operator's image from the Dockerfile; its id. Done before there is a cluster: what fails here leaves nothing.

    Without attestations: a node takes them for an image of another platform and cannot unpack it.
    """
    command = f"env BUILDX_NO_DEFAULT_ATTESTATIONS=1 docker build --quiet --tag {_REPOSITORY}:{_TAG}"
    return _run(*command.split(), str(ROOT))


def chart_values(providers: dict[str, Any], image: str) -> dict[str, Any]:
    """The chart's values. The image's id is in them so that another image of the same tag makes new pods in a kept cluster."""
    return {
        "image": {"repository": _REPOSITORY, "tag": _TAG},
        "providers": providers,
        "podAnnotations": {"harness.cutover.dev/image": image},
        "nodeSelector": {_CONTROL_PLANE: ""},
        "tolerations": [{"key": _CONTROL_PLANE, "operator": "Exists"}],
    }


class Installed:
    """The operator as the chart installs it: two pods, of which one works."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._pods = f"/api/v1/namespaces/{NAMESPACE}/pods"

    @property
    def alive(self) -> bool:
        """Whether all its pods are there and ready. The pods are asked: the Deployment's status comes after them."""
        deployment = self._api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cutover")
        return bool(sum(_ready(pod) for pod in self._listed()) == deployment["spec"]["replicas"])

    def start(self) -> None:
        """Its Deployment starts it; this waits."""
        until("the operator's pods are ready", lambda: self.alive, deadline=120)

    def restart(self) -> None:
        """Delete its pods, and wait until others are ready in their place."""
        before = self._uids()
        for pod in before.values():
            self._api.delete(f"{self._pods}/{pod}")
        until("the operator's pods are gone", lambda: not before.keys() & self._uids().keys(), deadline=120)
        self.start()

    def _uids(self) -> dict[str, str]:
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in self._listed()}

    def _listed(self) -> list[dict[str, Any]]:
        return self._api.list(self._pods, "app.kubernetes.io/instance=cutover")


def _ready(pod: dict[str, Any]) -> bool:
    conditions = {condition["type"]: condition["status"] for condition in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


class OnKind:
    """What the tests use of a cluster, on kind. A cluster that was kept may be started again.

    Args:
        created: by pytest-kind, which deletes it too.
        folder: for files, and for the data of our own processes.
        image: the id of the image that was built.
    """

    def __init__(self, created: Created, folder: Path, image: str, report: Callable[[str], None]) -> None:
        self._created, self._folder, self._image, self._report = created, folder, image, report
        self.control_plane = ControlPlane(folder / "control-plane", report=report)
        form = "{{.NetworkSettings.Networks.kind.Gateway}}"
        gateway = _run("docker", "inspect", "--format", form, f"{created.name}-control-plane")
        # Here the pods reach this machine, and nobody from outside does.
        self.prometheus = Prometheus(folder / "prometheus", report=report, address=gateway)

    @property
    def api(self) -> Api:
        return self.control_plane.api

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def operator(self) -> Installed:
        return Installed(self.api)

    def start(self) -> None:
        """Install all of it, each part after those it rests on."""
        try:
            self._created.load_docker_image(f"{_REPOSITORY}:{_TAG}")
            self._attach()
            install(self.api, *gateway_crds())  # istiod looks for them when it starts
            for release, chart in ISTIO_CHARTS.items():
                self._helm(release, istio_chart(chart), "istio-system", ISTIO_VALUES)
            self.prometheus.start()
            self._helm("cutover", CHART, NAMESPACE, chart_values(self.prometheus.providers, self._image))
            self._simulate()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End our own processes; the cluster is pytest-kind's to delete."""
        self.prometheus.stop()
        self.control_plane.stop()

    def _attach(self) -> None:
        """Get a token with all rights: kind's kubeconfig has a certificate, and the tests' client sends a token."""
        account = {"version": "v1", "namespace": _ADMIN["namespace"], "url": "serviceaccounts"}
        role = {"apiGroup": _RBAC, "kind": "ClusterRole", "name": "cluster-admin"}
        binding = {"metadata": {"name": "cutover-tests"}, "roleRef": role, "subjects": [_ADMIN]}
        self._post({"metadata": {"name": _ADMIN["name"]}}, **account)
        self._post(binding, version=f"{_RBAC}/v1", url="clusterrolebindings")
        account["url"] += f"/{_ADMIN['name']}/token"
        token = self._post({"spec": {"expirationSeconds": 86400}}, **account)["status"]["token"]
        server = yaml.safe_load(self._created.kubeconfig_path.read_text())["clusters"][0]["cluster"]
        ca = base64.b64decode(server["certificate-authority-data"]).decode()
        self.control_plane.attach(server["server"], token, ca)

    def _post(self, body: dict[str, Any], **where: str) -> Any:
        answer = self._created.api.post(json=body, **where)
        if answer.status_code != 409:  # there already, in a cluster that was kept
            answer.raise_for_status()
        return answer.json()

    def _helm(self, release: str, chart: Path, namespace: str, values: dict[str, Any]) -> None:
        file = self._folder / f"{release}.yaml"
        file.write_text(yaml.safe_dump(values))
        command = [str(tools.locate("helm", self._report)), "upgrade", "--install", release, str(chart)]
        command += ["--namespace", namespace, "--create-namespace", "--values", str(file), "--wait", "--timeout", "5m"]
        _run(*command, "--kubeconfig", str(self.kubeconfig))

    def _simulate(self) -> None:
        """KWOK's nodes for the shop's pods, which have no image; what is real stays on the real node, and they stay away.

        KWOK's nodes have no address: kind's network plugin passes those over, and would die of one it cannot reach.
        """
        node = f"/api/v1/nodes/{self._created.name}-control-plane"
        self.api.patch(node, {"spec": {"taints": [{"key": _CONTROL_PLANE, "effect": "NoSchedule"}]}})
        self.control_plane.start_nodes()


def istio_chart(place: str) -> Path:
    """One of Istio's charts, as its source has it. Raises ToolMissing."""
    return tools.module_dir("istio", "istio.io/istio") / "manifests" / "charts" / place


AnyCluster = Cluster | OnKind
"""What a test that runs everywhere may ask for; one that asks for `Cluster` is marked `local`."""
