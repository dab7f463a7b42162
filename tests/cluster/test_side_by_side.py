"""Two clusters on one machine: that of the tests, and one that `make cluster` leaves running beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cluster import ROOT, Cluster
from harness.process import until
from harness.state import attach, read_state, running

pytestmark = [pytest.mark.cluster, pytest.mark.local("starts a second local cluster beside the first")]


def harness(verb: str, home: Path) -> subprocess.Popen[str]:
    """`make cluster` or `make cluster-down`, with its state in a folder of the test."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "XDG_STATE_HOME": str(home)}
    return subprocess.Popen([sys.executable, "-m", "harness", verb], env=env, stderr=subprocess.PIPE, text=True)


def ended(command: subprocess.Popen[str]) -> tuple[int, str]:
    """Its exit code, and its messages."""
    told = command.communicate(timeout=120)[1]
    return command.returncode, told


def test_a_second_cluster_runs_beside_that_of_the_tests(
    cluster: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is brought up once however often it is asked for, knows nothing of the first, and leaves nothing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = harness("up", tmp_path)
    until("the first command has begun", (tmp_path / "cutover" / "cluster").exists)
    code, told = ended(harness("up", tmp_path))
    assert code == 1
    assert "error: another process is starting servers on the cluster in " in told
    assert ended(first)[0] == 0
    try:
        assert "it is up already; " in ended(harness("up", tmp_path))[1]
        state = read_state()
        assert state is not None
        second = attach(state)
        assert second.api.find(f"/api/v1/namespaces/{namespace}") is None
        second.control_plane.make_namespace("beside")
        assert cluster.api.find("/api/v1/namespaces/beside") is None
        second.mesh.wait_synced()
    finally:
        assert ended(harness("down", tmp_path))[0] == 0
    assert running(state) == []
    assert read_state() is None
    cluster.mesh.wait_synced()
