"""Pods of Jobs: whether they still run, how they ended; pods of any kind: why they do not start. No text from a pod or a registry is shown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cutover.field_path import Json
from cutover.names import matching
from cutover.ports import PODS, Cluster

_WORD: Final = re.compile(r"[A-Za-z]{1,64}")
_MISSING: Final = re.compile(
    r"(?P<kind>secret|configmap) \"(?P<name>[a-z0-9.-]{1,253})\" not found"
    r"|couldn't find key (?P<key>[-._a-zA-Z0-9]{1,253}) in (?P<of>Secret|ConfigMap) [a-z0-9-]{1,63}/(?P<where>[a-z0-9.-]{1,253})"
)
_SILENCE: Final = timedelta(seconds=30)
_STARTING: Final = ("ContainerCreating", "PodInitializing")


def word(text: Any) -> str:
    """A reason as Kubernetes writes them, or Unknown: never free text."""
    return text if isinstance(text, str) and _WORD.fullmatch(text) else "Unknown"


async def pods_of(cluster: Cluster, namespace: str, name: str) -> Sequence[Json]:
    """The pods of a Job, also when the Job itself was deleted."""
    return await cluster.list(PODS, namespace, matching({"batch.kubernetes.io/job-name": name}))


def unfinished(pods: Sequence[Json]) -> list[str]:
    """Names of pods that may still do something."""
    return [
        pod["metadata"]["name"] for pod in pods if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed")
    ]


@dataclass(frozen=True, slots=True)
class Exit:
    """How the last failed container ended; `code` is None when no container reports one."""

    code: int | None
    message: str


def exit_of(pods: Sequence[Json]) -> Exit:
    """The exit code of a failed Job: that of the container that failed last. Sidecars end with their pod, so they do not count."""
    ends = [
        (str(ended.get("finishedAt", "")), int(ended["exitCode"]), status["name"], word(ended.get("reason")))
        for pod in pods
        for status in _statuses(pod)
        if status["name"] not in _sidecars(pod)
        for ended in (status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated"),)
        if ended and ended.get("exitCode")
    ]
    if ends:
        _, code, name, reason = max(ends)
        return Exit(code, f"container {name} exited with code {code} ({reason})")
    reasons = sorted({word(pod["status"]["reason"]) for pod in pods if pod.get("status", {}).get("reason")})
    return Exit(None, f"its pods ended with {', '.join(reasons)}" if reasons else "no container reports an exit code")


def _statuses(pod: Json) -> list[Json]:
    status = pod.get("status") or {}
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _sidecars(pod: Json) -> set[str]:
    return {item["name"] for item in pod["spec"].get("initContainers") or () if item.get("restartPolicy") == "Always"}


def waits_for(pods: Sequence[Json], namespace: str, now: datetime | None = None) -> str:
    """Why pods do not run yet, by the scheduler's and the kubelet's reason; empty when they run.

    Args:
        pods: the pods.
        namespace: of them.
        now: to tell which nodes seem not to answer, which is worth it where pods stay on their nodes.
    """
    return next((why for pod in pods if (why := _waits_for(pod, namespace, now))), "")


def silent_node(pod: Json, now: datetime) -> str:
    """The node of a pod, where that node seems to answer no longer; else empty.

    Told by the pod alone, as the operator may not read nodes: nobody has taken it on, or confirms its end, for half a minute; or it is not
    ready though each of its containers is, which only the node controller writes.
    """
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    node = str(spec.get("nodeName") or "")
    if not node:
        return ""
    moments = [metadata.get("deletionTimestamp")]  # with the grace period in it
    moments += [metadata.get("creationTimestamp")] if "startTime" not in status else []
    late = any(now - datetime.fromisoformat(moment) > _SILENCE for moment in moments if moment)
    ready = next((one["status"] for one in status.get("conditions") or () if one["type"] == "Ready"), "")
    containers = status.get("containerStatuses") or ()
    marked = ready != "True" and bool(containers) and all(one.get("ready") for one in containers)
    return node if late or (ready and marked and not spec.get("readinessGates")) else ""


def outlived(pods: Sequence[Json]) -> str:
    """Which container has ended while another one runs on, and so keeps the pod of a Job; empty when none has.

    A container that will be started again is neither: it waits.
    """
    for pod in pods:
        states = {
            one["name"]: one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or ()
        }
        ended = {name: state["terminated"].get("exitCode") for name, state in states.items() if "terminated" in state}
        running = [name for name, state in states.items() if "running" in state]
        if ended and running and "deletionTimestamp" not in pod["metadata"]:
            (name, code), where = next(iter(ended.items())), pod["metadata"]["name"]
            return f"container {name} of pod {where} has ended with code {code}, but {running[0]} still runs and keeps the pod"
    return ""


def _waits_for(pod: Json, namespace: str, now: datetime | None) -> str:
    name = pod["metadata"]["name"]
    if now is not None and (node := silent_node(pod, now)):
        return f"pod {name} waits for node {node}, which seems not to answer; kubectl describe node {node}"
    scheduled: Json = next(
        (c for c in pod.get("status", {}).get("conditions") or () if c["type"] == "PodScheduled"), {}
    )
    if scheduled.get("status") == "False":
        return f"pod {name} cannot be scheduled ({word(scheduled.get('reason'))}); kubectl describe pod -n {namespace} {name}"
    images = {item["name"]: item.get("image", "") for item in pod["spec"].get("containers") or ()}
    images |= {item["name"]: item.get("image", "") for item in pod["spec"].get("initContainers") or ()}
    for status in _statuses(pod):
        if what := _not_started(status.get("state", {}).get("waiting"), images.get(status["name"], "")):
            return f"container {status['name']} of pod {name} does not start: {what}"
    if any("waiting" in status.get("state", {}) for status in _statuses(pod)):
        return f"pod {name} is starting; if that takes long, kubectl describe pod -n {namespace} {name}"
    return ""


def _not_started(waiting: Json, image: str) -> str:
    """Why a container waits: the kubelet's reason, and the missing object or image; empty when it is only starting."""
    if not waiting or (reason := word(waiting.get("reason"))) in _STARTING:
        return ""
    what = _missing(str(waiting.get("message", ""))) or (f"image {image}" if "Image" in reason else "")
    return f"{reason}{f', {what}' if what else ''}"


def _missing(message: str) -> str:
    """Which Secret or ConfigMap the kubelet did not find: names only, matched by the form of its message."""
    found = _MISSING.search(message)
    if found is None:
        return ""
    if found["key"]:
        return f"{found['of']} {found['where']} has no key {found['key']}"
    return f"there is no {'Secret' if found['kind'] == 'secret' else 'ConfigMap'} {found['name']}"
