"""What controllers and kubelets do, for the API server of `cluster.py`: rollouts complete, Jobs run and end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from cutover.fields import Json
from cutover.ports import DAEMON_SETS, JOBS, PODS, WORKLOADS, Ref
from cutover.testing.cluster import MemoryCluster

NODES = 2
"""Where a DaemonSet runs its pods."""
_FIGURES = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
_FIGURES_OF_DAEMONS = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "updatedNumberScheduled",
    "numberReady",
    "numberAvailable",
)


def roll_out(cluster: MemoryCluster) -> bool:
    """Play the controllers of workloads and the kubelet: every rollout completes at once. Whether anything changed."""
    changed = False
    for ref, body in list(cluster.objects.items()):
        if ref.resource not in WORKLOADS or not cluster.rollouts:
            continue
        names: tuple[str, ...] = _FIGURES
        pods = body["spec"].get("replicas", 1)
        if ref.resource == DAEMON_SETS:
            names, pods = _FIGURES_OF_DAEMONS, NODES
        status = {"observedGeneration": body["metadata"]["generation"], **dict.fromkeys(names, pods)}
        if body.get("status") != status:
            cluster.report(ref, status)
            changed = True
    return changed


_JOB_NAME = "batch.kubernetes.io/job-name"


def run_jobs(cluster: MemoryCluster, exits: Callable[[Json], int | None]) -> bool:
    """Play the Job controller and the kubelet: each Job goes one step further. Whether anything changed.

    Args:
        cluster: where.
        exits: the exit code with which a pod (its spec) ends; None while it runs.
    """
    changed = _collect(cluster)
    for ref, body in list(cluster.objects.items()):
        if ref.resource != JOBS:
            continue
        status = _next_status(cluster, ref, body, exits)
        if status != (body.get("status") or {}):
            cluster.report(ref, status)
            changed = True
    return changed


def _collect(cluster: MemoryCluster) -> bool:
    """Pods whose Job is gone go too."""
    gone = [
        ref
        for ref, body in cluster.objects.items()
        if ref.resource == PODS and _JOB_NAME in body["metadata"].get("labels", {})
        if Ref(JOBS, ref.namespace, body["metadata"]["labels"][_JOB_NAME]) not in cluster.objects
    ]
    for ref in gone:
        cluster.delete(ref)
    return bool(gone)


def _next_status(cluster: MemoryCluster, ref: Ref, body: Json, exits: Callable[[Json], int | None]) -> Json:
    status = copy.deepcopy(body.get("status") or {})
    conditions: dict[str, Any] = {entry["type"]: entry for entry in status.get("conditions", [])}
    on = {name for name, entry in conditions.items() if entry["status"] == "True"}
    if on & {"Complete", "Failed"}:
        return status
    pod = Ref(PODS, ref.namespace, f"{ref.name}-0")
    if body["spec"].get("suspend"):
        if pod in cluster.objects:
            cluster.delete(pod)
        conditions["Suspended"] = {"type": "Suspended", "status": "True", "reason": "JobSuspended"}
        status |= {"active": 0, "ready": 0}
    elif pod not in cluster.objects:
        labels, spec = {_JOB_NAME: ref.name}, body["spec"]["template"]["spec"]
        running = [{"name": item["name"], "state": {"running": {}}} for item in spec["containers"]]
        cluster.put(PODS, {
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": labels},
            "spec": spec,
            "status": {"phase": "Running", "containerStatuses": running},
        })  # fmt: skip
        if "Suspended" in conditions:
            conditions["Suspended"] = {"type": "Suspended", "status": "False", "reason": "JobResumed"}
        status |= {"startTime": "2026-01-01T12:00:00Z", "active": 1, "ready": 1}
    else:
        code = exits(cluster.objects[pod]["spec"])
        if code is None:
            return status
        _end(cluster, pod, code)
        kind, reason = ("Complete", "CompletionsReached") if code == 0 else ("Failed", "BackoffLimitExceeded")
        conditions[kind] = {"type": kind, "status": "True", "reason": reason}
        status |= {"active": 0, "ready": 0, "succeeded": int(code == 0), "failed": int(code != 0)}
    return status | {"conditions": [conditions[name] for name in sorted(conditions)]}


def _end(cluster: MemoryCluster, pod: Ref, code: int) -> None:
    body = copy.deepcopy(cluster.objects[pod])
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": "2026-01-01T12:00:01Z"}
    for status in body["status"]["containerStatuses"]:
        status["state"] = {"terminated": ended}
    body["status"]["phase"] = "Failed" if code else "Succeeded"
    cluster.report(pod, body["status"])
