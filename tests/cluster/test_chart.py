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
import trustme
import yaml

from cutover.settings.settings import Server, Settings, load
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


def test_its_permissions_are_the_rules_that_the_tests_run_with() -> None:
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


def test_a_network_policy_lets_in_who_scrapes_and_out_to_what_is_named() -> None:
    assert not [kind for kind, _ in render() if kind == "NetworkPolicy"]
    alone = render("networkPolicy.enabled=true")["NetworkPolicy", "cutover"]["spec"]
    assert alone["policyTypes"] == ["Ingress"]
    assert "ingress" not in alone, "no rule lets nobody in"
    rendered = render(
        "networkPolicy.enabled=true",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=monitoring",
        "networkPolicy.egress[0].ports[0].port=443",
    )
    spec, pod = rendered["NetworkPolicy", "cutover"]["spec"], rendered["Deployment", "cutover"]["spec"]["template"]
    assert spec["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
    peer = {"namespaceSelector": {"matchLabels": {"team": "monitoring"}}}
    assert spec["ingress"] == [{"ports": [{"port": "http"}], "from": [peer]}]
    assert {port["port"] for rule in spec["ingress"] for port in rule["ports"]} <= ports
    assert (spec["policyTypes"], spec["egress"]) == (["Ingress", "Egress"], [{"ports": [{"port": 443}]}])


def test_an_image_is_named_by_its_digest() -> None:
    def image(*values: str) -> str:
        pod = render("image.repository=registry.shop/cutover", *values)["Deployment", "cutover"]["spec"]["template"]
        found: str = pod["spec"]["containers"][0]["image"]
        return found

    digest = f"sha256:{'0a' * 32}"
    assert image(f"image.digest={digest}", "image.tag=v1") == f"registry.shop/cutover@{digest}"
    assert image("image.tag=v1") == "registry.shop/cutover:v1"


def test_no_webhook_stands_in_the_way_of_the_api_server() -> None:
    """What is refused is refused by the API server itself; there is no endpoint to protect, and none that could fail."""
    kinds = {kind for kind, _ in render("metrics.serviceMonitor.enabled=true", "networkPolicy.enabled=true")}
    assert not [kind for kind in kinds if "WebhookConfiguration" in kind]
    assert "ValidatingAdmissionPolicy" in kinds


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("replicas=two", "'/replicas': got string, want integer"),
        ("lease.duratoin=3s", "additional properties 'duratoin' not allowed"),
        ("providers.x.prometheus.url=prometheus:9090", "'/providers/x/prometheus/url'"),
        ("providers.x.http.url=https://a:b@status", "'/providers/x/http/url'"),
        ("providers.x.http.tls.insecureSkipVerify=true", "additional properties 'insecureSkipVerify' not allowed"),
        (
            "providers.x.http.tls.certFile=/x",
            "'/providers/x/http/tls': properties 'keyFile' required, if 'certFile' exists",
        ),
        ("providers.x.http.bearerTokenFile=token", "'/providers/x/http/bearerTokenFile'"),
        ("providerFiles.x.hostPath.path=/", "additional properties 'hostPath' not allowed"),
        ("notify.chat.secret=chat", "missing property 'key'"),
        ("image.digest=latest", "'/image/digest'"),
        ("replica=3", "additional properties 'replica' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, says: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(says)):
        render(value)


def test_impersonation_can_be_narrowed() -> None:
    rules = render("impersonate={checkout-migrator}")["ClusterRole", "cutover"]["rules"]
    assert [rule["resourceNames"] for rule in rules if "impersonate" in rule["verbs"]] == [["checkout-migrator"]]


def test_namespaces_narrow_the_permissions() -> None:
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
    assert settings.providers["default"].server.url == "http://prometheus.monitoring:9090"
    assert settings.namespaces == ("shop",)
    assert settings.lease is not None
    assert (settings.lease.name, settings.lease.duration) == ("cutover", timedelta(seconds=20))
    file.write_text(render()["ConfigMap", "cutover-settings"]["data"]["settings.yaml"])
    assert load(file).providers == {}


def test_files_for_the_providers_are_mounted_where_the_settings_look(tmp_path: Path) -> None:
    """A folder a Secret, filled here as the kubelet would fill it."""
    rendered = render(
        VALUES,
        "providerFiles.login.secret.secretName=prometheus-login",
        "providerFiles.authority.configMap.name=authority",
        "providerFiles.must.secret.secretName=s",
        "providerFiles.must.secret.optional=false",
        "providerFiles.mixed.projected.sources[0].secret.name=s",
        "providers.default.prometheus.bearerTokenFile=/etc/cutover-files/login/token",
        "providers.status.http.url=https://status.shop",
        "providers.status.http.maxBytes=4096",
        "providers.status.http.headerFiles.X-Key=/etc/cutover-files/login/key",
        "providers.status.http.tls.caFile=/etc/cutover-files/authority/ca.crt",
    )
    pod = rendered["Deployment", "cutover"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    assert all(mount["readOnly"] for mount in mounts.values())
    sources = {path: volumes[mount["name"]] for path, mount in mounts.items()}
    assert sources["/etc/cutover-files/login"]["secret"] == {"secretName": "prometheus-login", "optional": True}
    assert sources["/etc/cutover-files/authority"]["configMap"] == {"name": "authority", "optional": True}
    assert sources["/etc/cutover-files/must"]["secret"] == {"secretName": "s", "optional": False}
    assert sources["/etc/cutover-files/mixed"]["projected"] == {"sources": [{"secret": {"name": "s"}}]}
    folders = {"login": {"token": b"s3cret", "key": b"k1"}, "authority": {"ca.crt": trustme.CA().cert_pem.bytes()}}
    for folder, files in folders.items():
        (tmp_path / folder).mkdir()
        for name, content in files.items():
            (tmp_path / folder / name).write_bytes(content)
    text = rendered["ConfigMap", "cutover-settings"]["data"]["settings.yaml"]
    file = tmp_path / "settings.yaml"
    file.write_text(text.replace("/etc/cutover-files", str(tmp_path)))
    providers = load(file).providers
    assert providers["default"].server.read_headers() == {"Authorization": "Bearer s3cret"}
    assert providers["status"].server.read_headers() == {"X-Key": "k1"}
    assert providers["status"].server.max_bytes == 4096


def test_the_values_that_are_shown_are_taken(tmp_path: Path) -> None:
    (shown,) = re.findall(
        r"^```yaml title=values.yaml\n(.*?)^```", (ROOT / "docs/operating.md").read_text(), re.MULTILINE | re.DOTALL
    )
    file = tmp_path / "values.yaml"
    file.write_text(shown)
    text = helm("template", "cutover", CHART, "--kube-version", tools.KUBERNETES, "--values", str(file))
    (settings,) = [
        body["data"]["settings.yaml"] for body in yaml.safe_load_all(text) if body and body["kind"] == "ConfigMap"
    ]
    assert sorted(Settings.model_validate(yaml.safe_load(settings)).providers) == ["default", "status"]


def test_the_values_of_a_provider_are_the_settings() -> None:
    """Neither knows a field that the other does not."""
    schema = json.loads((Path(CHART) / "values.schema.json").read_text())["$defs"]["server"]["properties"]
    model = Server.model_json_schema(by_alias=True)
    assert set(schema) == set(model["properties"])
    for part in ("basic", "tls"):
        assert set(schema[part]["properties"]) == set(model["$defs"][part.capitalize()]["properties"])
    for bounded in ("timeout", "maxBytes", "concurrency"):
        bounds = ("minimum", "exclusiveMinimum", "maximum")
        assert [schema[bounded].get(b) for b in bounds] == [model["properties"][bounded].get(b) for b in bounds]


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
    assert volumes[mounts[str(chat.parent)]]["secret"] == {"secretName": "cutover-chat", "optional": True}
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
