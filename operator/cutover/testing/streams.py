"""What a process keeps of the cluster in memory: decided by the cache of the operator itself; only its streams are never late."""

from __future__ import annotations

from collections.abc import Mapping

from cutover.adapters.object_cache import ObjectCache
from cutover.field_path import Json
from cutover.objects.endpoints import SERVICE_LABEL
from cutover.ports import ENDPOINT_SLICES, PLAN_LABEL, PLANS, STREAMED, Ref


class Streams:
    """The streams of one process, which begin with what is there.

    Args:
        objects: all objects of the cluster.
    """

    def __init__(self, objects: Mapping[Ref, Json]) -> None:
        self._cache, self._objects = ObjectCache(), objects
        for ref, body in objects.items():
            self.changed(ref, body)

    def changed(self, ref: Ref, body: Json) -> None:
        """An object is there, or another than before; one without our label is gone from its stream."""
        if ref.resource == PLANS or (ref.resource in STREAMED and PLAN_LABEL in (body["metadata"].get("labels") or {})):
            self._cache.note(ref, body)
        else:
            self.gone(ref)

    def gone(self, ref: Ref) -> None:
        """An object was deleted."""
        self._cache.drop(ref)

    def read(self, ref: Ref, body: Json) -> Json:
        """This process has read or written an object; a write is told by the stream first, so both are the same here."""
        return self._cache.keep(ref, body)

    def follow(self, plan: Ref, services: frozenset[str]) -> int | None:
        """As the port has it: the sum of the versions of all EndpointSlices of these Services."""
        return sum(
            int(body["metadata"]["resourceVersion"])
            for ref, body in self._objects.items()
            if (ref.resource, ref.namespace) == (ENDPOINT_SLICES, plan.namespace)
            if body["metadata"]["labels"][SERVICE_LABEL] in services
        )

    def keeps(self, ref: Ref) -> bool:
        """Whether the body of an object is kept."""
        return self._cache.get(ref) is not None
