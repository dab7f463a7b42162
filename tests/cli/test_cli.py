"""The command line as people and scripts use it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cutover.cli.base import Screen, as_json
from cutover.cli.kubeconfig import Plans
from cutover.report.screen import screen, table
from cutover.report.summary import summarize
from cutover.report.terminal import report as whole
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from harness.kind import AnyCluster
from harness.process import free_ports, until
from support.cluster.shop import DEPLOY, SHIFT, Shop

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
    assert cutover("lint", "-", stdin=GOOD).stdout == "no errors\n"
    bad = GOOD.replace("[50, 100]", "[100, 50]").replace("5s", "five")
    done = cutover("lint", "-", stdin=bad)
    assert done.returncode == 1
    assert "steps[deploy].gates[pods].readiness.for: 'five' is not a duration" in done.stderr
    assert "steps[shift].traffic: weights must ascend, and 50 comes after 100" in done.stderr
    assert "2 errors" in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "standard input is not valid YAML at line 1, column 5: expected the node content, but found "),
        ("at: 2026-02-30T22:00:00Z", "is not valid YAML at line 1, column 5: day is out of range for month"),
        ("spec:\n  patch: template: x", 'at line 2, column 18: a value has a colon: quote it, or write "patch: |" (not >, which'),
        ("spec:\n\tsteps: []", "at line 2, column 1: a tab is used for indentation; use spaces"),
        ("image: @sha256", "at line 1, column 8: a value cannot begin with @; put it in quotes"),
        ("name: {{ .Values.sa }}", "at line 1, column 8: a mapping cannot be a key; if this is a template such as {{ .Values.name }}, render it first"),
        ("spec:\n  steps: [{gates: [], name: roll,\n    gates: []}]", "error: standard input, line 3: steps[roll].gates is given twice; keep one"),
        ("spec: {suspend: true}\nspec: {}", "error: standard input, line 2: spec is given twice; keep one"),
        ("kind: Pod", "standard input contains no MigrationPlan (found: Pod)"),
    ],
)  # fmt: skip
def test_what_is_not_a_plan(text: str, says: str) -> None:
    done = cutover("lint", "-", stdin=text)
    assert done.returncode == 64
    assert says in done.stderr


def test_the_plans_of_a_list() -> None:
    """As `kubectl get mplan -o yaml` prints them; a list in a list is none."""
    plan = yaml.safe_load(GOOD)
    worse = yaml.safe_load(GOOD.replace("5s", "five"))
    for kind in ("List", "MigrationPlanList"):
        text = yaml.safe_dump({"apiVersion": "v1", "kind": kind, "items": [plan, {"kind": "Pod"}, "x", worse]})
        done = cutover("lint", "-", stdin=f"{text}---\n{text}")
        assert done.returncode == 1
        assert "-.items[3]: steps[deploy].gates[pods].readiness.for: 'five' is not a duration" in done.stderr
        assert "-#2.items[3]: steps[deploy]" in done.stderr
        assert "2 errors" in done.stderr
    for items, found in (
        ([], "nothing"),
        (None, "nothing"),
        ("x", "nothing"),
        ([{"kind": "List", "items": [plan]}], "List"),
    ):
        done = cutover("lint", "-", stdin=yaml.safe_dump({"kind": "List", "items": items}))
        assert (done.returncode, done.stderr) == (
            64,
            f"error: standard input contains no MigrationPlan (found: {found})\n",
        )


@pytest.mark.parametrize("verb", ["status", "impact", "report"])
def test_an_unknown_output_format_is_refused_before_any_request(verb: str, tmp_path: Path) -> None:
    away = config(tmp_path, f"https://127.0.0.1:{free_ports(1)[0]}", "t")
    done = cutover(verb, "plan", "-o", "nonsense", kubeconfig=away)
    assert done.returncode == 64
    assert done.stderr.startswith("error: unknown output format nonsense; use text")
    assert done.stderr.count("\n") == 1


DIRECTIONS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
"""What turns the order of what is read, and the line breaks that no log counts."""
CONTROLS = "".join(map(chr, (*range(32), *range(127, 160)))) + DIRECTIONS
"""All that controls a terminal, and the two that may."""
HOSTILE = f":warning:a\x1b[2Jb{CONTROLS}c"


def unseen(text: str) -> set[str]:
    return set(CONTROLS) & set(text) - {"\n", "\t"}


def test_a_plan_cannot_control_the_terminal() -> None:
    plan = yaml.safe_load(GOOD)
    plan["spec"]["steps"][0]["description"] = HOSTILE
    done = cutover("explain", "-", stdin=yaml.safe_dump(plan))
    assert done.returncode == 0, done.stderr
    assert ":warning:a\\x1b[2Jb" in done.stdout
    assert not unseen(done.stdout)
    plan["spec"]["steps"][0][HOSTILE] = HOSTILE
    plan["metadata"]["name"] = HOSTILE
    for verb in ("lint", "explain"):
        done = cutover(verb, "-", stdin=yaml.safe_dump(plan))
        assert done.returncode == 1
        assert "a\\x1b[2Jb" in done.stderr
        assert not unseen(done.stdout + done.stderr)


def test_a_kubeconfig_cannot_control_the_terminal(tmp_path: Path) -> None:
    file = config(tmp_path, "https://127.0.0.1:1", "t")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"current-context": HOSTILE}))
    done = cutover("status", kubeconfig=file)
    assert done.returncode == 64
    assert "a\\x1b[2Jb" in done.stderr
    assert not unseen(done.stderr)


@pytest.mark.parametrize("width", [200, 10_000])
def test_a_status_cannot_control_the_terminal(width: int) -> None:
    step = {"name": "deploy", "kind": "deploy", "state": "Doing", "attempt": 1, "message": HOSTILE}
    gate = {"name": HOSTILE, "verdict": "Fail", "value": HOSTILE, "message": HOSTILE}
    run = {"number": 1, "generation": 1, "specHash": "h", "startedAt": "2026-01-01T00:00:00Z"}
    current = {"step": "deploy", "startedAt": run["startedAt"], "intent": HOSTILE, "gates": [gate]}
    status = {"phase": "Running", "message": f"[b]{HOSTILE}[/b] end", "run": run, "current": current, "steps": [step]}
    status["report"] = [{"criterion": "WithinWindow", "result": "Met", "evidence": f"{HOSTILE} end"}]
    body = {"metadata": {"name": "plan", "namespace": "shop"}, "spec": yaml.safe_load(GOOD)["spec"], "status": status}
    summary = summarize(body, [], datetime(2026, 1, 1, tzinfo=UTC))
    rows = [(body["metadata"], summary.status)]
    for shown in (screen("plan", summary.status), table(rows, everywhere=True), whole(summary), HOSTILE):
        console = Screen(file=(text := io.StringIO()), width=width)
        console.print(shown)
        assert r"a\x1b[2Jb" in re.sub(r"\s", "", text.getvalue())
        assert not unseen(text.getvalue())
    console = Screen(file=(text := io.StringIO()), width=200, force_terminal=True)
    console.print(screen("plan", summary.status))
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
    assert not unseen(bare), "styles are ours"
    assert "[/b] end" in bare


def test_json_stays_json() -> None:
    text = as_json({"says": HOSTILE, "é": ["漢"]})
    assert not unseen(text)
    assert json.loads(text) == {"says": HOSTILE, "é": ["漢"]}


def test_a_file_that_is_not_there() -> None:
    done = cutover("lint", "nowhere.yaml")
    assert (done.returncode, done.stderr) == (64, "error: nowhere.yaml: No such file or directory\n")


def test_the_wrong_version() -> None:
    done = cutover("lint", "-", stdin=GOOD.replace("v1alpha1", "v1"))
    assert "'cutover.dev/v1' is not supported; use cutover.dev/v1alpha1" in done.stderr


def test_what_a_document_lacks_is_reported_at_once() -> None:
    for name in ("", "metadata: {}\n", "metadata: [x]\n", "metadata: {name: 5}\n"):
        text = GOOD.replace("metadata: {name: good}\n", name).replace("v1alpha1", "v1")
        for verb in ("lint", "explain"):
            done = cutover(verb, "-", stdin=text)
            assert done.returncode == 1
            assert "metadata.name: required field is missing" in done.stderr
            assert "'cutover.dev/v1' is not supported" in done.stderr


def test_impact_of_a_document_without_metadata_is_one_sentence(tmp_path: Path) -> None:
    away = config(tmp_path, "https://127.0.0.1:1", "token")
    text = GOOD.replace("metadata: {name: good}", "metadata: good")
    done = cutover("impact", "-", stdin=text, kubeconfig=away)
    assert (done.returncode, done.stderr) == (1, "error: -: metadata.name: required field is missing\n")


def test_a_generated_name_will_do() -> None:
    text = GOOD.replace("{name: good}", "{generateName: good-}")
    assert cutover("lint", "-", stdin=text).returncode == 0
    assert cutover("explain", "-", stdin=text).stdout.startswith("good-\n")


def test_a_file_that_cannot_be_read_hides_no_error_of_the_others(tmp_path: Path) -> None:
    """Nor of the documents above the one that cannot be parsed."""
    bad = GOOD.replace("[50, 100]", "[100, 50]")
    texts = {
        "a": GOOD,
        "b": f"{bad}---\nsteps: [\n",
        "c": bad,
        "d": GOOD.replace("spec:", "spec:\n  timeout: 1h\n  timeout: 2h"),
    }
    files = [str(tmp_path / f"{name}.yaml") for name in texts]
    for file, text in zip(files, texts.values(), strict=True):
        Path(file).write_text(text)
    done = cutover("lint", *files, str(tmp_path / "none.yaml"))
    assert done.returncode == 64
    assert done.stdout == ""
    weights = "steps[shift].traffic: weights must ascend"
    lines = done.stderr.splitlines()
    assert [line.removeprefix(f"{tmp_path}/").partition(" ")[0] for line in lines[:2]] == ["b.yaml:", "c.yaml:"]
    assert all(weights in line for line in lines[:2])
    assert lines[2].startswith(f"error: {files[1]} is not valid YAML at line ")
    assert lines[3].startswith(f"error: {files[3]}, line 7: timeout is given twice")
    assert lines[4:] == [f"error: {tmp_path}/none.yaml: No such file or directory", "2 errors"]
    done = cutover("explain", *files)
    assert done.returncode == 64
    assert done.stdout.startswith("good\n2 steps;")
    assert done.stderr.splitlines() == [*lines[:4], "2 errors"]


def test_lint_warns_and_knows_the_namespace() -> None:
    bounded = GOOD.replace(
        "dwell: 2m}", 'dwell: 2m}, gates: [{name: e, prometheus: {query: "rate(x[5m])"}, pass: {max: "1"}}]'
    )
    done = cutover("lint", "-", stdin=bounded)
    assert (done.returncode, done.stdout) == (0, "no errors\n")
    assert done.stderr.startswith(
        "-: warning: steps[shift].gates[e].prometheus.query: it looks back 5m, and a stage is judged for 2m only"
    )
    assert (
        "\nwarning: steps[shift].gates[e].prometheus.query: it looks back 5m"
        in cutover("explain", "-", stdin=bounded).stdout
    )
    elsewhere = GOOD.replace("{name: good}", "{name: good, namespace: shop}").replace(
        "host: b", "host: b.other.svc.cluster.local"
    )
    done = cutover("lint", "-", stdin=elsewhere)
    assert done.returncode == 1
    assert (
        "steps[shift].traffic.to.host: host b.other.svc.cluster.local is not a Service of namespace shop" in done.stderr
    )


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_bytes(b"kind: \xff")
    done = cutover("lint", str(tmp_path / "plan.yaml"))
    assert done.returncode == 64
    assert done.stderr == f"error: {tmp_path}/plan.yaml is not UTF-8 text: invalid start byte at byte 6\n"


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("watch",), ("lint", "--wrong", "x"), ("watch", "x", "--timeout", "soon")]
)
def test_wrong_usage_is_not_taken_for_rolled_back(arguments: tuple[str, ...]) -> None:
    assert cutover(*arguments).returncode == 64


def test_help_says_what_it_is() -> None:
    assert "Run whole migrations in Kubernetes" in cutover("--help").stdout


def test_explain() -> None:
    text = cutover("explain", "-", stdin=GOOD).stdout
    for line in (
        "1. deploy (deploy)",
        "writes Deployment shop",
        "stage: roll out app=shop:2",
        "gate pods: readiness >= 100%, for 5s",
        "stage: weight 50 for 2m",
        "rollback order: undo shift, undo deploy",
        "proven   Prepare rollback scripts: the rollback is part of the plan: undo shift, undo deploy",
        "planned  Update application configuration: step deploy",
        "resources: [virtualservices], resourceNames: [shop], verbs: [patch]",
    ):
        assert line in text


def test_the_role_of_a_plan(tmp_path: Path) -> None:
    """All that it writes, named after it, in the namespace that it names or that is asked for."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": "https://127.0.0.1:1"}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none", "namespace": "here"}}],
        "users": [{"name": "none", "user": {}}],
    }
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    for arguments, namespace in ((["role", "-"], "here"), (["role", "-", "-n", "shop"], "shop")):
        role, binding = yaml.safe_load_all(cutover(*arguments, stdin=GOOD, kubeconfig=kubeconfig).stdout)
        assert role["metadata"] == {"name": "migrationplan-good", "namespace": namespace}
        assert [(rule["resourceNames"], rule["verbs"]) for rule in role["rules"]] == [(["shop"], ["patch"])] * 2
        assert binding["roleRef"]["name"] == "migrationplan-good"
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "migrator", "namespace": namespace}]


def test_the_role_of_a_file_with_a_namespace_needs_no_kubeconfig() -> None:
    text = GOOD.replace("{name: good}", "{name: good, namespace: shop}")
    for arguments, stdin in (
        (["role", "-"], text),
        (["role", "-", "-n", "shop"], GOOD),
        (["role", "-", "-n", "shop"], text),
    ):
        done = cutover(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        assert {manifest["metadata"]["namespace"] for manifest in yaml.safe_load_all(done.stdout)} == {"shop"}
    done = cutover("role", "-", stdin=GOOD)
    assert (done.returncode, "no usable kubeconfig" in done.stderr) == (64, True)


@pytest.mark.parametrize("verb", ["role", "impact"])
def test_another_namespace_than_that_of_the_file_is_refused(verb: str) -> None:
    done = cutover(verb, "-", "-n", "other", stdin=GOOD.replace("{name: good}", "{name: good, namespace: shop}"))
    assert (done.returncode, done.stderr) == (64, "error: -: the plan is in namespace shop, not other; drop -n\n")


def test_explain_says_where_a_rollback_stops() -> None:
    plan = yaml.safe_load(GOOD)
    deploy, shift = plan["spec"]["steps"]
    done = "is done (irreversible) the rollback stops there"

    def order(*irreversible: str) -> str:
        for step in (deploy, shift):
            step["irreversible"] = step["name"] in irreversible
        text = cutover("explain", "-", stdin=yaml.safe_dump(plan)).stdout
        return next(line for line in text.splitlines() if line.startswith("rollback order: "))

    assert order("deploy") == f"rollback order: undo shift; once deploy {done}; until then undo deploy"
    assert order("shift") == f"rollback order: once shift {done}; until then undo shift, undo deploy"
    assert order("deploy", "shift").endswith(f"until then undo shift; once deploy {done}; until then undo deploy")


def test_explain_says_who_is_told() -> None:
    text = cutover("explain", "examples/maintenance-mode.yaml").stdout
    assert "  notifies chat on Waiting, RollingBack, Paused, Stuck, Succeeded, RolledBack, Refused\n" in text
    assert "     stage: tell chat: The checkout goes into maintenance now.\n" in text


def test_explain_says_what_a_gate_asks() -> None:
    one = GOOD[: GOOD.index("    - {name: shift")].replace(
        "readiness: {for: 5s}", 'prometheus: {provider: main, query: "up\\n  or vector(1)"}, pass: {max: "1"}'
    )
    done = cutover("explain", "-", stdin=one)
    assert "1 step; all writes" in done.stdout, done.stderr
    assert "gate pods: prometheus <= 1\n       queries main: up or vector(1)\n" in done.stdout


def test_no_kubeconfig(tmp_path: Path) -> None:
    for kubeconfig in (tmp_path / "none", tmp_path):
        done = cutover("status", kubeconfig=kubeconfig)
        assert done.returncode == 64
        assert "no usable kubeconfig" in done.stderr
        assert "; set KUBECONFIG or pass --context" in done.stderr


def test_bad_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("providers: {default: {prometheus: {url: ftp://x}}}\n")
    done = cutover("run", "--settings", str(file))
    assert done.returncode == 64
    assert "providers.default.prometheus.url" in done.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [", "cannot be read: while parsing a flow node"),
        (b"\xff", "cannot be read: 'utf-8' codec"),
        (b"- a", "is not a kubeconfig"),
        (b"", "file is empty"),
    ],
)
def test_a_broken_kubeconfig(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(content)
    done = cutover("status", kubeconfig=tmp_path / "config")
    assert done.returncode == 64
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def config(folder: Path, server: str, token: str, ca: str = "") -> Path:
    user = {"name": "me", "user": {"token": token}}
    cluster = {"name": "c", "cluster": {"server": server} | ({"certificate-authority": ca} if ca else {})}
    context = {"name": "x", "context": {"cluster": "c", "user": "me"}}
    file = folder / "config"
    file.write_text(json.dumps({"users": [user], "clusters": [cluster], "contexts": [context], "current-context": "x"}))
    return file


@pytest.mark.parametrize("verb", ["status", "watch", "pause"])
def test_the_server_is_away(verb: str, tmp_path: Path) -> None:
    server = f"https://127.0.0.1:{free_ports(1)[0]}"
    done = cutover(verb, "plan", kubeconfig=config(tmp_path, server, "t"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot reach the API server {server}: ")
    assert "connection refused" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.cluster
def test_what_the_server_refuses(cluster: AnyCluster, namespace: str, tmp_path: Path) -> None:
    plane = cluster.control_plane
    token = plane.token_for(namespace, "default")
    for arguments in (("status",), ("status", "plan"), ("watch", "plan"), ("pause", "plan"), ("status", "-A")):
        done = cutover(*arguments, "-n", namespace, kubeconfig=config(tmp_path, plane.url, token, str(plane.ca)))
        assert done.returncode == 1
        assert done.stderr.startswith("error: you are not allowed to do this: migrationplans.cutover.dev")
        assert done.stderr.count("\n") == 1
    done = cutover("status", kubeconfig=config(tmp_path, plane.url, "nobody", str(plane.ca)))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the API server did not accept your credentials: Unauthorized")


@pytest.mark.cluster
def test_a_cluster_without_the_crd(cluster: AnyCluster, tmp_path: Path) -> None:
    """The path of one CRD less is played by another group: nobody takes the CRD from a cluster that others use."""
    plane = cluster.control_plane
    file = config(tmp_path, plane.url, plane.admin_token, str(plane.ca))
    script = (
        "import dataclasses, sys\nfrom cutover import cli, ports\n"
        "ports.PLANS = dataclasses.replace(ports.PLANS, group='absent.dev')\n"
        "sys.argv[0] = 'cutover'\ncli.main()"
    )
    for arguments in (("status",), ("status", "plan"), ("pause", "plan")):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KUBECONFIG": str(file), "NO_COLOR": "1"},
            timeout=60,
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith(
            f"error: MigrationPlans are not installed in the cluster {plane.url}; install the CRD"
        )
        assert done.stderr.count("\n") == 1


@pytest.mark.cluster
def test_a_plan_from_apply_to_its_end(shop: Shop, cluster: AnyCluster) -> None:
    def on(*arguments: str) -> subprocess.CompletedProcess[str]:
        return cutover(*arguments, "-n", shop.namespace, kubeconfig=cluster.kubeconfig)

    assert "MigrationPlan plan not found in namespace" in on("status", "plan").stderr
    assert on("status").stdout == "no plans found\n"
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go on}}}}\n{SHIFT}")
    shop.until_phase(Phase.WAITING)
    screen = on("status", "plan").stdout
    assert "Waiting" in screen
    assert "cutover approve plan --step ok" in screen
    assert json.loads(on("status", "plan", "-o", "json").stdout)["status"]["phase"] == "Waiting"
    assert on("status", "-o", "name").stdout == "migrationplan/plan\n"
    refused = on("resume", "plan")
    assert refused.returncode == 1
    assert "only a paused plan can be resumed, and this one is Waiting" in refused.stderr
    assert on("watch", "plan", "--timeout", "1").returncode == 124
    assert on("pause", "plan").stdout == "pause accepted for plan plan\n"
    assert on("resume", "plan").returncode == 0
    shop.until_phase(Phase.WAITING)
    assert on("approve", "plan").stdout == "approve accepted for plan plan\n"
    followed = on("watch", "plan", "--timeout", "30")
    assert followed.returncode == 0, followed
    assert "Succeeded 3/3" in followed.stdout
    assert next(r for r in shop.status().requests if r.verb == "approve").by == shop.user


@pytest.mark.cluster
def test_what_a_run_proved(shop: Shop, cluster: AnyCluster, tmp_path: Path) -> None:
    def report(*arguments: str) -> subprocess.CompletedProcess[str]:
        return cutover("report", "plan", *arguments, "-n", shop.namespace, kubeconfig=cluster.kubeconfig)

    assert "MigrationPlan plan not found in namespace" in report().stderr
    guard = "{name: errors, interval: 1s, prometheus: {query: vector(0)}, pass: {max: '1'}}"
    ratio = "{name: slow, interval: 1s, prometheus: {query: vector(2), baseline: vector(4)}, pass: {ratio: {max: '1'}}}"
    steps = f"steps:{DEPLOY}{SHIFT}    gates: [{ratio}]\n  - {{name: ok, approve: {{message: really}}}}\n"
    shop.apply(f"timeout: 1h\nguards: [{guard}]\n{steps}")
    shop.until_phase(Phase.WAITING)
    going_on = report()
    assert going_on.returncode == 0, going_on
    assert "the plan is Waiting; it is evaluated when its run ends" in going_on.stdout
    shop.request(RequestVerb.APPROVE, "ok")
    assert shop.until_ended().phase is Phase.SUCCEEDED
    done = report()
    assert done.returncode == 0, done
    for line in (
        "All validations passed: 5 gates passed over all stages; the plan has 2",
        "Performance kept or improved: step shift gate slow: 0.5 (2 against a baseline of 4) is <= 1",
        "No unexpected downtime: guard errors passed at the end of 6 stages and never failed in between",
        "Completed within the window: the first step started ",
        "Run pre-migration validation: all prerequisites were met when run 1 started",
    ):
        assert line in done.stdout
    file = tmp_path / "report.html"
    done = report("-o", "json", "--html", str(file))
    found = json.loads(done.stdout)
    assert found["report"] == shop.api.get(f"{shop.plans}/plan")["status"]["report"]
    results = {line["criterion"]: line["result"] for line in found["report"]}
    assert results["NoUnexpectedDowntime"] == results["PerformanceKept"] == results["WithinWindow"] == "Met"
    assert results["ZeroDataLoss"] == results["RollbackRehearsed"] == "NotMeasured"
    assert "Succeeded" in [event["reason"] for event in found["events"]]
    assert "All validations passed" in file.read_text()
    assert "step shift, stage 4/4: weight 100" in file.read_text()
    shop.request(RequestVerb.ROLLBACK)
    shop.until(lambda status: status.phase is Phase.ROLLED_BACK)
    back = report()
    assert back.returncode == 2
    assert "Rollback rehearsed and ready: run 1 completed 3 of 3 steps and was fully rolled back" in back.stdout
    assert yaml.safe_load(report("-o", "yaml").stdout)["phase"] == "RolledBack"
    assert report("-o", "wide").returncode == 64


@pytest.mark.cluster
def test_a_long_message_on_a_narrow_terminal(shop: Shop, cluster: AnyCluster) -> None:
    """Words stay whole, and what is asked is said once in the head and once in its line."""
    question = "Is everybody in all of the departments happy with what the new version shows to its first visitors?"
    shop.apply(f"steps:\n  - {{name: ok, approve: {{message: '{question}'}}}}\n")
    shop.until_phase(Phase.WAITING)
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 60, 0, 0))
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    env |= {"KUBECONFIG": str(cluster.kubeconfig), "TERM": "xterm"}
    command = [sys.executable, "-m", "cutover.cli", "status", "plan", "-n", shop.namespace]
    subprocess.run(command, stdout=there, stderr=there, stdin=there, env=env, check=True, timeout=60)
    shown = os.read(here, 65536).decode()
    os.close(there)
    os.close(here)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= 60, lines
    words = [word.strip('?"') for line in lines for word in line.split()]
    assert words.count("departments") == 2, lines
    assert words.count("visitors") == 2, lines


@pytest.mark.cluster
def test_abort_and_its_exit_code(shop: Shop, cluster: AnyCluster) -> None:
    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go on}}}}\n")
    shop.until_phase(Phase.WAITING)
    assert cutover("abort", "plan", "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode == 0
    assert cutover("watch", "plan", "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode == 2


@pytest.mark.cluster
def test_a_paused_plan_ends_a_watch_only_when_asked(shop: Shop, cluster: AnyCluster) -> None:
    def watch(*arguments: str) -> int:
        return cutover("watch", "plan", *arguments, "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode

    shop.apply(f"steps:{DEPLOY}\n  - {{name: ok, approve: {{message: go on}}}}\n")
    shop.until_phase(Phase.WAITING)
    assert watch("--until-stopped", "--timeout", "1") == 124
    assert cutover("pause", "plan", "-n", shop.namespace, kubeconfig=cluster.kubeconfig).returncode == 0
    assert watch("--until-stopped") == 3
    assert watch("--timeout", "1") == 124


@pytest.mark.cluster
@pytest.mark.timeout(60)
def test_a_plan_deleted_between_two_streams(shop: Shop, cluster: AnyCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """No stream reports it: without a read of its own a watch would wait forever."""
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    path = shop.apply("steps:\n  - {name: ok, approve: {message: go on}}\n")
    shop.until_phase(Phase.WAITING)
    seen = Plans(None, shop.namespace).watch("plan", lambda: 1.0)
    assert next(seen) is not None  # what is there
    assert next(seen) is not None  # the stream's second is over
    shop.api.delete(path)
    until("the plan is gone", lambda: shop.api.find(path) is None)
    assert next(seen) is None
