"""Sends a plan's notifications when its phase changes. Called by the driver on each status save, through the port `Cluster`.

It wraps the cluster, so only the process whose save was accepted sends them, and only once. It decides nothing about a plan.
"""

from __future__ import annotations

import logging
from typing import Any, Final, cast

from pydantic import TypeAdapter, ValidationError

from cutover.field_path import Json
from cutover.messaging import Messenger
from cutover.plan.notifications import Notification, message_of
from cutover.ports import Cluster, Ref
from cutover.status.status import Phase

log = logging.getLogger(__name__)

_PATIENCE: Final = 600.0
"""Seconds after which a notification is too old to be sent."""
_NOTIFICATIONS: Final = TypeAdapter(tuple[Notification, ...])


class _NotifyingCluster:
    """A cluster that sends notifications when a saved status has a new phase."""

    def __init__(self, cluster: Cluster, messenger: Messenger) -> None:
        self._cluster, self._messenger = cluster, messenger

    async def save_status(self, ref: Ref, resource_version: str, status: Json) -> Json:
        before = _phase(self._cluster.seen(ref))
        saved = await self._cluster.save_status(ref, resource_version, status)
        phase = _phase(saved)
        if phase not in (None, before):
            self._notify(saved, Phase(phase))
        return saved

    def _notify(self, plan: Json, phase: Phase) -> None:
        try:
            notifications = _NOTIFICATIONS.validate_python(plan["spec"].get("notifications") or ())
        except ValidationError:  # the plan is Refused or Paused because of it
            return
        for notification in notifications:
            if phase in notification.phases and self._messenger.knows(notification.provider):
                self._messenger.post(notification.provider, message_of(plan, phase), _PATIENCE)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)


def with_notifications(cluster: Cluster, messenger: Messenger) -> Cluster:
    """The same cluster, which sends notifications when a plan changes its phase."""
    return cast("Cluster", _NotifyingCluster(cluster, messenger))


def _phase(plan: Json | None) -> str | None:
    return ((plan or {}).get("status") or {}).get("phase")
