"""The newest body of each streamed object: what streams bring, what reads bring, and what our own writes have made.

It decides what is news and what is older than what is known, so that a stream that is behind never takes back an own write.
No request is made here. `kubernetes.py` keeps one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cutover.field_path import Json
from cutover.ports import PLAN_LABEL, PLANS, Ref, Resource


class ObjectCache:
    """Bodies by object, and the version of our own last write to each."""

    def __init__(self) -> None:
        self._bodies: dict[Ref, Json] = {}
        self._written: dict[Ref, str] = {}

    def get(self, ref: Ref) -> Json | None:
        """The newest body that is known."""
        return self._bodies.get(ref)

    def refs(self, resource: Resource) -> Sequence[Ref]:
        """All objects of one kind that are known."""
        return [ref for ref in self._bodies if ref.resource == resource]

    def of(self, resource: Resource) -> Mapping[Ref, Json]:
        """All that is known of one kind, as of now."""
        return {ref: body for ref, body in self._bodies.items() if ref.resource == resource}

    def note(self, ref: Ref, body: Json, *, deleted: bool = False) -> bool:
        """Take in an event of a stream.

        Returns:
            Whether it is news: false for the echo of our own write, and for what is older than what we know.
        """
        known = self._bodies.get(ref)
        if known is not None:
            newer = _version(body) - _version(known)
            if newer < 0:  # or of one that is gone: Kopf may tell its end after the beginning of its successor
                return False
            if not newer and not deleted and known["metadata"]["uid"] == body["metadata"]["uid"]:
                return bool(self._written.get(ref) != body["metadata"]["resourceVersion"])  # what was only read is news
        if deleted:
            self.drop(ref)
        else:
            self._bodies[ref] = body
        return True

    def keep(self, ref: Ref, body: Json, *, ours: bool = False) -> Json:
        """Remember what a read or our own write brought, when it is of a kind and a state that is streamed."""
        labels = body["metadata"].get("labels") or {}
        gone = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if not gone and (ref.resource == PLANS or PLAN_LABEL in labels):
            known = self._bodies.get(ref)
            if (
                known is None
                or _version(body) >= _version(known)
                or known["metadata"]["uid"] != body["metadata"]["uid"]
            ):
                self._bodies[ref] = body
                if ours:
                    self._written[ref] = body["metadata"]["resourceVersion"]
        else:
            self.drop(ref)
        return body

    def drop(self, ref: Ref) -> None:
        """Forget an object that is gone."""
        self._bodies.pop(ref, None)
        self._written.pop(ref, None)


def _version(body: Json) -> int:
    """Comparable as a number (Kubernetes 1.35 made that a promise; every etcd-backed server kept it before)."""
    version: Any = body["metadata"]["resourceVersion"]
    return int(version)
