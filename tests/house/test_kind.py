"""What of the kind way can be seen without Docker: what is said when it is missing, and which tests would run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness import tools
from harness.cluster import ROOT
from harness.kind import require_docker

UNMARKED = """
import pytest

@pytest.fixture
def testbed(cluster: "Cluster"): ...

@pytest.mark.local("looks into the API server's memory")
def test_marked(testbed): ...

def test_any(cluster: "AnyCluster"): ...
"""


def docker(folder: Path, text: str) -> None:
    (folder / "docker").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "docker").chmod(0o755)


def on_kind(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on kind, where no Docker is on PATH."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    return subprocess.run(
        [*command, f"--rootdir={ROOT}", "--cluster=kind", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PATH": str(folder), "PYTHONPATH": str(ROOT / "tests")},
    )


def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        tools.ToolMissing, match=r"No such file or directory: 'docker'\nInstall it \(https://docs.docker"
    ):
        require_docker()


def test_a_docker_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    docker(tmp_path, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(tools.ToolMissing, match=r"ended with code 1 and says: Cannot connect to the Docker daemon"):
        require_docker()
    docker(tmp_path, "echo 29.0.0")
    require_docker()


def test_without_docker_nothing_is_made(tmp_path: Path) -> None:
    done = on_kind(tmp_path, str(ROOT / "tests/cluster/test_plans.py"))
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr.startswith("ERROR: the kind way needs Docker on Linux, and it is not there")
    command = [sys.executable, "-m", "harness", "kind"]
    env = {**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the kind way needs Docker on Linux, and it is not there")
    assert list(tmp_path.iterdir()) == []


def test_what_runs_there_and_what_stays_away(tmp_path: Path) -> None:
    done = on_kind(tmp_path, "--collect-only", "-m", "cluster and not long", str(ROOT / "tests"))
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {line.partition("[")[0].partition("::")[0] for line in done.stdout.splitlines() if "::" in line}
    assert runs >= {
        "tests/cli/test_cli.py",
        *(
            f"tests/cluster/test_{name}.py"
            for name in ("bad_plans", "chart", "deploy", "manifests", "plans", "prometheus")
        ),
    }
    assert "tests stay away from kind:\n" in done.stdout
    assert " counts requests in the audit log\n" in done.stdout
    assert "test_a_step_costs_one_dry_run" not in done.stdout


def test_what_needs_the_local_cluster_says_so(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    collect = ("-p", "harness.plugin", "--collect-only", str(file))
    file.write_text(UNMARKED)
    good = on_kind(tmp_path, *collect)
    assert "1 tests stay away from kind:\n    1 looks into the API server's memory\n" in good.stdout, good.stdout
    assert "1/2 tests collected" in good.stdout
    for text in ("def test_other(testbed): ...", 'def test_other(operator: "Operator"): ...'):
        file.write_text(UNMARKED + text)
        bad = on_kind(tmp_path, *collect)
        assert bad.returncode == pytest.ExitCode.USAGE_ERROR
        assert "which only the local cluster has; mark them local, or ask for any:" in bad.stderr
        assert bad.stderr.rstrip().endswith("::test_other")
