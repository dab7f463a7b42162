"""``make demo``: two migrations of a small shop under load, on a real cluster, with figures at the end.

Exit code 1 when migration 1 lost a request, when a split was off by more than 5 points or had too few requests, or when migration 2
left anything behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from audience import Audience
from figures import show, wrong_backward, wrong_forward
from rich.console import Console
from rich.text import Text
from scene import NAMESPACE, PLANS, RATE, ROUTES, Scene, documents
from traces import left, objects
from watching import Watching

from cutover.status.status import Phase
from harness.api import ApiError
from harness.state import InUse, exclusively, read_state, running
from harness.state import folder as kept_folder
from harness.tools import ToolMissing

console = Console()


def main() -> int:
    keep = os.environ.get("KEEP") == "1"
    try:
        with exclusively("running the demo") if keep else contextlib.nullcontext():
            return _main(keep=keep)
    except InUse as error:
        console.print("[red]error:[/]", Text(str(error)), highlight=False)
        return 1


def _main(*, keep: bool) -> int:
    folder = kept_folder() if keep else Path(tempfile.mkdtemp(prefix="cutover-demo-"))
    state = read_state() if keep else None
    if state is not None and running(state):
        console.print("a cluster is already running; stop it with `make cluster-down`")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    scene = Scene(folder, keep=keep, report=lambda line: console.print(f"[dim]{line}[/]"))
    kept = False
    try:
        wrong = _play(scene)
        if keep:
            console.print(f"\n{scene.next_steps()}", highlight=False, markup=False, soft_wrap=True)
            kept = True
    except (ToolMissing, RuntimeError, ApiError) as error:
        console.print("[red]error:[/]", Text(str(error)), highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        return 1 if wrong else 0
    finally:
        if not kept:
            scene.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _play(scene: Scene) -> list[str]:
    """Run both migrations and print the figures; returns what is wrong."""
    started = time.monotonic()
    scene.start()
    audience = Audience(console, Watching(scene.api, PLANS, ROUTES), scene.traffic)
    plans = [next(documents(f"migration-{number}.yaml")) for number in (1, 2)]
    names = [plan["metadata"]["name"] for plan in plans]

    console.print(f"\n[bold]Migration 1[/]: version 2 is good ({RATE} requests per second throughout)\n")
    scene.api.apply(plans[0], manager="demo")
    first, first_end = audience.follow(plans[0], scene.operator)
    before = objects(scene.api, NAMESPACE)
    console.print("\n[bold]Migration 2[/]: version 3 answers a third of its requests with errors\n")
    scene.api.apply(plans[1], manager="demo")
    second, second_end = audience.follow(plans[1], scene.operator)
    after = objects(scene.api, NAMESPACE)
    time.sleep(1)  # the last requests of migration 2 may still be in flight

    requests = scene.traffic.read()
    weights = plans[0]["spec"]["steps"][1]["traffic"]["weights"]
    wrong = [f"weights added up to {total}" for total in audience.wrong_sums]
    wrong += wrong_forward(names[0], weights, first, requests)
    wrong += wrong_backward(names[1], second, requests)
    wrong += left(before, after)
    for name, status, wanted in ((names[0], first_end, Phase.SUCCEEDED), (names[1], second_end, Phase.ROLLED_BACK)):
        if status.phase is not wanted:
            wrong.append(f"{name} ended {status.phase} instead of {wanted}: {status.message}")
    for name, migration in zip(names, (first, second), strict=True):
        show(console, name, migration, requests)
    for line in wrong:
        console.print("[red]wrong:[/]", Text(line), highlight=False)
    if not wrong:
        console.print(f"\n[green]everything is as expected[/] ({time.monotonic() - started:.0f}s in total)")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
