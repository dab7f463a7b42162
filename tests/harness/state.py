"""What a cluster that is left running leaves in a file, so that a later command finds it and can end it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import tools
from harness.cluster import Cluster
from harness.process import Process, started_at


def folder() -> Path:
    """Where its data lies."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cutover" / "cluster"


class InUse(RuntimeError):
    """Another command works on the cluster that is left running, or a test run uses it."""


@contextlib.contextmanager
def exclusively(what: str) -> Iterator[None]:
    """Nobody else brings the cluster up or down, or runs tests on it, for as long as this lasts.

    Args:
        what: we are about to do; the other is told so in its sentence.

    Raises:
        InUse: another process does; with what it does.
    """
    path = folder().parent / "cluster.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            raise InUse(
                f"another process is {lock.read().strip() or 'working'} on the cluster in {folder()}; wait until it has "
                "ended, or set XDG_STATE_HOME to another folder to have a second cluster beside it"
            ) from None
        lock.truncate(0)
        lock.write(what)
        lock.flush()
        yield
        lock.truncate(0)


def read_state() -> dict[str, Any] | None:
    """What was left; None when nothing was. `running` tells whether it still runs."""
    path = folder() / "state.json"
    state: dict[str, Any] | None = json.loads(path.read_text()) if path.exists() else None
    return state


def running(state: dict[str, Any]) -> list[str]:
    """Names of the processes that were left and still run: those with the number and the start they had."""
    return [name for name, pid, started in state["pids"] if started and started_at(pid) == started]


def attach(state: dict[str, Any]) -> Cluster:
    """A cluster that an earlier command left running, to be used and not to be started or stopped."""
    if not running(state):
        raise RuntimeError("the cluster that was left running has ended since; start it again with `make cluster`")
    cluster = Cluster(Path(state["folder"]), detached=True)
    cluster.control_plane.attach(state["api"], state["token"])
    cluster.mesh.attach(state["gateway_port"], state["admin_port"], state["istiod_port"], state["route_port"])
    cluster.prometheus.attach(state["prometheus"], next(pid for name, pid, _ in state["pids"] if name == "prometheus"))
    return cluster


def write_state(cluster: Cluster, before: Sequence[Process] = ()) -> dict[str, Any]:
    """Remember a running cluster.

    Args:
        cluster: running, detached.
        before: processes that are to be ended before those of the cluster.
    """
    state = {
        "folder": str(cluster.folder),
        "token": cluster.control_plane.admin_token,
        "gateway_port": cluster.mesh.gateway_port,
        "admin_port": cluster.mesh.admin_port,
        "istiod_port": cluster.mesh.istiod_port,
        "route_port": cluster.mesh.route_port,
        "pids": [[process.name, process.pid, started_at(process.pid)] for process in (*before, *cluster.processes())],
        "kubeconfig": str(cluster.kubeconfig),
        "api": cluster.control_plane.url,
        "gateway": cluster.mesh.gateway_url,
        "prometheus": cluster.prometheus.url,
        "envoy": f"http://{cluster.mesh.envoy_admin}",
        "kubectl": str(tools.locate("kubectl")),
    }
    folder().mkdir(parents=True, exist_ok=True)
    (folder() / "state.json").write_text(json.dumps(state, indent=2))
    return state
