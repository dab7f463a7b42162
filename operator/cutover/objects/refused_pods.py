"""Why pods are not even created: what the API server, or an admission check, answered to the controller that would create them.

Used by the kinds that bring pods. It is the text of the server, as of a write of our own that is refused, and never that of a pod.
A Deployment has it in its status; of the other workloads and of Jobs only events tell it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cutover.errors import Denied
from cutover.field_path import Json
from cutover.objects.pods import word
from cutover.ports import Cluster, Ref

_REASON: Final = "FailedCreate"
_LONGEST: Final = 400
_SKEW: Final = timedelta(seconds=60)
"""By how much the clocks of two servers may differ."""


def refused_by_status(body: Json) -> str:
    """Why pods of a Deployment cannot be created, as its controller reports it; empty when they can."""
    for condition in (body.get("status") or {}).get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return _told(condition.get("reason"), condition.get("message"))
    return ""


async def refused_by_events(cluster: Cluster, ref: Ref, uid: str, since: datetime) -> str:
    """Why pods of a workload or a Job could not be created since then, by its newest event; empty when none tells.

    A controller that cannot create a pod tries again less and less often, and repeats the event. Without the permission to list events
    nothing is told, and nothing else changes.
    """
    try:
        events = await cluster.events_of(ref, uid, _REASON)
    except Denied:
        return ""
    told = [(at, event) for event in events if (at := _last(event)) and at >= since - _SKEW]
    if not told:
        return ""
    _, newest = max(told, key=lambda one: one[0])
    return _told(newest.get("reason"), newest.get("note"))


def _last(event: Json) -> datetime | None:
    moment = (event.get("series") or {}).get("lastObservedTime") or event.get("deprecatedLastTimestamp")
    moment = moment or event.get("eventTime")
    return datetime.fromisoformat(moment) if moment else None


def _told(reason: Json, text: Json) -> str:
    """In one line, cut where it is long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text or "")).split())
    return (
        f"pods cannot be created ({word(reason)}): {line[:_LONGEST]}"
        if line
        else f"pods cannot be created ({word(reason)})"
    )
