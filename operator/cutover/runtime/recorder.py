"""Publishes events (events.k8s.io/v1) about plans, one a transition. Never delays a plan: they are sent in the background."""

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
"""Bytes the API server takes as `note` (Kubernetes API, events.k8s.io/v1)."""
_GONE_TO: Final = "default"
"""Where an event about a Namespace stands, which takes those inside it along when it goes."""
_ROOM: Final = 4096
_PAUSES: Final = (1.0, 2.0, 5.0, 10.0)
"""Seconds before an event that got no answer is sent again; the server may ask for more."""
_SENDERS: Final = 4
"""Events under way at once. Each says its own time, so that their order does not matter."""


class EventRecorder:
    """The port `Recorder`.

    Args:
        send: creates an event in a namespace.
        instance: name of this process.
        told: hears of every notice.
        dropped: hears of every event that could not be published.
        pauses: seconds between the tries to send an event that gets no answer.
    """

    def __init__(
        self,
        send: Callable[[str, Json], Awaitable[None]],
        instance: str,
        told: Callable[[Notice], None],
        dropped: Callable[[], None],
        pauses: Sequence[float] = _PAUSES,
    ) -> None:
        self._send, self._instance, self._told, self._dropped = send, instance, told, dropped
        self._pauses = pauses
        self._waiting: asyncio.Queue[Json] = asyncio.Queue(_ROOM)
        self._cut_off: list[Json] = []

    def record(self, plan: Json, notice: Notice) -> None:
        """Publish one event, and write it to the log."""
        metadata = plan["metadata"]
        level = logging.WARNING if notice.warning else logging.INFO
        where = {"namespace": metadata["namespace"], "plan": metadata["name"], "reason": notice.reason}
        log.log(level, notice.message, extra=where)
        self._told(notice)
        event = self._event(metadata, notice)
        try:
            self._waiting.put_nowait(_about_namespace(event) if notice.on_namespace else event)
        except asyncio.QueueFull:
            log.warning("an event was dropped: too many are waiting", extra=where)
            self._dropped()

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
        """Send until cancelled; an event that cannot be sent is dropped, the log has it."""
        async with asyncio.TaskGroup() as group:
            for _ in range(_SENDERS):
                group.create_task(self._send_all())

    async def _send_all(self) -> None:
        while True:
            event = await self._waiting.get()
            try:
                await self._deliver_at_last(event)
            except asyncio.CancelledError:  # the process ends, and nobody knows whether the event was taken
                self._cut_off.append(event)
                raise
            except OutsideError as error:
                log.warning("an event could not be sent", extra={"reason": event["reason"], "why": str(error)})
                self._dropped()

    async def _deliver_at_last(self, event: Json) -> None:
        """Send it again where there was no answer; by its name it cannot come twice."""
        with suppress(Conflict):  # it had come
            for pause in self._pauses:
                try:
                    await self._deliver(event)
                except Unavailable as error:
                    await asyncio.sleep(max(pause, error.retry_after))
                else:
                    return
            await self._deliver(event)

    async def _deliver(self, event: Json) -> None:
        """A namespace that is being deleted takes no new object, and says so by 403."""
        try:
            await self._send(event["metadata"]["namespace"], event)
        except Denied:
            if event["metadata"]["namespace"] == _GONE_TO:
                raise
            await self._send(_GONE_TO, _about_namespace(event))

    async def flush(self) -> None:
        """Send what is waiting, at the end of the process, and once more what was under way: by its name it cannot come twice."""
        while self._cut_off or not self._waiting.empty():
            try:
                with suppress(Conflict):  # it has come
                    await self._deliver(self._cut_off.pop() if self._cut_off else self._waiting.get_nowait())
            except OutsideError:
                return


def _about_namespace(event: Json) -> Json:
    """The event of a plan, said of its namespace: there it can be read when both are gone."""
    plan = event["regarding"]
    return event | {
        "metadata": event["metadata"] | {"namespace": _GONE_TO},
        "regarding": {"apiVersion": "v1", "kind": "Namespace", "name": plan["namespace"]},
        "note": _cut(f"MigrationPlan {plan['name']}: {event['note']}"),
    }


def _cut(note: str) -> str:
    return note.encode()[:_LONGEST_NOTE].decode(errors="ignore")


def _regarding(metadata: Json) -> Json:
    what = {"apiVersion": PLANS.api_version, "kind": PLANS.kind}
    return what | {name: metadata[name] for name in ("namespace", "name", "uid")}
