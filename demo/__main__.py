"""``make demo``: two migrations of a small shop under load, on a real cluster, with figures at the end.

Exit code 1 when migration 1 lost a request, a split was off by more than 5 points, or migration 2 left a trace.
"""

from __future__ import annotations

import copy
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from figures import Figures, Traffic, report
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from cutover.plan import read_status
from cutover.report.screen import screen, sentence
from cutover.status import ENDED, Phase, Status
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.process import Process, until
from harness.state import folder as kept_folder
from harness.state import write_state
from harness.tools import ToolMissing

HERE = Path(__file__).parent
PLANS = "/apis/cutover.dev/v1alpha1/namespaces/shop/migrationplans"
ROUTES = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices/shop"
RATE = 300
"""Requests a second: at 6 seconds a weight, 1,800 a weight; a split is then known to about 1.2 points (one sigma at 50 %)."""

console = Console()


def documents(path: Path) -> Iterator[dict[str, Any]]:
    """The documents of a file, with $(DEMO) filled in: containers of the process node run files of this folder."""
    yield from yaml.safe_load_all(path.read_text().replace("$(DEMO)", str(HERE)))


class Demo:
    """The cluster, the operator, the shop, the load."""

    def __init__(self, folder: Path, *, keep: bool) -> None:
        self.cluster = Cluster(folder / "cluster", detached=keep, report=lambda line: console.print(f"[dim]{line}[/]"))
        self.folder, self.keep = folder, keep
        self.figures = Figures()
        self._ending = threading.Event()
        self._operator: Process | None = None
        self._load: Process | None = None

    @property
    def api(self) -> Api:
        return self.cluster.api

    # --- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.cluster.start()
        console.print("[dim]starting the operator and the shop[/]")
        self._operator = self._start_operator()
        for document in documents(HERE / "shop.yaml"):
            self.api.apply(document, manager="demo")
        self._follow_pods()
        until("the shop answers", self._answers, deadline=60)
        self.cluster.prometheus.wait_up("shop", 2)
        load = self.folder / "requests.txt"
        command = [
            sys.executable,
            str(HERE / "load.py"),
            self.cluster.mesh.gateway_url,
            "shop.example",
            str(RATE),
            str(load),
        ]
        self._load = Process("load", command, log=self.folder / "load.log", detached=self.keep)
        self._load.start()
        self.traffic = Traffic(load)
        until("the load has begun", lambda: load.exists() and load.stat().st_size > 0)

    def _start_operator(self) -> Process:
        """The operator as a process, with no more rights than its chart gives it."""
        rules = yaml.safe_load((ROOT / "charts/cutover/files/rules.yaml").read_text())
        kubeconfig = self.cluster.control_plane.operator_kubeconfig(rules)
        settings = self.folder / "settings.yaml"
        provider = {"prometheus": {"url": self.cluster.prometheus.url}}
        settings.write_text(yaml.safe_dump({"providers": {"default": provider}}))
        command = [sys.executable, "-m", "cutover.cli", "run", "--settings", str(settings), "--port", "0"]
        process = Process(
            "operator",
            command,
            log=self.folder / "operator.log",
            env={"KUBECONFIG": str(kubeconfig)},
            detached=self.keep,
        )
        process.start()
        return process

    def stop(self) -> None:
        self._ending.set()
        for process in (self._load, self._operator):
            if process is not None:
                process.stop()
        self.cluster.stop()

    def leave(self) -> None:
        """Leave all of it running, and say how to go on."""
        extra = [process for process in (self._load, self._operator) if process is not None]
        write_state(self.cluster, extra)
        console.print(
            f"\nAll of it goes on running. To play with it:\n\n  export KUBECONFIG={self.cluster.kubeconfig}\n"
            "  kubectl get mplan -n shop\n  uv run cutover status shop-2 -n shop\n"
            f"  curl -H 'Host: shop.example' {self.cluster.mesh.gateway_url}\n\nTo end it: make cluster-down"
        )

    def _answers(self) -> bool:
        entries = self.api.list("/apis/networking.istio.io/v1/namespaces/shop/workloadentries")
        return len(entries) >= 2

    def _follow_pods(self) -> None:
        """Tell Prometheus where the shop's pods are, as service discovery would."""

        def follow() -> None:
            known: list[str] = []
            while not self._ending.wait(0.2):
                try:
                    entries = self.api.list("/apis/networking.istio.io/v1/namespaces/shop/workloadentries")
                except OSError:
                    continue
                addresses = sorted(f"{entry['spec']['address']}:8080" for entry in entries)
                if addresses != known:
                    known = addresses
                    self.cluster.prometheus.scrape("shop", *known)

        threading.Thread(target=follow, daemon=True).start()

    # --- a migration --------------------------------------------------------------------------------------------------

    def migrate(self, file: str) -> Status:
        """Apply a plan and follow it to its end, with a live screen on a terminal and a line a change elsewhere."""
        plan = next(documents(HERE / file))
        name = plan["metadata"]["name"]
        self.figures.begin(name)
        self.api.apply(plan, manager="demo")
        shown = ""
        with _live() as live:
            while True:
                weight = self._new_weight(plan)
                self.figures.weight(name, weight, time.time())
                status = read_status(self.api.get(f"{PLANS}/{name}").get("status"))
                self.figures.status(name, status)
                if live is not None:
                    live.update(Group(screen(name, status), Text(), self.traffic.now()), refresh=True)
                else:
                    line = sentence(status)
                    if line != shown:
                        console.print(line, highlight=False, markup=False, soft_wrap=True)
                        shown = line
                if status.phase in ENDED:
                    self.figures.end(name, time.time())
                    return status
                time.sleep(0.05)

    def _new_weight(self, plan: dict[str, Any]) -> int:
        to = plan["spec"]["steps"][1]["traffic"]["to"]["host"]
        routes = self.api.get(ROUTES)["spec"]["http"][0]["route"]
        total = sum(entry.get("weight", 0) for entry in routes)
        if total != 100:
            self.figures.wrong_sums.append(total)
        return next(int(entry.get("weight", 0)) for entry in routes if entry["destination"]["host"] == to)

    def objects(self) -> dict[str, Any]:
        """Spec, labels and annotations of every object of the shop."""
        found = {}
        for group, kinds in (
            ("apps/v1", ("deployments",)),
            ("networking.istio.io/v1", ("virtualservices", "destinationrules")),
            ("", ("services", "serviceaccounts", "configmaps")),
        ):
            for kind in kinds:
                root = f"/apis/{group}" if group else "/api/v1"
                for body in self.api.list(f"{root}/namespaces/shop/{kind}"):
                    metadata = body["metadata"]
                    annotations = dict(metadata.get("annotations") or {})
                    annotations.pop("deployment.kubernetes.io/revision", None)
                    kept = {
                        "spec": body.get("spec"),
                        "labels": metadata.get("labels") or {},
                        "annotations": annotations,
                    }
                    found[f"{kind}/{metadata['name']}"] = copy.deepcopy(kept)
        return found


@contextmanager
def _live() -> Iterator[Live | None]:
    if not console.is_terminal:
        yield None
        return
    with Live(console=console, auto_refresh=False) as live:
        yield live


def main() -> int:
    keep = os.environ.get("KEEP") == "1"
    folder = kept_folder() if keep else Path(tempfile.mkdtemp(prefix="cutover-demo-"))
    if keep and (folder / "state.json").exists():
        console.print("a cluster is up already; `make cluster-down` ends it")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    demo = Demo(folder, keep=keep)
    kept = False
    try:
        wrong = _play(demo)
        if keep:
            demo.leave()
            kept = True
    except (ToolMissing, RuntimeError) as error:
        console.print("[red]error:[/]", str(error), highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    else:
        return 1 if wrong else 0
    finally:
        if not kept:
            demo.stop()
            shutil.rmtree(folder, ignore_errors=True)


def _play(demo: Demo) -> list[str]:
    """Both migrations and the figures; what is wrong."""
    begun = time.monotonic()
    demo.start()
    console.print(f"\n[bold]Migration 1[/]: version 2 is good ({RATE} requests a second all the while)\n")
    first = demo.migrate("migration-1.yaml")
    before = demo.objects()
    console.print("\n[bold]Migration 2[/]: version 3 answers a third of its requests with errors\n")
    second = demo.migrate("migration-2.yaml")
    time.sleep(1)  # the last requests of migration 2 are still on their way
    wrong = report(console, demo.figures, demo.traffic)
    wrong += _traces(before, demo.objects())
    for status, wanted in ((first, Phase.SUCCEEDED), (second, Phase.ROLLED_BACK)):
        if status.phase is not wanted:
            wrong.append(f"a migration ended {status.phase} instead of {wanted}: {status.message}")
    for line in wrong:
        console.print("[red]wrong:[/]", line, highlight=False)
    if not wrong:
        console.print(f"[green]all is as it should be[/] ({time.monotonic() - begun:.0f}s in all)")
    return wrong


def _traces(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What migration 2 left behind."""
    found = [f"{name} is gone or new after migration 2" for name in before.keys() ^ after.keys()]
    return found + [
        f"{name} is not as before migration 2: {after[name]} instead of {before[name]}"
        for name in before.keys() & after.keys()
        if before[name] != after[name]
    ]


if __name__ == "__main__":
    sys.exit(main())
