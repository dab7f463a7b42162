"""Tells people of a plan's transitions: a status that was saved with another phase than the one before it is a transition.

It stands between the driver and the API server, so the one process whose save was taken tells, and tells once.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from cutover.field_path import Json
from cutover.plan.notifications import Notification, message_of
from cutover.ports import Cluster, Messenger, Ref
from cutover.status.status import Phase

log = logging.getLogger(__name__)

_PATIENCE: Final = 600.0
"""Seconds: what is older than that is no news."""
_NOTIFICATIONS: Final = TypeAdapter(tuple[Notification, ...])


class _NotifyingCluster:
    """The API server, of whose saves people hear."""

    def __init__(self, cluster: Cluster, messenger: Messenger) -> None:
        self._cluster, self._messenger = cluster, messenger

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        before = _phase(self._cluster.seen(ref))
        saved = await self._cluster.save_status(ref, resource_version, status)
        phase = _phase(saved)
        if phase not in (None, before):
            self._tell(saved, Phase(phase))
        return saved

    def _tell(self, plan: Json, phase: Phase) -> None:
        try:
            notifications = _NOTIFICATIONS.validate_python(plan["spec"].get("notifications") or ())
        except ValidationError:  # the plan is refused, or paused, for that
            return
        for notification in notifications:
            if phase in notification.phases and self._messenger.knows(notification.provider):
                self._messenger.post(notification.provider, message_of(plan, phase), _PATIENCE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


def with_notifications(cluster: Cluster, messenger: Messenger) -> Cluster:
    """The same cluster, of which people hear when a plan comes into another phase."""
    return cast("Cluster", _NotifyingCluster(cluster, messenger))


def _phase(plan: Json | None) -> str | None:
    return ((plan or {}).get("status") or {}).get("phase")
