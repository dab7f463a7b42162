"""``python -m harness up | down | status | tools``: a local cluster that is left running."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from harness import tools
from harness.api import Api
from harness.cluster import Cluster
from harness.node import ProcessNode
from harness.process import stop_pid
from harness.tools import ToolMissing, print_progress


def _folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cutover" / "cluster"


def _state() -> dict[str, object] | None:
    path = _folder() / "state.json"
    return json.loads(path.read_text()) if path.exists() else None


def up() -> int:
    """Bring everything up and leave it."""
    known = _state()
    if known is not None:
        print_progress("it is up already; `make cluster-down` ends it")
        return _show(known)
    begun = time.monotonic()
    shutil.rmtree(_folder(), ignore_errors=True)
    _folder().mkdir(parents=True)
    cluster = Cluster(_folder(), detached=True)
    try:
        cluster.start()
    except (ToolMissing, RuntimeError) as error:
        print_progress(f"error: {error}")
        return 1
    state: dict[str, object] = {
        "pids": [[process.name, process.pid] for process in cluster.processes()],
        "kubeconfig": str(cluster.kubeconfig),
        "api": cluster.control_plane.url,
        "gateway": cluster.mesh.gateway_url,
        "prometheus": cluster.prometheus.url,
        "envoy": f"http://{cluster.mesh.envoy_admin}",
    }
    (_folder() / "state.json").write_text(json.dumps(state, indent=2))
    print_progress(f"up after {time.monotonic() - begun:.1f}s")
    return _show(state)


def _show(state: dict[str, object]) -> int:
    print(f"export KUBECONFIG={state['kubeconfig']}")  # noqa: T201 -- this is the output
    for name in ("api", "gateway", "prometheus", "envoy"):
        print(f"# {name}: {state[name]}")  # noqa: T201 -- this is the output
    return 0


def down() -> int:
    """End it and leave nothing."""
    state = _state()
    if state is not None:
        for name, pid in state["pids"]:  # type: ignore[attr-defined]  # as written above
            print_progress(f"stopping {name}")
            stop_pid(pid)
    shutil.rmtree(_folder(), ignore_errors=True)
    return 0


def status() -> int:
    """What runs, and where."""
    state = _state()
    if state is None:
        print("down")  # noqa: T201 -- this is the output
        return 1
    for name, pid in state["pids"]:  # type: ignore[attr-defined]  # as written above
        alive = Path(f"/proc/{pid}").exists()
        print(f"{name:25} {pid:8} {'running' if alive else 'gone'}")  # noqa: T201 -- this is the output
    return _show(state)


def get_tools() -> int:
    """Get every tool, so that later commands start at once."""
    try:
        for name, path in tools.locate_all(list(tools.TOOLS)).items():
            print(f"{name:25} {path}")  # noqa: T201 -- this is the output
    except ToolMissing as error:
        print_progress(f"error: {error}")
        return 1
    return 0


def node(url: str, ca: str, folder: str) -> int:
    """Be the process node until told to stop."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    kubelet = ProcessNode(Api(url, Path(ca), os.environ.pop("HARNESS_TOKEN")), Path(folder))
    kubelet.start()
    ending.wait()
    kubelet.stop()
    return 0


def main() -> int:
    verbs = {"up": up, "down": down, "status": status, "tools": get_tools}
    match sys.argv[1:]:
        case [verb] if verb in verbs:
            with contextlib.suppress(KeyboardInterrupt):
                return verbs[verb]()
            return 130
        case ["node", url, ca, folder]:
            return node(url, ca, folder)
    print_progress(__doc__ or "")
    return 64


if __name__ == "__main__":
    sys.exit(main())
