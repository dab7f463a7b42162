"""Everything the demo runs on: the cluster, the operator, the shop, the load. Knows nothing of what a migration should do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import follow
import yaml
from figures import Traffic

from harness import tools
from harness.api import Api
from harness.cluster import ROOT, Cluster
from harness.process import Process, until
from harness.state import write_state

HERE = Path(__file__).parent
NAMESPACE = "shop"
PLANS = f"/apis/cutover.dev/v1alpha1/namespaces/{NAMESPACE}/migrationplans"
ROUTES = f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/virtualservices"
RATE = 300
"""Requests per second: with 6 seconds per weight, 1,800 per weight, so a split is known to about 1.2 points (one sigma at 50 %)."""


def documents(file: str) -> Iterator[dict[str, Any]]:
    """The documents of a file, with $(DEMO) filled in: containers of the process node run files of this folder."""
    yield from yaml.safe_load_all((HERE / file).read_text().replace("$(DEMO)", str(HERE)))


class Scene:
    """The whole environment.

    Args:
        folder: for data and logs.
        keep: leave it running when the demo ends.
        report: called with a line about each thing that is done.
    """

    def __init__(self, folder: Path, *, keep: bool, report: Callable[[str], None]) -> None:
        self.cluster = Cluster(folder / "cluster", detached=keep, report=report)
        self.traffic = Traffic(folder / "requests.txt")
        self._folder, self._keep, self._report = folder, keep, report
        self._processes: list[Process] = []

    @property
    def api(self) -> Api:
        return self.cluster.api

    @property
    def operator(self) -> Process:
        return next(process for process in self._processes if process.name == "operator")

    def start(self) -> None:
        if self._keep:
            tools.locate_all(tools.FOR_PEOPLE, self._report)
        self.cluster.start()
        self._report("starting the operator and the shop")
        self._run(self._new_operator())
        for document in documents("shop.yaml"):
            self.api.apply(document, manager="demo")
        self._run(follow.process(self.cluster, NAMESPACE, self._folder / "follow.log", detached=self._keep))
        until("the shop answers", self._answers, deadline=60)
        self.cluster.prometheus.wait_up("shop", 2)
        self._run(self._new_load())
        record = self.traffic.file
        until("the load has begun", lambda: record.exists() and record.stat().st_size > 0)

    def _run(self, process: Process) -> None:
        process.start()
        self._processes.insert(0, process)
        if self._keep:  # as soon as there is something to stop
            write_state(self.cluster, self._processes)

    def _new_operator(self) -> Process:
        """The operator, with exactly the rights that its chart grants."""
        rules = yaml.safe_load((ROOT / "charts/cutover/files/rules.yaml").read_text())
        kubeconfig = self.cluster.control_plane.operator_kubeconfig(rules)
        settings = self._folder / "settings.yaml"
        provider = {"prometheus": {"url": self.cluster.prometheus.url}}
        settings.write_text(yaml.safe_dump({"providers": {"default": provider}}))
        command = [sys.executable, "-m", "cutover.cli", "run", "--settings", str(settings), "--port", "0"]
        log, env = self._folder / "operator.log", {"KUBECONFIG": str(kubeconfig)}
        return Process("operator", command, log=log, env=env, detached=self._keep)

    def _new_load(self) -> Process:
        where = [self.cluster.mesh.gateway_url, "shop.example", str(RATE), str(self.traffic.file)]
        command = [sys.executable, str(HERE / "load.py"), *where]
        return Process("load", command, log=self._folder / "load.log", detached=self._keep)

    def _answers(self) -> bool:
        entries = self.api.list(f"/apis/networking.istio.io/v1/namespaces/{NAMESPACE}/workloadentries")
        return len(entries) >= 2

    def stop(self) -> None:
        for process in self._processes:
            process.stop()
        self.cluster.stop()

    def next_steps(self) -> str:
        """Commands to try while everything keeps running; they use only what is on this machine."""
        cutover = Path(sys.executable).with_name("cutover")
        kubectl = tools.locate("kubectl", self._report)
        return (
            f"Everything is still running. To try it:\n\n  export KUBECONFIG={self.cluster.kubeconfig}\n"
            f"  {cutover} status -n {NAMESPACE}\n  {kubectl} describe mplan shop-3 -n {NAMESPACE}\n\n"
            f"To run migration 2 again:\n\n  {kubectl} delete mplan shop-3 -n {NAMESPACE}\n"
            f"  {kubectl} apply -f {HERE / 'migration-2.yaml'}\n  {cutover} watch shop-3 -n {NAMESPACE}\n\n"
            f"The shop answers at {self.cluster.mesh.gateway_url} (header Host: shop.example). To stop everything: make cluster-down"
        )
