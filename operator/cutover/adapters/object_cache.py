"""The newest body of each streamed object: what streams bring, what reads bring, and what our own writes have made.

It decides what is news and what is older than what is known, so that a stream that is behind never takes back an own write.
It also decides what is worth its memory, for anybody may put our label on anything, and have a plan read it: of an object the
body is kept while an active plan of its namespace claims it, from when this process has read or written it; of all others
only who claims them, and `get` has no body, so that who needs one reads it. Plans that have ended are kept compressed. No
request is made here. `kubernetes.py` keeps one.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Json
from cutover.ports import PLAN_LABEL, PLANS, Ref, Resource
from cutover.status.status import ACTIVE, ENDED

_LATE_ANSWERS: Final = 1_000
"""Of how many objects it is remembered when they ended: far more than requests can be under way."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one object at least.

    Attributes:
        version: its resourceVersion. Comparable as a number (Kubernetes 1.35 made that a promise; every etcd-backed server
            kept it before).
        claim: uid of the plan in the label of its claim; None without that label.
        phase: of a plan; empty for all else.
    """

    uid: str
    version: int
    claim: str | None
    phase: str

    @classmethod
    def of(cls, ref: Ref, body: Json) -> Known:
        """What a body says."""
        metadata = body["metadata"]
        claim = (metadata.get("labels") or {}).get(PLAN_LABEL)
        phase = (body.get("status") or {}).get("phase", "") if ref.resource == PLANS else ""
        return cls(metadata["uid"], int(metadata["resourceVersion"]), claim, phase)

    def body(self, ref: Ref) -> Json:
        """A body that says the same, and nothing else."""
        metadata = {"namespace": ref.namespace, "name": ref.name, "uid": self.uid, "resourceVersion": str(self.version)}
        labels = {} if self.claim is None else {PLAN_LABEL: self.claim}
        return {"metadata": {**metadata, "labels": labels}, "status": {"phase": self.phase}}


class ObjectCache:
    """Bodies by object, and the version of our own last write to each."""

    def __init__(self) -> None:
        self._known: dict[Ref, Known] = {}
        self._bodies: dict[Ref, Json] = {}
        self._packed: dict[Ref, bytes] = {}
        self._written: dict[Ref, int] = {}
        self._gone: dict[Ref, int] = {}  # the version at which a stream has told the end of an object, or of its claim
        self._active: dict[str, str] = {}  # namespace by uid, of each active plan

    def get(self, ref: Ref) -> Json | None:
        """The newest body that is known; None also where none is kept: it may be there, and is to be read."""
        packed = self._packed.get(ref)
        return self._bodies.get(ref) if packed is None else json.loads(zlib.decompress(packed))

    def holds(self, ref: Ref, body: Json) -> bool:
        """Whether it is this very document that is kept of an object."""
        return self._bodies.get(ref) is body

    def known(self, ref: Ref) -> Known | None:
        """What is known of an object at least."""
        return self._known.get(ref)

    def refs(self, resource: Resource) -> Sequence[Ref]:
        """All objects of one kind that are known."""
        return [ref for ref in self._known if ref.resource == resource]

    def of(self, resource: Resource) -> Mapping[Ref, Known]:
        """All that is known of one kind, as of now."""
        return {ref: known for ref, known in self._known.items() if ref.resource == resource}

    def note(self, ref: Ref, body: Json, *, deleted: bool = False) -> bool:
        """Take in an event of a stream.

        Returns:
            Whether it is news: false for the echo of our own write, and for what is older than what we know.
        """
        known, new = self._known.get(ref), Known.of(ref, body)
        if known is not None:
            newer = new.version - known.version
            if newer < 0:  # or of one that is gone: Kopf may tell its end after the beginning of its successor
                return False
            if not newer and not deleted and known.uid == new.uid:
                return self._written.get(ref) != new.version  # what was only read is news
        if deleted:
            self.drop(ref)
            self._gone[ref] = new.version
            if len(self._gone) > _LATE_ANSWERS:
                del self._gone[next(iter(self._gone))]
        else:
            self._store(ref, new, body if ref.resource == PLANS or ref in self._bodies else None)
        return True

    def keep(self, ref: Ref, body: Json, *, ours: bool = False) -> Json:
        """Remember what a read or our own write brought, when it is of a kind and a state that is streamed."""
        new = Known.of(ref, body)
        gone = "deletionTimestamp" in body["metadata"] and not body["metadata"].get("finalizers")
        if not gone and (ref.resource == PLANS or new.claim is not None):
            known = self._known.get(ref)
            if known is None and new.version < self._gone.get(ref, 0):
                return body  # the answer came after the event; kept, it would stand for ever, as no other event follows
            if known is None or new.version >= known.version or known.uid != new.uid:
                self._store(ref, new, body)
                if ours:
                    self._written[ref] = new.version
        else:
            self.drop(ref)
        return body

    def _store(self, ref: Ref, known: Known, body: Json | None) -> None:
        if body is not None and "managedFields" in body["metadata"]:
            # Often half of it; who wants them reads the object.
            metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
            body = {**body, "metadata": metadata}
        self._follow(ref, known)
        self._known[ref] = known
        self._bodies.pop(ref, None)
        self._packed.pop(ref, None)
        if known.phase in ENDED:
            self._packed[ref] = zlib.compress(json.dumps(body).encode(), level=1)
        elif body is not None and (ref.resource == PLANS or self._active.get(known.claim or "") == ref.namespace):
            self._bodies[ref] = body

    def drop(self, ref: Ref) -> None:
        """Forget an object that is gone."""
        self._follow(ref, None)
        for remembered in (self._known, self._bodies, self._packed, self._written):
            remembered.pop(ref, None)

    def _follow(self, ref: Ref, new: Known | None) -> None:
        """Note which plan is active by what becomes of `ref`; of one that is so no longer, no body of a target is kept.

        The start of a run is saved before its first claim, and its end after the last release, so it has its bodies while
        it works. Where it is otherwise, as after an abandonment, they are read.
        """
        old = self._known.get(ref)
        if old is not None and old.phase in ACTIVE and not (new and new.uid == old.uid and new.phase in ACTIVE):
            self._active.pop(old.uid, None)
            for one in [one for one in self._bodies if one.resource != PLANS and self._known[one].claim == old.uid]:
                del self._bodies[one]
        if new is not None and new.phase in ACTIVE:
            self._active[new.uid] = ref.namespace
