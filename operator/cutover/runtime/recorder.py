"""Publishes events (events.k8s.io/v1) about plans, one per transition. The port `Recorder`, called by the driver.

Events are sent in the background and never delay a plan; one that cannot be sent is in the log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

from cutover.errors import Conflict, Denied, OutsideError, Unavailable
from cutover.field_path import Json
from cutover.ports import GROUP, PLANS
from cutover.saga.turn import Notice

log = logging.getLogger(__name__)

_LONGEST_NOTE: Final = 1024
"""Bytes that the API server accepts as `note` (Kubernetes API, events.k8s.io/v1)."""
_FALLBACK_NAMESPACE: Final = "default"
"""Where events about a Namespace live: those inside it are deleted with it."""
_QUEUE_SIZE: Final = 4096
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds before an event that got no answer is sent again; the server may ask for longer."""
_SENDERS: Final = 4
"""Events sent at once. Each carries its own time, so their order does not matter."""


class EventRecorder:
    """The port `Recorder`.

    Args:
        send: creates an event in a namespace.
        instance: name of this process.
        on_notice: called for every notice.
        on_dropped: called for every event that could not be published.
        pauses: seconds between the attempts to send an event that gets no answer.
    """

    def __init__(
        self,
        send: Callable[[str, Json], Awaitable[None]],
        instance: str,
        on_notice: Callable[[Notice], None],
        on_dropped: Callable[[], None],
        pauses: Sequence[float] = _PAUSES,
    ) -> None:
        self._send, self._instance = send, instance
        self._on_notice, self._on_dropped = on_notice, on_dropped
        self._pauses = pauses
        self._waiting: asyncio.Queue[Json] = asyncio.Queue(_QUEUE_SIZE)
        self._interrupted: list[Json] = []

    def record(self, plan: Json, notice: Notice) -> None:
        """Log a notice, and queue its event."""
        metadata = plan["metadata"]
        level = logging.WARNING if notice.warning else logging.INFO
        where = {"namespace": metadata["namespace"], "plan": metadata["name"], "reason": notice.reason}
        log.log(level, notice.message, extra=where)
        self._on_notice(notice)
        event = self._event(metadata, notice)
        try:
            self._waiting.put_nowait(_about_namespace(event) if notice.on_namespace else event)
        except asyncio.QueueFull:
            log.warning("an event was dropped: too many are queued", extra=where)
            self._on_dropped()

    def _event(self, metadata: Json, notice: Notice) -> Json:
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": metadata["namespace"],
            },
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": GROUP,
            "reportingInstance": self._instance,
            "type": "Warning" if notice.warning else "Normal",
            "reason": notice.reason[:128],
            "action": notice.reason[:128],
            "regarding": _regarding(metadata),
            "note": _cut(notice.message),
        }

    async def run(self) -> None:
        """Send until cancelled; an event that cannot be sent is dropped, and stays in the log."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(self._send_all())

    async def _send_all(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._deliver_with_retries(event)
            except asyncio.CancelledError:  # at shutdown: whether the event was accepted is unknown
                self._interrupted.append(event)
                raise
            except OutsideError as error:
                log.warning("an event could not be sent", extra={"reason": event["reason"], "why": str(error)})
                self._on_dropped()

    async def _deliver_with_retries(self, event: Json) -> None:
        """Send an event, again where there was no answer; its name keeps it from being created twice."""
        with suppress(Conflict):  # an earlier attempt has created it
            for pause in self._pauses:
                try:
                    await self._deliver(event)
                except Unavailable as error:
                    await asyncio.sleep(max(pause, error.retry_after))
                else:
                    return
            await self._deliver(event)

    async def _deliver(self, event: Json) -> None:
        """Send it once; about the namespace instead when that is being deleted, which the server reports as 403."""
        try:
            await self._send(event["metadata"]["namespace"], event)
        except Denied:
            if event["metadata"]["namespace"] == _FALLBACK_NAMESPACE:
                raise
            await self._send(_FALLBACK_NAMESPACE, _about_namespace(event))

    async def flush(self) -> None:
        """At shutdown, send what was interrupted and what is queued; its name keeps an event from being created twice."""
        while self._interrupted or not self._waiting.empty():
            try:
                with suppress(Conflict):  # it was already created
                    await self._deliver(self._interrupted.pop() if self._interrupted else self._waiting.get_nowait())
            except OutsideError:
                return


def _about_namespace(event: Json) -> Json:
    """The same event, about the namespace of its plan: it can be read when both are gone."""
    plan = event["regarding"]
    return event | {
        "metadata": event["metadata"] | {"namespace": _FALLBACK_NAMESPACE},
        "regarding": {"apiVersion": "v1", "kind": "Namespace", "name": plan["namespace"]},
        "note": _cut(f"MigrationPlan {plan['name']}: {event['note']}"),
    }


def _cut(note: str) -> str:
    return note.encode()[:_LONGEST_NOTE].decode(errors="ignore")


def _regarding(metadata: Json) -> Json:
    what = {"apiVersion": PLANS.api_version, "kind": PLANS.kind}
    return what | {name: metadata[name] for name in ("namespace", "name", "uid")}
