"""Finds objects that were deleted, or lost their claim, while a watch had a gap: a list shows what exists, not what is gone.

Kopf lists a kind again when its watch expired at a version that the API server no longer has. What is known of that kind is then
compared with one read of names. Without such a gap it costs no request. Called by app.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cutover.adapters.http_trace import TracedRequest
from cutover.adapters.kubernetes import Kubernetes
from cutover.field_path import Json
from cutover.ports import PLANS, STREAMED, Resource
from cutover.runtime.queue import Queue, Urgency

_OK: Final = 200
_KINDS: Final = {f"{resource.plural}.{resource.group}".removesuffix("."): resource for resource in (PLANS, *STREAMED)}


class RelistCheck:
    """Reports deletions that no stream has reported.

    Args:
        cluster: what is known, and what exists.
        namespaces: those that are watched; empty for all.
        deleted: called with what is known of an object that is gone or no longer selected.
    """

    def __init__(
        self, cluster: Kubernetes, namespaces: Sequence[str], deleted: Callable[[Resource, Json], None]
    ) -> None:
        self._cluster, self._namespaces, self._deleted = cluster, namespaces or ("",), deleted
        self._queue: Queue[Resource] = Queue(self.compare, places=dict.fromkeys(Urgency, 1))

    def request_ended(self, request: TracedRequest) -> None:
        """A request of Kopf has ended. At the first list of a kind nothing is known of it, so nothing can have been missed."""
        resource = _KINDS.get(request.resource)
        if request.verb != "list" or request.code != _OK or request.next_page or resource is None:
            return
        if self._cluster.all_known(resource):
            self._queue.add(resource)

    async def run(self) -> None:
        """Compare after each list, until cancelled; a failed read is retried with backoff."""
        await self._queue.run()

    async def compare(self, resource: Resource) -> None:
        """Compare once. An object that changes during the comparison is left to its stream."""
        # What is known is copied before the read: an object created in between must not look deleted.
        known = self._cluster.all_known(resource)
        if not known:
            return
        existing = set().union(*[await self._cluster.there(resource, namespace) for namespace in self._namespaces])
        for ref, before in known.items():
            if ref not in existing and self._cluster.known(ref) == before:
                self._deleted(resource, before.body(ref))
