"""Decides which plans an event wakes: the plan itself, the owner of a target, and plans that wait for a busy target.

Called by app.py with each event of a stream, and by relist.py with deletions that no stream has reported. An event is the plain
mapping that the API server sends; Kopf is not known here, and nothing about a plan is decided: keys are added to the queue.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cutover.adapters.kubernetes import Kubernetes
from cutover.field_path import Json
from cutover.plan.status_document import saved_state
from cutover.ports import PLAN_LABEL, PLANS, Ref, Resource
from cutover.status.state import State
from cutover.status.status import ENDED


class EventRouter:
    """Turns events into keys of the queue.

    Args:
        cluster: stores the latest body of each object.
        wake: adds a plan to the queue.
        forget: drops what the driver caches for a deleted plan; takes its uid too.
    """

    def __init__(self, cluster: Kubernetes, wake: Callable[[Ref], None], forget: Callable[[Ref, str], None]) -> None:
        self._cluster, self._wake, self._forget = cluster, wake, forget
        self._plans: dict[str, Ref] = {}
        self._busy: set[Ref] = set()

    def plan(self, event: Mapping[str, Any]) -> None:
        """A plan was added, changed or deleted."""
        body, deleted = _body(event)
        ref = _ref(PLANS, body)
        status = body.get("status") or {}
        changed = self._note(ref, body, deleted=deleted)
        if deleted:
            self._plans.pop(body["metadata"]["uid"], None)
            self._forget(ref, body["metadata"]["uid"])
        else:
            self._plans[body["metadata"]["uid"]] = ref
        if deleted or saved_state(status) is not State.TARGET_BUSY:
            self._busy.discard(ref)
        else:
            self._busy.add(ref)
        # Its claims are gone, so whoever waits for a busy target in this namespace may have it now.
        if deleted or status.get("phase") in ENDED:
            for other in self._busy:
                if other.namespace == ref.namespace:
                    self._wake(other)
        if changed or deleted:
            self._wake(ref)

    def target(self, resource: Resource, event: Mapping[str, Any]) -> None:
        """A claimed object was added, changed or deleted; losing its claim label arrives as a deletion too."""
        body, deleted = _body(event)
        ref = _ref(resource, body)
        before = self._cluster.known(ref)
        if not self._note(ref, body, deleted=deleted):
            return
        # Both owners, before and after: the label may have been removed, or overwritten with another plan's uid. A plan has its
        # targets in its own namespace, and nobody of another one wakes it with a label.
        for uid in (before and before.claim, (body["metadata"].get("labels") or {}).get(PLAN_LABEL)):
            plan = self._plans.get(uid or "")
            if plan is not None and plan.namespace == ref.namespace:
                self._wake(plan)

    def _note(self, ref: Ref, body: Json, *, deleted: bool) -> bool:
        """Store what an event brings. What is not kept of it is taken away from Kopf too, which holds each body for a while."""
        news = self._cluster.note(ref, body, deleted=deleted)
        if not self._cluster.holds(ref, body):
            for part in body.keys() - {"metadata"}:
                del body[part]
        return news

    def missed(self, resource: Resource, body: Json) -> None:
        """An object is gone or no longer selected, and no stream has reported that."""
        event = {"type": "DELETED", "object": body}
        if resource == PLANS:
            self.plan(event)
        else:
            self.target(resource, event)


def _body(event: Mapping[str, Any]) -> tuple[Json, bool]:
    body: Json = event["object"]
    body["metadata"].pop("managedFields", None)
    return body, event["type"] == "DELETED"


def _ref(resource: Resource, body: Json) -> Ref:
    return Ref(resource, body["metadata"]["namespace"], body["metadata"]["name"])
