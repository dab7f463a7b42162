"""A cluster left running is found again and ended, and nobody else's process ever is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import down, status, up
from harness.cluster import ROOT, Cluster
from harness.process import Process, started_at, stop_pid, until
from harness.state import attach, exclusively, read_state, running, write_state


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes a while to end by itself."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where states are kept in this test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "cutover" / "cluster"
    folder.mkdir(parents=True)
    return folder


def leave(home: Path, *pids: tuple[str, int, int]) -> dict[str, Any]:
    state: dict[str, Any] = dict.fromkeys(
        ("kubeconfig", "api", "gateway", "prometheus", "envoy", "kubectl"), "http://127.0.0.1:1"
    )
    state |= {"pids": [list(pid) for pid in pids], "folder": str(home)}
    (home / "state.json").write_text(json.dumps(state))
    return state


def test_the_start_distinguishes_processes_of_one_number(sleeper: subprocess.Popen[bytes]) -> None:
    begun = started_at(sleeper.pid)
    assert begun > 0
    assert not stop_pid(sleeper.pid, begun + 1)
    assert not stop_pid(sleeper.pid, 0)
    assert sleeper.poll() is None
    assert stop_pid(sleeper.pid, begun)
    assert started_at(sleeper.pid) == 0, "a process that has ended and was not yet waited for does not run"
    assert sleeper.wait() == -15
    assert not stop_pid(sleeper.pid, begun)


def test_one_that_does_not_listen_is_killed() -> None:
    script = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        assert stop_pid(deaf.pid, started_at(deaf.pid), grace=0.2)
        assert deaf.wait() == -9


def test_down_ends_what_was_left(
    home: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    state = leave(home, ("etcd", sleeper.pid, started_at(sleeper.pid)))
    assert running(state) == ["etcd"]
    assert status() == 0
    assert down() == 0
    assert sleeper.wait() == -15
    assert not home.exists()
    assert "stopped etcd" in capsys.readouterr().err


def test_down_leaves_alone_who_has_the_number_now(
    home: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    state = leave(home, ("etcd", sleeper.pid, started_at(sleeper.pid) - 1))
    assert running(state) == []
    with pytest.raises(RuntimeError, match="has ended since"):
        attach(state)
    assert down() == 0
    assert sleeper.poll() is None
    assert not home.exists()
    assert "what was left running has ended since" in capsys.readouterr().err


def test_up_says_which_part_is_gone(
    home: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    leave(home, ("etcd", sleeper.pid, started_at(sleeper.pid)), ("kwok", sleeper.pid, 1))
    assert up() == 0
    assert "it is up already, but for kwok; `make cluster-down` ends it" in capsys.readouterr().err
    state = read_state()
    assert state is not None
    assert running(state) == ["etcd"]


_NOWHERE = """
apiVersion: v1
kind: Config
current-context: it
clusters: [{name: it, cluster: {server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}}]
users: [{name: it, user: {token: secret}}]
contexts: [{name: it, context: {cluster: it, user: it}}]
"""
_FORKS = """
import sys, time
from pathlib import Path
from support.cluster.forked_operator import ForkedOperator
folder = Path(sys.argv[1])
operator = ForkedOperator(["--port", "0"], folder / "kubeconfig", folder / "log")
operator.start()
print(operator.pid, flush=True)
time.sleep(300)
"""


def test_a_test_run_that_is_killed_leaves_no_operator(tmp_path: Path) -> None:
    """Also one that would live on, because it waits for an API server that is not there."""
    (tmp_path / "kubeconfig").write_text(_NOWHERE)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    with subprocess.Popen([sys.executable, "-c", _FORKS, tmp_path], stdout=subprocess.PIPE, env=env) as run:
        assert run.stdout is not None
        pid = int(run.stdout.readline())
        until("it asks for the API server", lambda: "connection refused" in (tmp_path / "log").read_text())
        run.kill()
    until("the operator is gone", lambda: not started_at(pid))


def test_one_command_at_a_time(
    home: Path, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    """Two `make cluster` at once would each delete the folder in which the other starts its servers."""
    state = leave(home, ("etcd", sleeper.pid, started_at(sleeper.pid)))
    with exclusively("running tests"):
        assert up() == 1
        assert down() == 1
    told = capsys.readouterr().err
    sentence = f"error: another process is running tests on the cluster in {home}; wait until it has ended, or set "
    assert told.count(sentence) == 2
    assert running(state) == ["etcd"]
    assert down() == 0


def test_another_cluster_beside_it_has_a_place_of_its_own(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with exclusively("starting servers"):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "second"))
        assert down() == 0
    assert home.exists()


_TAKES_PORTS = (
    "import sys; from harness.process import free_ports; print(*free_ports(100), flush=True); sys.stdin.read()"
)


def test_clusters_that_start_side_by_side_get_different_ports() -> None:
    """Also before any of their servers listens; and none that the kernel would give to an outgoing connection."""
    command, env = [sys.executable, "-c", _TAKES_PORTS], {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) for _ in range(4)
    ]
    found: list[int] = []
    for process in processes:
        assert process.stdout is not None
        found += map(int, process.stdout.readline().split())
    for process in processes:
        process.communicate()
    assert len(found) == len(set(found)) == 400
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not [port for port in found if first <= port <= last]


@pytest.mark.parametrize("way", ["current", "kind"])
def test_a_cluster_that_is_shared_takes_one_test_at_a_time(way: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--cluster={way}", "-n2", str(ROOT / "tests/house/test_node.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert f"--cluster={way} is one cluster with one operator" in done.stderr


def test_what_is_written_is_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUTOVER_KUBECTL", str(home / "kubectl"))  # this test is not worth a build
    cluster = Cluster(home / "cluster", detached=True, report=lambda _: None)
    cluster.mesh.attach(1, 2, 3, 4)
    process = Process("load", ["sleep", "600"], log=home / "log")
    process.start()
    try:
        assert running(write_state(cluster, [process])) == ["load"]
    finally:
        process.stop()
    state = read_state()
    assert state is not None
    assert running(state) == []
