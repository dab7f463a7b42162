"""Plays the controllers, the kubelet and the endpoints of the in-memory server: what was asked for is there at once. For tests.

Rollouts complete, pods are of the newest template, EndpointSlices name the pods that a Service chooses.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from cutover.fields import Json
from cutover.ports import DAEMON_SETS, ENDPOINT_SLICES, PODS, SERVICES, WORKLOADS, Ref
from cutover.testing.cluster import MemoryCluster
from cutover.workloads import pod_ready

NODES: Final = 2
"""Where a DaemonSet runs its pods."""
_FIGURES: Final = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
_FIGURES_OF_DAEMONS: Final = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "updatedNumberScheduled",
    "numberReady",
    "numberAvailable",
)
_TEMPLATE: Final = "pod-template-hash"
_SERVICE: Final = "kubernetes.io/service-name"


def react(cluster: MemoryCluster) -> bool:
    """All of them, once. Whether anything changed."""
    changed = [roll_out(cluster), run_pods(cluster), name_endpoints(cluster)]
    return any(changed)


def roll_out(cluster: MemoryCluster) -> bool:
    """Every rollout completes at once. Whether anything changed."""
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


def run_pods(cluster: MemoryCluster) -> bool:
    """As many pods as a workload says that it has, of the template that its controller has seen last."""
    changed = False
    for ref, body in list(cluster.objects.items()):
        status = body.get("status") or {}
        if ref.resource not in WORKLOADS or status.get("observedGeneration") != body["metadata"]["generation"]:
            continue
        template = json.dumps(body["spec"]["template"], sort_keys=True)
        mark = hashlib.sha256(template.encode()).hexdigest()[:10]
        wanted = {
            Ref(PODS, ref.namespace, f"{ref.resource.plural[0]}-{ref.name}-{number}")
            for number in range(status.get("readyReplicas", status.get("numberReady", 0)))
        }
        there = {
            one
            for one in cluster.objects
            if one.resource == PODS and one.name.rpartition("-")[0] == f"{ref.resource.plural[0]}-{ref.name}"
        }
        right = {one for one in wanted & there if cluster.objects[one]["metadata"]["labels"][_TEMPLATE] == mark}
        for one in there - right:
            cluster.delete(one)
        for one in sorted(wanted - right):
            cluster.put(PODS, pod(one.name, body["spec"]["template"], mark))
        changed = changed or there != right or wanted != right
    return changed


def pod(name: str, template: Json, mark: str = "") -> Json:
    """A pod that runs."""
    metadata = template["metadata"]
    state = {"state": {"running": {}}, "restartCount": 0}
    return {
        "metadata": {
            "name": name,
            "labels": {**(metadata.get("labels") or {}), _TEMPLATE: mark},
            "annotations": dict(metadata.get("annotations") or {}),
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": item["name"], **state} for item in template["spec"]["containers"]],
        },
    }


def name_endpoints(cluster: MemoryCluster) -> bool:
    """Each Service's slice names the ready pods that it chooses."""
    changed = False
    pods = [body for ref, body in sorted(cluster.objects.items()) if ref.resource == PODS and pod_ready(body)]
    for ref, body in list(cluster.objects.items()):
        if ref.resource != SERVICES:
            continue
        chosen = (body["spec"].get("selector") or {}).items()
        endpoints = [
            {
                "addresses": [f"10.0.0.{place}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "uid": one["metadata"]["uid"]},
            }
            for place, one in enumerate(pods)
            if chosen and chosen <= (one["metadata"].get("labels") or {}).items()
        ]
        part = Ref(ENDPOINT_SLICES, ref.namespace, ref.name)
        if cluster.objects.get(part, {}).get("endpoints") != endpoints:
            labels = {_SERVICE: ref.name}
            cluster.put(ENDPOINT_SLICES, {"metadata": {"name": ref.name, "labels": labels}, "endpoints": endpoints})
            changed = True
    return changed
