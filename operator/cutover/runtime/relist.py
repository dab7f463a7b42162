"""Finds what was deleted, or lost our label, while a stream had a gap: a list says what is there, and not what is gone.

Kopf lists a kind anew when its stream broke off at a version that the API server no longer has. Whatever we know of that kind
is then compared with what is there, by one read of names and nothing else; in quiet times there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from cutover.adapters.http_trace import TracedRequest
from cutover.adapters.kubernetes import Kubernetes
from cutover.field_path import Json
from cutover.ports import PLANS, STREAMED, Resource
from cutover.runtime.queue import Queue

_OK: Final = 200
_KINDS: Final = {f"{resource.plural}.{resource.group}".removesuffix("."): resource for resource in (PLANS, *STREAMED)}


class RelistCheck:
    """Tells of what no stream has told.

    Args:
        cluster: what is known, and what is there.
        namespaces: those that are streamed; none for all.
        deleted: takes the last body known of an object that is gone, or not streamed any more.
    """

    def __init__(
        self, cluster: Kubernetes, namespaces: Sequence[str], deleted: Callable[[Resource, Json], None]
    ) -> None:
        self._cluster, self._namespaces, self._deleted = cluster, namespaces or ("",), deleted
        self._queue: Queue[Resource] = Queue(self.look, workers=1, of_arrivals=0)

    def listed(self, answer: TracedRequest) -> None:
        """A request of Kopf is over. Before the first list of a kind nothing is known that could have been missed."""
        resource = _KINDS.get(answer.resource)
        if answer.verb != "list" or answer.code != _OK or answer.next_page or resource is None:
            return
        if self._cluster.known(resource):
            self._queue.add(resource)

    async def run(self) -> None:
        """Look after each list, until cancelled; without an answer again a while later."""
        await self._queue.run()

    async def look(self, resource: Resource) -> None:
        """Compare once. What has changed since the comparison began is left to its stream."""
        known = self._cluster.known(resource)
        if not known:
            return
        there = set().union(*[await self._cluster.there(resource, namespace) for namespace in self._namespaces])
        for ref, body in known.items():
            if ref not in there and self._cluster.seen(ref) is body:
                self._deleted(resource, body)
