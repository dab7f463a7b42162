"""Reads what workloads and their pods say of themselves. Pure; used by the kinds and the readiness gate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cutover.field_path import Json
from cutover.ports import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, Ref, Resource

_COUNTS: Final[Mapping[Resource, tuple[str, str, str, str]]] = {
    DEPLOYMENTS: ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
    STATEFUL_SETS: ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"),
    DAEMON_SETS: ("currentNumberScheduled", "updatedNumberScheduled", "numberReady", "numberAvailable"),
}
"""Where a status says its total, updated, ready and available pods."""

TEMPLATE_HASH: Final = "pod-template-hash"
"""On the pods of a Deployment: which of its templates they are of."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a workload is.

    Attributes:
        wanted: pods asked for.
        current: the controller has seen the newest generation; the other figures speak of it only then.
        total: pods of all templates.
        updated: pods of the newest template, `ready` and `available` of all templates.
        kept: pods that stay with an older template because the spec says so (the partition of a StatefulSet).
        by_hand: pods change only when somebody deletes them (updateStrategy OnDelete).
        paused: nothing is rolled out until somebody resumes it.
        deadline: seconds without progress after which the controller gives up.
        given_up: the controller's reason to say that some rollout does not progress: this one or a former one.
        revision: of the newest template, as its pods carry it in `controller-revision-hash`; empty where it is not told.
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
    given_up: str = ""
    revision: str = ""

    @classmethod
    def of(cls, body: Json, resource: Resource) -> Rollout:
        """Read a workload of one of the three kinds."""
        spec, status = body["spec"], body.get("status") or {}
        total, updated, ready, available = (status.get(name, 0) for name in _COUNTS[resource])
        strategy = spec.get("updateStrategy") or {}
        wanted = status.get("desiredNumberScheduled", 0) if resource == DAEMON_SETS else spec.get("replicas", 1)
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        given_up = ""
        for condition in status.get("conditions") or ():
            if condition["type"] == "Progressing" and condition["status"] == "False":
                given_up = condition.get("reason") or "Progressing is False"
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
            given_up=given_up,
            revision=status.get("updateRevision", ""),
        )

    @property
    def complete(self) -> bool:
        """Every wanted pod runs the template that the spec wants for it and is available, and no other pod is left.

        The rules of ``kubectl rollout status`` (kubectl's `polymorphichelpers/rollout_status.go`) for the three kinds, with
        `total` beside them. A StatefulSet with a partition is complete when the pods from the partition on are updated.
        """
        return self._steady and not self.outdated

    def as_before(self, total: int, available: int) -> bool:
        """As `complete`, of a workload that had no more pods than these before its template was changed."""
        newer = self.total - self.updated - self.kept
        enough = self.available >= min(self.wanted, available)
        return self.current and newer <= 0 and min(self.wanted, total) <= self.total <= self.wanted and enough

    def stalled(self, elapsed: float) -> str:
        """Why the controller has given up on this very rollout, which was begun so many seconds ago; empty when it has not.

        It leaves what it said of a former rollout until the newest one gets on (Recreate: until the old pods are gone; back to a
        template that it had before: until more pods are of it), under the newest generation too. What it says of this one it
        cannot say before the deadline is over; and if the other still stands by then, this one has not got on either.
        """
        return self.given_up if self.current and elapsed >= self.deadline else ""

    @property
    def at_rest(self) -> bool:
        """Nothing more happens by itself: it is complete, or every pod is available and OnDelete leaves the rest to people."""
        return self.complete or (self.by_hand and self._steady)

    @property
    def outdated(self) -> int:
        """Pods that must still get the newest template; 0 as long as the controller has not seen it."""
        return max(0, self.wanted - self.kept - self.updated) if self.current else 0

    @property
    def _steady(self) -> bool:
        return self.current and self.total == self.wanted and self.available == self.wanted

    @property
    def ready_new(self) -> int:
        """Ready pods of the template that is wanted for them, at least: while others are left they may be the ready ones."""
        if not self.current:
            return 0
        right = self.updated + min(self.kept, self.total - self.updated)
        return max(0, min(right, self.ready - (self.total - right)))

    @property
    def reached(self) -> int:
        """A measure of progress: pods of the newest template and available ones, whether or not they are the same."""
        return self.updated + self.available if self.current else 0

    @property
    def text(self) -> str:
        """Ready of wanted, such as ``2/3``."""
        return f"{self.ready_new}/{self.wanted}"


def scalers_of(ref: Ref, scalers: Iterable[Json]) -> list[Json]:
    """HorizontalPodAutoscalers that steer a workload."""
    targets = ((scaler, scaler["spec"]["scaleTargetRef"]) for scaler in scalers)
    return [
        scaler
        for scaler, target in targets
        if (target.get("kind"), target.get("name")) == (ref.resource.kind, ref.name)
    ]


def selector(body: Json) -> str:
    """The label selector of a workload's pods, as the API server and kubectl take it."""
    chosen = body["spec"]["selector"]
    parts = [f"{key}={value}" for key, value in sorted((chosen.get("matchLabels") or {}).items())]
    for rule in chosen.get("matchExpressions") or ():
        key, values = rule["key"], ",".join(rule.get("values") or ())
        words = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append(words[rule["operator"]])
    return ",".join(parts)


def paused(ref: Ref, so: str) -> str:
    """A sentence: somebody has paused a Deployment, what follows, and the command that ends it."""
    return f"{ref} is paused (spec.paused: true), so {so}; run kubectl rollout resume deployment/{ref.name} -n {ref.namespace}"


def pods_to_delete(ref: Ref, body: Json, rollout: Rollout) -> str:
    """Which pods somebody has to delete before a workload is at its template again, and why: a sentence with the command."""
    left, chosen = rollout.outdated, selector(body)
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
    """Those of the pods that the workload made: a CronJob or another Deployment may give its pods the same labels."""
    return [pod for pod in pods if any(_owns(owner, pod, ref, body) for owner in _owners(pod))]


def _owners(pod: Json) -> list[Json]:
    return [owner for owner in pod["metadata"].get("ownerReferences") or () if owner.get("controller")]


def _owns(owner: Json, pod: Json, ref: Ref, body: Json) -> bool:
    """Between a Deployment and its pods stands a ReplicaSet, whose name is made of both."""
    if ref.resource == DEPLOYMENTS:
        mark = (pod["metadata"].get("labels") or {}).get(TEMPLATE_HASH)
        return bool(owner["kind"] == "ReplicaSet" and owner["name"] == f"{ref.name}-{mark}")
    return bool(owner["uid"] == body["metadata"]["uid"])


def restarted_since(pods: Sequence[Json], moment: datetime) -> int:
    """How many of the ready pods have a container that was started again after this moment."""
    return sum(
        pod_ready(pod)
        and any(_started_again(status, moment) for status in pod.get("status", {}).get("containerStatuses", ()))
        for pod in pods
    )


def _started_again(status: Json, moment: datetime) -> bool:
    started = status.get("state", {}).get("running", {}).get("startedAt")
    return status.get("restartCount", 0) > 0 and started is not None and datetime.fromisoformat(started) > moment


def pod_ready(pod: Json) -> bool:
    """Whether a pod counts as an endpoint: Ready, and not on its way out."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = pod.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def fingerprint(pod: Json) -> str:
    """The same as long as the same containers run in it; empty when one does not run: it will read what stands by then."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or ()
    if not containers or any("running" not in (container.get("state") or {}) for container in containers):
        return ""
    restarts = sum(one.get("restartCount", 0) for one in (*containers, *(status.get("initContainerStatuses") or ())))
    return hashlib.sha256(f"{pod['metadata']['uid']} {restarts}".encode()).hexdigest()[:12]


def ending(pod: Json) -> bool:
    """Whether it is on its way out."""
    return "deletionTimestamp" in pod["metadata"]
