"""``python -m harness up | down | status``: a local cluster that is left running; ``tools | kind``: what tests need."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import kind, tools
from harness.api import Api
from harness.cluster import Cluster
from harness.node import ProcessNode
from harness.process import stop_pid
from harness.state import InUse, exclusively, folder, read_state, running, write_state
from harness.tools import ToolMissing, print_progress


def up() -> int:
    """Bring everything up and leave it."""
    try:
        with exclusively("starting servers"):
            return _up()
    except InUse as error:
        print_progress(f"error: {error}")
        return 1


def _up() -> int:
    known = read_state()
    if known is not None and (alive := running(known)):
        gone = sorted({name for name, _, _ in known["pids"]} - set(alive))
        rest = f", but for {', '.join(gone)}" if gone else ""
        print_progress(f"it is up already{rest}; `make cluster-down` ends it")
        return _show(known)
    if known is not None:
        print_progress("what was left running has ended since; starting again")
    begun = time.monotonic()
    shutil.rmtree(folder(), ignore_errors=True)
    folder().mkdir(parents=True)
    cluster = Cluster(folder(), detached=True)
    try:
        tools.locate_all(tools.FOR_PEOPLE)
        cluster.start()
    except (ToolMissing, RuntimeError) as error:
        print_progress(f"error: {error}")
        return 1
    state = write_state(cluster)
    print_progress(f"up after {time.monotonic() - begun:.1f}s")
    return _show(state)


def _show(state: dict[str, Any]) -> int:
    print(f"export KUBECONFIG={state['kubeconfig']}")  # noqa: T201 -- this is the output
    for name in ("api", "gateway", "prometheus", "envoy"):
        print(f"# {name}: {state[name]}")  # noqa: T201 -- this is the output
    print(f"# kubectl: {state['kubectl']}")  # noqa: T201 -- this is the output
    return 0


def down() -> int:
    """End it and leave nothing."""
    try:
        with exclusively("ending servers"):
            return _down()
    except InUse as error:
        print_progress(f"error: {error}")
        return 1


def _down() -> int:
    state = read_state()
    if state is not None:
        if not running(state):
            print_progress("what was left running has ended since; only its files are taken away")
        for name, pid, started in state["pids"]:
            if stop_pid(pid, started):
                print_progress(f"stopped {name}")
    shutil.rmtree(folder(), ignore_errors=True)
    return 0


def status() -> int:
    """What runs, and where."""
    state = read_state()
    if state is None:
        print("down")  # noqa: T201 -- this is the output
        return 1
    alive = running(state)
    for name, pid, _ in state["pids"]:
        print(f"{name:25} {pid:8} {'running' if name in alive else 'gone'}")  # noqa: T201 -- this is the output
    return _show(state)


def get_tools(names: Sequence[str] = tools.FOR_TESTS) -> int:
    """Get the tools of the local cluster, so that later commands start at once."""
    try:
        for name, path in tools.locate_all([*names]).items():
            print(f"{name:25} {path}")  # noqa: T201 -- this is the output
    except ToolMissing as error:
        print_progress(f"error: {error}")
        return 1
    return 0


def get_kind() -> int:
    """Get what the kind way needs; without Docker nothing is got."""
    try:
        kind.require_docker()
    except ToolMissing as error:
        print_progress(f"error: {error}")
        return 1
    return get_tools(kind.TOOLS)


def node(url: str, ca: str, pods: str) -> int:
    """Be the process node until told to stop."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    kubelet = ProcessNode(Api(url, Path(ca), os.environ.pop("HARNESS_TOKEN")), Path(pods))
    kubelet.start()
    ending.wait()
    kubelet.stop()
    return 0


def main() -> int:
    verbs = {"up": up, "down": down, "status": status, "tools": get_tools, "kind": get_kind}
    match sys.argv[1:]:
        case [verb] if verb in verbs:
            with contextlib.suppress(KeyboardInterrupt):
                return verbs[verb]()
            return 130
        case ["node", url, ca, pods]:
            return node(url, ca, pods)
    print_progress(__doc__ or "")
    return 64


if __name__ == "__main__":
    sys.exit(main())
