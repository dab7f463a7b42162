"""The controllers, the kubelet and the endpoints of the in-memory server; everything happens at once. For tests.

Rollouts complete, pods run the newest template, EndpointSlices list the pods that a Service selects, Jobs run and end.
"""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any, Final

from cutover.field_path import Json
from cutover.names import matching
from cutover.objects.workloads import TEMPLATE_HASH, pod_ready
from cutover.ports import DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, JOBS, PODS, SERVICES, WORKLOADS, Ref
from cutover.testing.cluster import MemoryCluster
from cutover.testing.server_rules import picked

NODES: Final = 2
"""The number of nodes, and so of the pods of a DaemonSet."""
_FIGURES: Final = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
_FIGURES_OF_DAEMONS: Final = (
    "desiredNumberScheduled",
    "currentNumberScheduled",
    "updatedNumberScheduled",
    "numberReady",
    "numberAvailable",
)
_SERVICE: Final = "kubernetes.io/service-name"
_MANAGED: Final = "endpointslice.kubernetes.io/managed-by"
_JOB: Final = "batch.kubernetes.io/job-name"


def react(cluster: MemoryCluster) -> bool:
    """Run all controllers once; whether anything changed."""
    changed = [roll_out(cluster), run_pods(cluster), name_endpoints(cluster), run_jobs(cluster)]
    return any(changed)


def roll_out(cluster: MemoryCluster) -> bool:
    """Every rollout completes at once, except of a paused Deployment; whether anything changed."""
    changed = False
    for ref, body in list(cluster.objects.items()):
        if ref.resource not in WORKLOADS or not cluster.rollouts:
            continue
        names: tuple[str, ...] = _FIGURES
        pods = body["spec"].get("replicas", 1)
        if ref.resource == DAEMON_SETS:
            names, pods = _FIGURES_OF_DAEMONS, NODES
        status = {"observedGeneration": body["metadata"]["generation"], **dict.fromkeys(names, pods)}
        template = body["spec"]["template"]
        if not body["spec"].get("paused"):
            cluster.templates[ref] = template
        elif template != cluster.templates.setdefault(ref, template):
            status["updatedReplicas"] = 0
        if body.get("status") != status:
            cluster.report(ref, status)
            changed = True
    return changed


def run_pods(cluster: MemoryCluster) -> bool:
    """Create and delete pods until each workload has as many as its status says, of the template rolled out last."""
    changed = False
    for ref, body in list(cluster.objects.items()):
        status = body.get("status") or {}
        if ref.resource in WORKLOADS and status.get("observedGeneration") == body["metadata"]["generation"]:
            changed = _pods_of(cluster, ref, body, status) or changed
    return changed


def _pods_of(cluster: MemoryCluster, ref: Ref, body: Json, status: Json) -> bool:
    template = cluster.templates.get(ref, body["spec"]["template"])
    mark = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
    prefix = f"{ref.resource.plural[0]}-{ref.name}"
    ready = status.get("readyReplicas", status.get("numberReady", 0))
    wanted = {Ref(PODS, ref.namespace, f"{prefix}-{number}") for number in range(ready)}
    existing = {one for one in cluster.objects if one.resource == PODS and one.name.rpartition("-")[0] == prefix}
    current = {one for one in wanted & existing if cluster.objects[one]["metadata"]["labels"][TEMPLATE_HASH] == mark}
    for one in existing - current:
        cluster.delete(one)
    for one in sorted(wanted - current):
        cluster.put(PODS, pod(one.name, template, mark, owner(ref, body, mark)))
    return existing != current or wanted != current


def owner(ref: Ref, body: Json, mark: str) -> Json:
    """The controller that the pods of a workload name as their owner."""
    if ref.resource == DEPLOYMENTS:
        return {"kind": "ReplicaSet", "name": f"{ref.name}-{mark}", "uid": f"uid-{mark}", "controller": True}
    return {"kind": ref.resource.kind, "name": ref.name, "uid": body["metadata"]["uid"], "controller": True}


def pod(name: str, template: Json, mark: str = "", made_by: Json = None) -> Json:
    """A running pod."""
    metadata = template["metadata"]
    state = {"state": {"running": {}}, "restartCount": 0}
    return {
        "metadata": {
            "name": name,
            "labels": {**(metadata.get("labels") or {}), TEMPLATE_HASH: mark},
            "annotations": dict(metadata.get("annotations") or {}),
            "ownerReferences": [made_by] if made_by else [],
        },
        "spec": template["spec"],
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": item["name"], **state} for item in template["spec"]["containers"]],
        },
    }


def name_endpoints(cluster: MemoryCluster) -> bool:
    """The EndpointSlices of each Service with a selector list its ready pods, those with the same ports in one; whether anything changed.

    A Service may name ports that not all of its pods have: those are in a slice without that port.
    """
    changed = False
    pods = [body for ref, body in sorted(cluster.objects.items()) if ref.resource == PODS and pod_ready(body)]
    for ref, body in list(cluster.objects.items()):
        if ref.resource == SERVICES and body["spec"].get("selector"):
            changed = _slices_of(cluster, ref, body["spec"], pods) or changed
    return changed


def _slices_of(cluster: MemoryCluster, ref: Ref, spec: Json, pods: list[Json]) -> bool:
    labels = {_SERVICE: ref.name, _MANAGED: "endpointslice-controller.k8s.io"}
    wanted = _wanted_slices(ref, spec, pods)
    changed = False
    for gone in [
        one for one in picked(cluster.objects, ENDPOINT_SLICES, ref.namespace, matching(labels)) if one not in wanted
    ]:
        cluster.delete(gone)
        changed = True
    for part, (there, endpoints) in wanted.items():
        shown = [{"name": port.get("name", ""), "port": port["port"], "protocol": port["protocol"]} for port in there]
        now = cluster.objects.get(part, {})
        if (now.get("endpoints"), now.get("ports")) != (endpoints, shown):
            metadata = {"name": part.name, "namespace": ref.namespace, "labels": labels}
            body = {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": shown}
            cluster.put(ENDPOINT_SLICES, body)
            changed = True
    return changed


def _wanted_slices(ref: Ref, spec: Json, pods: list[Json]) -> dict[Ref, tuple[list[Json], list[Json]]]:
    """The ports and endpoints of each slice of a Service: pods that lack some of its ports are in one of their own."""
    ports = spec.get("ports") or []
    wanted: dict[Ref, tuple[list[Json], list[Json]]] = {Ref(ENDPOINT_SLICES, ref.namespace, ref.name): (ports, [])}
    for place, one in enumerate(pods):
        if not spec["selector"].items() <= (one["metadata"].get("labels") or {}).items():
            continue
        there = [port for port in ports if _listens(one, port)]
        missing = [port["targetPort"] for port in ports if port not in there]
        part = Ref(ENDPOINT_SLICES, ref.namespace, "-without-".join([ref.name, *missing]))
        target = {"kind": "Pod", "name": one["metadata"]["name"], "uid": one["metadata"]["uid"]}
        endpoint = {"addresses": [f"10.0.0.{place}"], "conditions": {"ready": True}, "targetRef": target}
        wanted.setdefault(part, (there, []))[1].append(endpoint)
    return wanted


def _listens(pod: Json, port: Json) -> bool:
    """Whether a pod has the port that a Service refers to; a number needs no name."""
    spec = pod.get("spec") or {}
    sidecars = [item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
    containers = (*(spec.get("containers") or ()), *sidecars)
    known = ((one.get("name"), one.get("protocol", "TCP")) for item in containers for one in item.get("ports") or ())
    return isinstance(port["targetPort"], int) or (port["targetPort"], port["protocol"]) in known


def run_jobs(cluster: MemoryCluster) -> bool:
    """Each Job makes one step of progress; `cluster.exits` says how its pods end. Whether anything changed."""
    changed = _collect(cluster)
    for ref, body in list(cluster.objects.items()):
        if ref.resource != JOBS:
            continue
        status = _next_status(cluster, ref, body)
        if status != (body.get("status") or {}):
            cluster.report(ref, status)
            changed = True
    return changed


def _collect(cluster: MemoryCluster) -> bool:
    """Delete the pods whose Job is gone."""
    gone = [
        ref
        for ref, body in cluster.objects.items()
        if ref.resource == PODS and _JOB in body["metadata"].get("labels", {})
        if Ref(JOBS, ref.namespace, body["metadata"]["labels"][_JOB]) not in cluster.objects
    ]
    for ref in gone:
        cluster.delete(ref)
    return bool(gone)


def _next_status(cluster: MemoryCluster, ref: Ref, body: Json) -> Json:
    status = copy.deepcopy(body.get("status") or {})
    conditions: dict[str, Any] = {entry["type"]: entry for entry in status.get("conditions", [])}
    on = {name for name, entry in conditions.items() if entry["status"] == "True"}
    if on & {"Complete", "Failed"}:
        return status
    failed = status.get("failed", 0)
    pod = Ref(PODS, ref.namespace, f"{ref.name}-{failed}")
    if body["spec"].get("suspend"):
        _stop_job(cluster, pod)
        conditions["Suspended"] = {"type": "Suspended", "status": "True", "reason": "JobSuspended"}
        status |= {"active": 0, "ready": 0}
    elif pod not in cluster.objects:
        _start_job(cluster, pod, body["spec"]["template"]["spec"], ref.name)
        if "Suspended" in conditions:
            conditions["Suspended"] = {"type": "Suspended", "status": "False", "reason": "JobResumed"}
        status |= {"startTime": "2026-01-01T12:00:00Z", "active": 1, "ready": 1}
    else:
        code = cluster.exits(cluster.objects[pod]["spec"])
        if code is None:
            return status
        _end_pod(cluster, pod, code, failed + 1)
        failed += int(code != 0)
        if condition := _end_of_job(body["spec"], code, failed):
            conditions[condition["type"]] = condition
        status |= {"active": 0, "ready": 0, "succeeded": int(code == 0), "failed": failed}
    return status | {"conditions": [conditions[name] for name in sorted(conditions)]}


def _stop_job(cluster: MemoryCluster, pod: Ref) -> None:
    if pod in cluster.objects:
        cluster.delete(pod)


def _start_job(cluster: MemoryCluster, pod: Ref, spec: Json, job: str) -> None:
    running = [{"name": item["name"], "state": {"running": {}}} for item in spec["containers"]]
    cluster.put(
        PODS,
        {
            "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": {_JOB: job}},
            "spec": spec,
            "status": {"phase": "Running", "containerStatuses": running},
        },
    )


def _end_pod(cluster: MemoryCluster, pod: Ref, code: int, number: int) -> None:
    body = copy.deepcopy(cluster.objects[pod])
    at = f"2026-01-01T12:{number // 60:02}:{number % 60:02}Z"
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": at}
    if message := cluster.messages(body["spec"]):
        ended["message"] = message
    for status in body["status"]["containerStatuses"]:
        status["state"] = {"terminated": ended}
    body["status"]["phase"] = "Failed" if code else "Succeeded"
    cluster.report(pod, body["status"])


def _end_of_job(spec: Json, code: int, failed: int) -> Json:
    """The condition that a Job gets when its pod ends with that code; None while another pod follows."""
    if code == 0:
        return {"type": "Complete", "status": "True", "reason": "CompletionsReached"}
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    final = [one["onExitCodes"]["values"] for one in rules if one["action"] == "FailJob"]
    if any(code in values for values in final):
        return {"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}
    over = failed > spec.get("backoffLimit", 0)
    return {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"} if over else None
