"""Reads the status of workloads and their pods. Pure; used by the kinds and the readiness gate."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cutover.field_path import Json
from cutover.names import Selector, matching
from cutover.ports import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, Ref, Resource

_COUNTS: Final[Mapping[Resource, tuple[str, str, str, str]]] = {
    DEPLOYMENTS: ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
    STATEFUL_SETS: ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
    DAEMON_SETS: ("currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"),
}
"""Fields of a status with its total, updated, ready and available pods."""

TEMPLATE_HASH: Final = "pod-template-hash"
"""On the pods of a Deployment: the hash of their template."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The progress of a rollout.

    Attributes:
        wanted: pods that the workload should have.
        current: the controller has observed the newest generation; only then the other numbers are about it.
        total: pods of all templates.
        updated: pods of the newest template, `ready` and `available` of all templates.
        kept: pods that stay with an older template by the spec (the partition of a StatefulSet).
        by_hand: pods change only when a user deletes them (updateStrategy OnDelete).
        paused: nothing is rolled out until it is resumed.
        deadline: seconds without progress after which the controller reports a failure.
        not_progressing: the controller's reason for reporting that a rollout does not progress: this one or a former one.
        revision: of the newest template, as in the label `controller-revision-hash` of its pods; empty where unknown.
    """

    wanted: int
    current: bool
    total: int
    updated: int
    ready: int
    available: int
    kept: int = 0
    by_hand: bool = False
    paused: bool = False
    deadline: float = 600.0
    not_progressing: str = ""
    revision: str = ""

    @classmethod
    def of(cls, body: Json, resource: Resource) -> Rollout:
        """Read a workload of one of the three kinds."""
        spec, status = body["spec"], body.get("status") or {}
        total, updated, ready, available = (status.get(name, 0) for name in _COUNTS[resource])
        strategy = spec.get("updateStrategy") or {}
        wanted = status.get("desiredNumberScheduled", 0) if resource == DAEMON_SETS else spec.get("replicas", 1)
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        not_progressing = ""
        for condition in status.get("conditions") or ():
            if condition["type"] == "Progressing" and condition["status"] == "False":
                not_progressing = condition.get("reason") or "Progressing is False"
        return cls(
            wanted=wanted,
            current=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 1),
            total=total,
            updated=updated,
            ready=ready,
            available=available,
            kept=min(wanted, partition) if resource == STATEFUL_SETS else 0,
            by_hand=strategy.get("type") == "OnDelete",
            paused=bool(spec.get("paused")),
            deadline=spec.get("progressDeadlineSeconds", 600),
            not_progressing=not_progressing,
            revision=status.get("updateRevision", ""),
        )

    @property
    def complete(self) -> bool:
        """Every wanted pod runs the template that the spec has for it and is available, and no other pod exists.

        The rules of ``kubectl rollout status`` (kubectl's `polymorphichelpers/rollout_status.go`) for the three kinds, with
        `total` beside them. A StatefulSet with a partition is complete when the pods from the partition on are updated.
        """
        return self._steady and not self.outdated

    def as_before(self, total: int, available: int) -> bool:
        """As `complete`, for a workload that had no more pods than these before its template was changed."""
        enough = self.available >= min(self.wanted, available)
        return self.current and not self.older and min(self.wanted, total) <= self.total <= self.wanted and enough

    def stalled(self, elapsed: float) -> str:
        """Why the controller reports that this rollout, started so many seconds ago, does not progress; empty when it does not.

        It keeps the report about a former rollout until the newest one progresses (Recreate: until the old pods are gone; back to a
        template that it had before: until more pods have it), under the newest generation too. About this rollout it
        cannot report before the deadline; and if the former report is still there by then, this rollout has not progressed either.
        """
        return self.not_progressing if self.current and elapsed >= self.deadline else ""

    @property
    def at_rest(self) -> bool:
        """Nothing more happens by itself: it is complete, or every pod is available and OnDelete leaves the rest to users."""
        return self.complete or (self.by_hand and self._steady)

    @property
    def outdated(self) -> int:
        """Pods that must still get the newest template; 0 as long as the controller has not observed it."""
        return max(0, self.wanted - self.kept - self.updated) if self.current else 0

    @property
    def older(self) -> int:
        """Pods of another template than the newest that do not stay by the spec; terminating ones are not counted."""
        return max(0, self.total - self.updated - self.kept)

    @property
    def _steady(self) -> bool:
        return self.current and self.total == self.wanted and self.available == self.wanted

    @property
    def ready_new(self) -> int:
        """The minimum number of ready pods with the right template: while other pods exist, those may be the ready ones."""
        if not self.current:
            return 0
        right = self.updated + min(self.kept, self.total - self.updated)
        return max(0, min(right, self.ready - (self.total - right)))

    @property
    def reached(self) -> int:
        """A measure of progress: pods of the newest template plus available pods, the same ones or not."""
        return self.updated + self.available if self.current else 0

    @property
    def text(self) -> str:
        """Ready of wanted, such as ``2/3``."""
        return f"{self.ready_new}/{self.wanted}"


def surge_and_unavailable(resource: Resource, spec: Json, wanted: int) -> tuple[int, int]:
    """How many pods a rollout creates beyond the wanted ones, and how many of those may be unavailable."""
    strategy = spec.get("strategy" if resource == DEPLOYMENTS else "updateStrategy") or {}
    kind, change = strategy.get("type", "RollingUpdate"), strategy.get("rollingUpdate") or {}
    if kind == "Recreate":
        return 0, wanted
    if kind == "OnDelete":
        return 0, 1
    default = {DEPLOYMENTS: ("25%", "25%"), DAEMON_SETS: (0, 1), STATEFUL_SETS: (0, 1)}[resource]
    surge = _share(change.get("maxSurge", default[0]), wanted, up=True)
    unavailable = _share(change.get("maxUnavailable", default[1]), wanted, up=resource != DEPLOYMENTS)
    return surge, unavailable if surge or unavailable else 1


def _share(value: str | int, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = int(value.removesuffix("%")) * of / 100
    return math.ceil(share) if up else math.floor(share)


def pod_labels(spec: Json) -> Mapping[str, str]:
    """The labels of the pods of a workload with this spec."""
    labels: Mapping[str, str] = spec["template"]["metadata"].get("labels") or {}
    return labels


def may_lack(body: Json, resource: Resource) -> int:
    """How many of its pods a workload may lack for now: while it rolls out a template, what its strategy allows; otherwise none."""
    rollout = Rollout.of(body, resource)
    if rollout.current and not rollout.outdated and not rollout.older:
        return 0
    return surge_and_unavailable(resource, body["spec"], rollout.wanted)[1]


def scalers_of(ref: Ref, scalers: Iterable[Json]) -> list[Json]:
    """HorizontalPodAutoscalers that scale a workload."""
    targets = ((scaler, scaler["spec"]["scaleTargetRef"]) for scaler in scalers)
    return [
        scaler
        for scaler, target in targets
        if (target.get("kind"), target.get("name")) == (ref.resource.kind, ref.name)
    ]


def selector(body: Json) -> Selector:
    """The label selector of a workload's pods, as the API server and kubectl take it."""
    chosen = body["spec"]["selector"]
    rules = chosen.get("matchExpressions") or ()
    others = ((rule["key"], rule["operator"], rule.get("values") or ()) for rule in rules)
    return matching(chosen.get("matchLabels") or {}, *others)


def paused(ref: Ref, so: str) -> str:
    """The message: a Deployment is paused, what follows from that, and the command that resumes it."""
    return f"{ref} is paused (spec.paused: true), so {so}; run kubectl rollout resume deployment/{ref.name} -n {ref.namespace}"


def pods_to_delete(ref: Ref, body: Json, rollout: Rollout) -> str:
    """Which pods a user has to delete before a workload has its template again, and why: a message with the command."""
    left = rollout.outdated
    chosen: str = selector(body)
    why = (
        "its updateStrategy is OnDelete"
        if rollout.by_hand
        else "its controller does not replace a pod that never got ready"
    )
    if rollout.revision:
        chosen = f"{chosen},controller-revision-hash!={rollout.revision}"
        return (
            f"{left} pods of {ref} are not back yet, and {why}; delete them: "
            f"kubectl delete pods -n {ref.namespace} -l '{chosen}'"
        )
    return (
        f"{left} pods of {ref} are not back yet, and {why}; delete those of the newer template: "
        f"kubectl get pods -n {ref.namespace} -l '{chosen}' -L controller-revision-hash"
    )


def owned(pods: Iterable[Json], ref: Ref, body: Json) -> list[Json]:
    """The pods that the workload created: a CronJob or another Deployment may give its pods the same labels."""
    return [pod for pod in pods if any(_owns(owner, pod, ref, body) for owner in _owners(pod))]


def _owners(pod: Json) -> list[Json]:
    return [owner for owner in pod["metadata"].get("ownerReferences") or () if owner.get("controller")]


def _owns(owner: Json, pod: Json, ref: Ref, body: Json) -> bool:
    """Between a Deployment and its pods is a ReplicaSet, whose name consists of both."""
    if ref.resource == DEPLOYMENTS:
        template = (pod["metadata"].get("labels") or {}).get(TEMPLATE_HASH)
        return bool(owner["kind"] == "ReplicaSet" and owner["name"] == f"{ref.name}-{template}")
    return bool(owner["uid"] == body["metadata"]["uid"])


def restarted_since(pods: Sequence[Json], moment: datetime) -> int:
    """How many of the ready pods have a container that was restarted after this moment."""
    return sum(
        pod_ready(pod)
        and any(_started_again(status, moment) for status in pod.get("status", {}).get("containerStatuses", ()))
        for pod in pods
    )


def _started_again(status: Json, moment: datetime) -> bool:
    started = status.get("state", {}).get("running", {}).get("startedAt")
    return status.get("restartCount", 0) > 0 and started is not None and datetime.fromisoformat(started) > moment


def pod_ready(pod: Json) -> bool:
    """Whether a pod counts as an endpoint: Ready, and not terminating."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def fingerprint(pod: Json) -> str:
    """The same as long as the same containers run in it; empty when one does not run: it will read new values when it starts."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    if not containers or any("running" not in (container.get("state") or {}) for container in containers):
        return ""
    restarts = sum(one.get("restartCount", 0) for one in (*containers, *(status.get("initContainerStatuses") or ())))
    return hashlib.sha256(f"{pod['metadata']['uid']} {restarts}".encode()).hexdigest()[:12]


def ending(pod: Json) -> bool:
    """Whether it is terminating."""
    return "deletionTimestamp" in pod["metadata"]
