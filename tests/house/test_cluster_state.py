"""A cluster left running is found again and ended, and nobody else's process ever is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.__main__ import down, status, up
from harness.cluster import Cluster
from harness.process import Process, started_at, stop_pid
from harness.state import attach, read_state, running, write_state


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


def test_the_start_tells_processes_of_one_number_apart(sleeper: subprocess.Popen[bytes]) -> None:
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
