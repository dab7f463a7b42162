"""The command line as people and scripts use it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cutover.status import Phase
from harness.cluster import Cluster
from support.real import DEPLOY, SHIFT, Shop

GOOD = """
apiVersion: cutover.dev/v1alpha1
kind: MigrationPlan
metadata: {name: good}
spec:
  serviceAccountName: migrator
  steps:
    - {name: deploy, deploy: {workload: {name: shop}, images: [{container: app, image: "shop:2"}]}, gates: [{name: pods, readiness: {for: 5s}}]}
    - {name: shift, traffic: {virtualService: {name: shop}, from: {host: a}, to: {host: b}, weights: [50, 100], dwell: 2m}}
"""


def cutover(*arguments: str, kubeconfig: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    env |= {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {"KUBECONFIG": "/nowhere"}
    return subprocess.run(
        [sys.executable, "-m", "cutover.cli", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env=env,
        timeout=60,
    )


def test_lint() -> None:
    assert cutover("lint", "-", stdin=GOOD).stdout == "no mistakes\n"
    bad = GOOD.replace("[50, 100]", "[100, 50]").replace("5s", "five")
    done = cutover("lint", "-", stdin=bad)
    assert done.returncode == 1
    assert "steps[deploy].gates[pods].readiness.for: 'five' is not possible" in done.stderr
    assert "steps[shift].traffic: weights must ascend, and 50 comes after 100" in done.stderr
    assert "2 mistakes" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not YAML"),
        ("kind: Pod", "there is no MigrationPlan in these files"),
    ],
)
def test_what_is_no_plan(text: str, says: str) -> None:
    done = cutover("lint", "-", stdin=text)
    assert done.returncode == 64
    assert says in done.stderr


def test_a_file_that_is_not_there() -> None:
    done = cutover("lint", "nowhere.yaml")
    assert (done.returncode, done.stderr) == (64, "error: nowhere.yaml: No such file or directory\n")


def test_the_wrong_version() -> None:
    done = cutover("lint", "-", stdin=GOOD.replace("v1alpha1", "v1"))
    assert "'cutover.dev/v1' is not known; use cutover.dev/v1alpha1" in done.stderr


def test_explain() -> None:
    text = cutover("explain", "-", stdin=GOOD).stdout
    for line in (
        "1. deploy (deploy)",
        "writes Deployment shop",
        "does roll out app=shop:2",
        "until gate pods: readiness >= 100%, for 5s",
        "does weight 50 for 2m",
        "the way back: undo shift, undo deploy",
        'resources: ["virtualservices"], resourceNames: [shop], verbs: ["patch"]',
    ):
        assert line in text


def test_no_kubeconfig(tmp_path: Path) -> None:
    for kubeconfig in (tmp_path / "none", tmp_path):
        done = cutover("status", kubeconfig=kubeconfig)
        assert done.returncode == 64
        assert "there is no usable kubeconfig" in done.stderr


def test_bad_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("providers: {default: {prometheus: {url: ftp://x}}}\n")
    done = cutover("run", "--settings", str(file))
    assert done.returncode == 64
    assert "providers.default.prometheus.url" in done.stderr


@pytest.mark.cluster
def test_a_plan_from_apply_to_its_end(shop: Shop, cluster: Cluster) -> None:
    def on(*arguments: str) -> subprocess.CompletedProcess[str]:
        return cutover(*arguments, "-n", shop.namespace, kubeconfig=cluster.kubeconfig)

    assert "there is no MigrationPlan plan in namespace" in on("status", "plan").stderr
    assert on("status").stdout == "no plans\n"
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go on}}}}\n{SHIFT}")
    shop.until_phase(Phase.WAITING)
    screen = on("status", "plan").stdout
    assert "Waiting" in screen
    assert "cutover approve plan --step ok" in screen
    assert json.loads(on("status", "plan", "-o", "json").stdout)["status"]["phase"] == "Waiting"
    assert on("status", "-o", "name").stdout == "migrationplan/plan\n"
    refused = on("resume", "plan")
    assert refused.returncode == 1
    assert "only a held plan can be resumed, and this one is Waiting" in refused.stderr
    assert on("watch", "plan", "--timeout", "1").returncode == 124
    assert on("hold", "plan").stdout == "hold accepted for plan plan\n"
    assert on("resume", "plan").returncode == 0
    shop.until_phase(Phase.WAITING)
    assert on("approve", "plan").stdout == "approve accepted for plan plan\n"
    followed = on("watch", "plan", "--timeout", "30")
    assert followed.returncode == 0, followed
    assert "Succeeded 3/3" in followed.stdout
    assert next(r for r in shop.status().requests if r.verb == "approve").by == "admin"


@pytest.mark.cluster
def test_abort_and_its_exit_code(shop: Shop, cluster: Cluster) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go on}}}}\n")
    shop.until_phase(Phase.WAITING)
    assert cutover("abort", "plan", "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode == 0
    assert cutover("watch", "plan", "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode == 2
