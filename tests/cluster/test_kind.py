"""The kind way, rehearsed: Docker and kind are played by scripts, on a control plane of its own.

Helm, both charts, KWOK, Prometheus and pytest-kind are the real ones. What this cannot show: that the image builds and runs,
that Istio's image does, and that pods reach this machine.
"""

from __future__ import annotations

import base64
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cutover.settings.settings import load
from harness import kwok, tools
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.kind import NAMESPACE, Installed
from harness.process import until

pytestmark = [pytest.mark.cluster, pytest.mark.local("plays Docker and kind itself")]
NAME = "rehearsal"
ADDRESS = "127.0.0.2"
"""Of this machine too: where the pods would find it."""
SAYS = {"info": "29.0.0", "build": "sha256:1234", "inspect": ADDRESS}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """What kind would create: an API server, its controllers, and one node of the name and label that kind gives."""
    made = Cluster(tmp_path_factory.mktemp("plane"), report=lambda _: None)
    made.start(())
    node = kwok.node(f"{NAME}-control-plane")
    node["metadata"]["labels"]["node-role.kubernetes.io/control-plane"] = ""
    made.control_plane.add_node(node)
    yield made
    made.stop()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def commands(plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two tests run on kind; the commands that this took."""
    folder = tmp_path_factory.mktemp("kind")
    log = f'echo "$(basename $0) $*" >> {folder}/log\n'
    cases = "\n".join(f"  {verb}) echo {answer};;" for verb, answer in SAYS.items())
    script(folder / "docker", f"{log}case $1 in\n{cases}\nesac")
    helm = script(folder / "helm", f'{log}exec {tools.locate("helm")} "$@"')
    config = yaml.safe_load(plane.kubeconfig.read_text())
    server = config["clusters"][0]["cluster"]
    ca = Path(server.pop("certificate-authority")).read_bytes()
    server["certificate-authority-data"] = base64.b64encode(ca).decode()
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    put = f'for last; do :; done\ncase "$1 $2" in "create cluster") cp {folder}/kubeconfig "${{last#--kubeconfig=}}";; esac'
    kind = script(folder / "kind-program", log + put)
    tests = [
        f"{ROOT}/tests/cluster/test_chart.py",
        f"{ROOT}/tests/cluster/test_manifests.py",
        "-k",
        "installs or examples/canary.yaml",
    ]
    options = [f"--kind-bin={kind}", f"--cluster-name={NAME}", "-c", f"{ROOT}/pyproject.toml", f"--rootdir={ROOT}"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--cluster=kind", *options, *tests],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "CUTOVER_HELM": helm, "HOME": str(folder)}
        | {"XDG_CACHE_HOME": str(tools.cache().parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    return (folder / "log").read_text().splitlines()


def test_one_thing_after_the_other(commands: list[str]) -> None:
    own = [line for line in commands if "helm" not in line or "upgrade --install" in line]
    assert [" ".join(shlex.split(line)[:4]) for line in own] == [
        "docker info --format {{.ServerVersion}}",
        "docker build --quiet --tag",
        "kind-program get clusters",
        f"kind-program create cluster --name={NAME}",
        "docker inspect --format {{.NetworkSettings.Networks.kind.Gateway}}",
        "kind-program load docker-image --name",
        "helm upgrade --install istio-base",
        "helm upgrade --install istiod",
        "helm upgrade --install cutover",
        f"kind-program delete cluster --name={NAME}",
    ]


def test_the_chart_is_installed_with_the_image_that_was_loaded(commands: list[str], plane: Cluster) -> None:
    (loaded,) = (line.split()[-1] for line in commands if "load docker-image" in line)
    template = plane.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/cutover")["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == loaded
    assert template["metadata"]["annotations"]["harness.cutover.dev/image"] == SAYS["build"]


def test_its_settings_lead_to_the_prometheus_of_this_machine(
    commands: list[str], plane: Cluster, tmp_path: Path
) -> None:
    assert commands
    settings = plane.api.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps/cutover-settings")["data"]["settings.yaml"]
    (tmp_path / "settings.yaml").write_text(settings)
    providers = load(tmp_path / "settings.yaml").providers
    assert sorted(providers) == ["default", "down", "hasty"]
    assert providers["default"].server.url.startswith(f"http://{ADDRESS}:")


def test_istio_is_a_release(commands: list[str], plane: Cluster) -> None:
    assert commands
    istiod = plane.api.get("/apis/apps/v1/namespaces/istio-system/deployments/istiod")
    assert istiod["spec"]["template"]["spec"]["containers"][0]["image"] == "istio/pilot:1.31.4"
    definitions = plane.api.list("/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
    assert "virtualservices.networking.istio.io" in {body["metadata"]["name"] for body in definitions}


def places(api: Api) -> dict[str, str]:
    return {
        pod["metadata"]["uid"]: pod["spec"]["nodeName"]
        for pod in api.list(f"/api/v1/namespaces/{NAMESPACE}/pods", "app.kubernetes.io/instance=cutover")
        if not pod["metadata"].get("deletionTimestamp")
    }


def test_pods_of_the_operator_stay_on_the_real_node_and_others_do_not(commands: list[str], plane: Cluster) -> None:
    """Also when they are deleted and created again, which is how the operator is started again."""
    assert commands
    before = places(plane.api)
    Installed(plane.api).restart()
    after = places(plane.api)
    assert len(before) == len(after) == 2
    assert not before.keys() & after.keys()
    assert {*before.values(), *after.values()} == {f"{NAME}-control-plane"}
    spec = {"containers": [{"name": "app", "image": "shop:1"}]}
    path = plane.api.path(
        plane.api.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop"}, "spec": spec})
    )
    node = until("the shop's pod has a node", lambda: plane.api.get(path)["spec"].get("nodeName"))
    assert node in ("kwok-1", "kwok-2")
