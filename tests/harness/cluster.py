"""All parts of the local cluster together. Used by the command line, the pytest plugin, the demo and the bench."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from harness import node as process_node
from harness import tools
from harness.api import Api
from harness.audit import Audit
from harness.control_plane import ControlPlane, install, load
from harness.mesh import Mesh
from harness.node import ProcessNode
from harness.process import Process, until
from harness.prometheus import Prometheus
from harness.tools import print_progress

ROOT = Path(__file__).parents[2]
EVERYTHING = ("mesh", "node", "prometheus")
_TOOLS = {
    "plane": ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"),
    "mesh": ("pilot-discovery", "envoy"),
    "prometheus": ("prometheus",),
}


class Cluster:
    """A control plane, and of the other parts those that are asked for.

    Args:
        folder: for all data.
        detached: the processes outlive us, the process node too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        detached: bool = False,
        fsync: bool = False,
        report: Callable[[str], None] = print_progress,
    ) -> None:
        self.folder, self._detached, self._report = folder, detached, report
        self.control_plane = ControlPlane(folder / "control-plane", detached=detached, fsync=fsync, report=report)
        self.mesh = Mesh(self.control_plane, folder / "mesh", detached=detached, report=report)
        self.prometheus = Prometheus(folder / "prometheus", detached=detached, report=report)
        self.node: ProcessNode | None = None
        self.node_process: Process | None = None
        self._parts: tuple[str, ...] = ()

    @property
    def api(self) -> Api:
        return self.control_plane.api

    @property
    def kubeconfig(self) -> Path:
        return self.control_plane.kubeconfig

    @property
    def audit(self) -> Audit:
        return Audit(self.control_plane.audit_log)

    def start(self, parts: tuple[str, ...] = EVERYTHING) -> None:
        """Start the control plane, then the parts, then put Cutover's CRD in."""
        self._parts = parts
        wanted = [name for part in ("plane", *parts) for name in _TOOLS.get(part, ())]
        tools.locate_all(wanted, self._report)  # all of them first: what takes minutes is done before anything runs
        try:
            self._step("etcd, API server, controllers, KWOK", self.control_plane.start)
            if "mesh" in parts:
                self._step("istiod and Envoy", self.mesh.start)
            if "prometheus" in parts:
                self._step("Prometheus", self._start_prometheus)
            if "node" in parts:
                self._step("the process node", self._start_node)
            install(self.api, *load(ROOT / "crds" / "migrationplans.yaml"))
        except BaseException:
            self.stop()
            raise

    def _step(self, what: str, start: Callable[[], None]) -> None:
        self._report(f"starting {what}")
        start()

    def _start_prometheus(self) -> None:
        self.prometheus.start()
        if "mesh" in self._parts:
            self.prometheus.scrape("envoy", self.mesh.envoy_admin, path="/stats/prometheus")

    def _start_node(self) -> None:
        self.control_plane.add_node(process_node.manifest())
        if not self._detached:
            self.node = ProcessNode(self.api, self.folder / "pods")
            self.node.start()
            return
        self.node_process = Process(
            "node",
            [
                sys.executable,
                "-m",
                "harness",
                "node",
                self.control_plane.url,
                str(self.control_plane.ca),
                str(self.folder / "pods"),
            ],
            log=self.folder / "node.log",
            env={"HARNESS_TOKEN": self.control_plane.admin_token, "PYTHONPATH": str(ROOT / "tests")},
            detached=True,
        )
        self.node_process.start()
        api = self.api
        until("the process node is ready", lambda: _ready(api), process=self.node_process)

    def stop(self) -> None:
        """End everything, each part before those it rests on."""
        self.mesh.stop()
        self.prometheus.stop()
        if self.node is not None:
            self.node.stop()
        if self.node_process is not None:
            self.node_process.stop()
        self.control_plane.stop()

    def processes(self) -> list[Process]:
        """All server processes in the order in which they are to be stopped."""
        mesh, plane = self.mesh.processes, self.control_plane.processes
        order = [mesh.get("envoy"), mesh.get("istiod"), self.prometheus.process, self.node_process]
        order += [
            plane.get(name) for name in ("kwok", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "etcd")
        ]
        return [process for process in order if process is not None]


def _ready(api: Api) -> bool:
    conditions = api.get(f"/api/v1/nodes/{process_node.NAME}").get("status", {}).get("conditions") or []
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
