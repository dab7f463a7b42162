"""The part of the port `Cluster` that asks nobody: what the streams have told, and what was read or written meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cutover.adapters.object_cache import Known, ObjectCache
from cutover.field_path import Json
from cutover.ports import PLANS, Ref, Resource


class Streamed:
    """What is known of streamed objects. `Kubernetes` adds to it, and what Kopf streams."""

    def __init__(self) -> None:
        self._cache = ObjectCache()

    def note(self, ref: Ref, body: Json, *, deleted: bool = False) -> bool:
        """Take in an event of a stream; whether it is news."""
        return self._cache.note(ref, body, deleted=deleted)

    def holds(self, ref: Ref, body: Json) -> bool:
        """Whether it is this very document that is kept of an object."""
        return self._cache.holds(ref, body)

    def seen(self, ref: Ref) -> Json | None:
        """The newest body of a streamed object."""
        return self._cache.get(ref)

    def plans(self) -> Sequence[Ref]:
        """All plans that are known."""
        return self._cache.refs(PLANS)

    def phase(self, plan: Ref) -> str:
        """The phase of a plan; empty when it has none yet, or is not known."""
        known = self._cache.known(plan)
        return known.phase if known else ""

    def known(self, ref: Ref) -> Known | None:
        """What is known of an object at least, be it streamed only for somebody's label."""
        return self._cache.known(ref)

    def all_known(self, resource: Resource) -> Mapping[Ref, Known]:
        """All that is known of one kind, as of now."""
        return self._cache.of(resource)
