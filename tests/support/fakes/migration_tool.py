"""A migration tool that really runs, as a process of the process node: it writes what it does, line by line, into a ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from harness import node
from support.cluster.shop import Shop

ROLE = """
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: jobs, namespace: NAMESPACE}
rules: [{apiGroups: [batch], resources: [jobs], verbs: [create, patch, delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: jobs, namespace: NAMESPACE}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: jobs}
subjects: [{kind: ServiceAccount, name: migrator, namespace: NAMESPACE}]
"""


class MigrationTool:
    """The tool, the rights to run it, and what it has done."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.api, self.ledger = shop, shop.api, folder / "ledger"
        self.ledger.touch()
        self.jobs_path = f"/apis/batch/v1/namespaces/{shop.namespace}/jobs"
        self.pods_path = f"/api/v1/namespaces/{shop.namespace}/pods"
        for manifest in yaml.safe_load_all(ROLE.replace("NAMESPACE", shop.namespace)):
            self.api.apply(manifest)

    def template(self, script: str, **container: Any) -> str:
        """A Job of one shell script, as text; LEDGER in it is the ledger."""
        command = ["sh", "-c", script.replace("LEDGER", str(self.ledger))]
        part = {"name": "tool", "image": "tool:1", "command": command, **container}
        pod = {**node.placement(), "terminationGracePeriodSeconds": 10, "containers": [part]}
        return json.dumps({"spec": {"template": {"spec": pod}}})

    def job(
        self, up: str = "echo up >> LEDGER", down: str | None = "echo down >> LEDGER", **rest: Any
    ) -> dict[str, Any]:
        """The fields of a step."""
        undo = {} if down is None else {"undo": self.template(down)}
        return {"template": self.template(up), **undo, **rest}

    def done(self) -> list[str]:
        return self.ledger.read_text().split()

    def jobs(self) -> list[Any]:
        return self.api.list(self.jobs_path)

    def of_step(self, step: str, *, undo: bool = False) -> Any:
        """The Job of the first attempt of a step; None when there is none."""
        lead = f"{step}-undo-" if undo else f"{step}-"
        found = [job for job in self.jobs() if job["metadata"]["name"].rpartition("-")[0] + "-" == lead]
        return found[0] if found else None

    def running(self) -> list[str]:
        """Names of pods that have not ended."""
        pods = self.api.list(self.pods_path, "batch.kubernetes.io/job-name")
        return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def left(self) -> list[str]:
        """What should not be there after the end: a Job that is claimed, or of nobody, or may still run."""
        found = []
        for job in self.jobs():
            metadata = job["metadata"]
            if "cutover.dev/plan" in metadata["labels"] or not metadata.get("ownerReferences"):
                found.append(metadata["name"])
            ended = {entry["type"] for entry in job["status"].get("conditions") or () if entry["status"] == "True"}
            if not ended & {"Complete", "Failed"} and not job["spec"].get("suspend"):
                found.append(f"{metadata['name']} runs")
        return found + self.running()
