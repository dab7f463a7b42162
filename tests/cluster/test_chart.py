"""The chart, installed by the real Helm on the real API server, under the restricted pod security standard."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.settings import load
from harness import tools
from harness.cluster import ROOT
from harness.kind import AnyCluster
from harness.process import until

pytestmark = pytest.mark.cluster
CHART = str(ROOT / "charts" / "cutover")
VALUES = "providers.default.prometheus.url=http://prometheus.monitoring:9090"


def helm(*arguments: str, kubeconfig: Path | None = None) -> str:
    with tempfile.TemporaryDirectory() as home:
        env = {"KUBECONFIG": str(kubeconfig or Path(home) / "none"), "HOME": home}
        command = [str(tools.locate("helm")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*values: str) -> dict[tuple[str, str], Any]:
    text = helm(
        "template",
        "cutover",
        CHART,
        "-n",
        "cutover-system",
        "--kube-version",
        tools.KUBERNETES,
        *(part for value in values for part in ("--set", value)),
    )
    return {(body["kind"], body["metadata"]["name"]): body for body in yaml.safe_load_all(text) if body}


def test_lint() -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_its_rights_are_the_rules_that_the_tests_run_with() -> None:
    files = Path(CHART) / "files"
    rendered = render()
    assert rendered["ClusterRole", "cutover"]["rules"] == yaml.safe_load((files / "rules.yaml").read_text())
    assert rendered["Role", "cutover-lease"]["rules"] == yaml.safe_load((files / "lease-rules.yaml").read_text())
    assert rendered["Role", "cutover-lease"]["metadata"]["namespace"] == "cutover-system"


def test_replicas() -> None:
    two, one = render(), render("replicas=1")
    assert two["Deployment", "cutover"]["spec"]["replicas"] == 2
    assert two["PodDisruptionBudget", "cutover"]["spec"]["maxUnavailable"] == 1
    assert one["Deployment", "cutover"]["spec"]["replicas"] == 1
    assert ("PodDisruptionBudget", "cutover") not in one, "it would forbid every drain, or nothing"


def test_a_service_monitor_finds_its_service() -> None:
    assert not [kind for kind, _ in render() if kind in ("Service", "ServiceMonitor")]
    rendered = render("metrics.serviceMonitor.enabled=true", "metrics.serviceMonitor.labels.release=prometheus")
    monitor, service = rendered["ServiceMonitor", "cutover"], rendered["Service", "cutover-metrics"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] == service["spec"]["ports"][0]["name"]
    pod = rendered["Deployment", "cutover"]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert service["spec"]["ports"][0]["targetPort"] == pod["spec"]["containers"][0]["ports"][0]["name"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("replicas=two", "'/replicas': got string, want integer"),
        ("lease.duratoin=3s", "additional properties 'duratoin' not allowed"),
        ("providers.x.prometheus.url=prometheus:9090", "'/providers/x/prometheus/url'"),
        ("notify.chat.secret=chat", "missing property 'key'"),
        ("replica=3", "additional properties 'replica' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, says: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(says)):
        render(value)


def test_impersonation_can_be_narrowed() -> None:
    rules = render("impersonate={checkout-migrator}")["ClusterRole", "cutover"]["rules"]
    assert [rule["resourceNames"] for rule in rules if "impersonate" in rule["verbs"]] == [["checkout-migrator"]]


def test_namespaces_narrow_the_rights() -> None:
    rendered = render("namespaces={shop,till}")
    assert ("ClusterRoleBinding", "cutover") not in rendered
    assert rendered["RoleBinding", "cutover"]["metadata"]["namespace"] in ("shop", "till")


def test_its_settings_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        render(VALUES, "namespaces={shop}", "lease.duration=20s")["ConfigMap", "cutover-settings"]["data"][
            "settings.yaml"
        ]
    )
    settings = load(file)
    assert settings.providers["default"].prometheus.url == "http://prometheus.monitoring:9090"
    assert settings.namespaces == ("shop",)
    assert settings.lease is not None
    assert (settings.lease.name, settings.lease.duration) == ("cutover", timedelta(seconds=20))
    file.write_text(render()["ConfigMap", "cutover-settings"]["data"]["settings.yaml"])
    assert load(file).providers == {}


def test_receivers_of_messages_come_from_secrets(tmp_path: Path) -> None:
    rendered = render(
        "notify.chat.secret=cutover-chat", "notify.chat.key=urls", "notify.pager.secret=p", "notify.pager.key=k"
    )
    file = tmp_path / "settings.yaml"
    file.write_text(rendered["ConfigMap", "cutover-settings"]["data"]["settings.yaml"])
    chat = load(file).notify["chat"].url_file
    pod = rendered["Deployment", "cutover"]["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert chat.name == "urls"
    assert volumes[mounts[str(chat.parent)]]["secret"] == {"secretName": "cutover-chat"}
    assert set(load(file).notify) == {"chat", "pager"}


def test_it_installs_upgrades_and_goes(cluster: AnyCluster, namespace: str) -> None:
    enforce = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    cluster.api.patch(f"/api/v1/namespaces/{namespace}", enforce)
    name = f"cutover-{namespace}"

    def on(*arguments: str) -> str:
        return helm(*arguments, "-n", namespace, kubeconfig=cluster.kubeconfig)

    try:
        notes = on("install", name, CHART, "--set", VALUES, "--wait", "--timeout", "60s")
        assert "kubectl label serviceaccount checkout-migrator -n shop cutover.dev/migrator=true" in notes
        deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
        until(
            "the pods are admitted and run", lambda: cluster.api.get(deployment)["status"].get("availableReplicas") == 2
        )
        on(
            "upgrade",
            name,
            CHART,
            "--set",
            "providers.other.prometheus.url=http://other:9090",
            "--wait",
            "--timeout",
            "60s",
        )
        assert json.loads(on("list", "-o", "json"))[0]["revision"] == "2"
    finally:
        on("uninstall", name, "--wait")
    crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/migrationplans.cutover.dev"
    assert cluster.api.find(crd) is not None, "plans outlive the chart"
