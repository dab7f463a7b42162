"""Reads what a Deployment and its pods say of themselves. Pure; used by the `deploy` kind, traffic and the readiness gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cutover.fields import Json


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a Deployment is.

    Attributes:
        wanted: replicas asked for.
        current: the controller has seen the newest generation; the other figures speak of it only then.
        updated: pods of the newest template, `ready` and `available` of all templates.
        total: pods of all templates.
        stalled: why the controller has given up making progress; empty when it has not.
    """

    wanted: int
    current: bool
    total: int
    updated: int
    ready: int
    available: int
    stalled: str = ""

    @classmethod
    def of(cls, body: Json) -> Rollout:
        """Read a Deployment."""
        status = body.get("status", {})
        stalled = ""
        for condition in status.get("conditions", ()):
            if condition["type"] == "Progressing" and condition["status"] == "False":
                stalled = condition.get("reason") or "Progressing is False"
        return cls(
            wanted=body["spec"].get("replicas", 1),
            current=status.get("observedGeneration", 0) >= body["metadata"].get("generation", 1),
            total=status.get("replicas", 0),
            updated=status.get("updatedReplicas", 0),
            ready=status.get("readyReplicas", 0),
            available=status.get("availableReplicas", 0),
            stalled=stalled,
        )

    @property
    def complete(self) -> bool:
        """Every wanted pod runs the newest template and is available, and no other pod is left.

        The rule of ``kubectl rollout status`` (kubectl's deployment status viewer), with `total` beside it.
        """
        return (
            self.current and self.updated == self.wanted and self.total == self.wanted and self.available == self.wanted
        )

    @property
    def ready_new(self) -> int:
        """Ready pods of the newest template, at least: while old pods are left they may be the ready ones."""
        if not self.current:
            return 0
        return max(0, min(self.updated, self.ready - (self.total - self.updated)))

    @property
    def text(self) -> str:
        """Ready of wanted, such as ``2/3``."""
        return f"{self.ready_new}/{self.wanted}"


def restarted_since(pods: Sequence[Json], moment: datetime) -> int:
    """How many pods have a container that was started again after this moment."""
    return sum(
        any(_started_again(status, moment) for status in pod.get("status", {}).get("containerStatuses", ()))
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
