"""The volumes of a StatefulSet that a change of its replicas deletes. Pure; used by preflight and the kind `deploy`."""

from __future__ import annotations

from typing import Final

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.ports import STATEFUL_SETS, Ref

_POLICY: Final = "spec.persistentVolumeClaimRetentionPolicy.whenScaled"


def lost_volumes(ref: Ref, place: str, before: Json, after: Json, *, irreversible: bool) -> list[Problem]:
    """What the change of a spec deletes for good: a warning where its step says that it is irreversible, else a problem."""
    policy, fewer = after.get("persistentVolumeClaimRetentionPolicy") or {}, _replicas(before) - _replicas(after)
    if ref.resource != STATEFUL_SETS or policy.get("whenScaled") != "Delete" or fewer <= 0:
        return []
    if not after.get("volumeClaimTemplates"):
        return []
    message = (
        f"{ref} goes from {_replicas(before)} to {_replicas(after)} replicas, and its {_POLICY} is Delete, so the volumes of "
        f"{fewer} pods are deleted, and no undo brings back what was in them"
    )
    if irreversible:
        return [Problem(place, message, warning=True)]
    way_out = f"set whenScaled to Retain on {ref}, or irreversible: true on this step"
    return [Problem(f"{place}.replicas", f"{message}; {way_out}")]


def _replicas(spec: Json) -> int:
    replicas: int = spec.get("replicas", 1)
    return replicas
