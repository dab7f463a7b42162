"""What fields were before a step touched them, and how that is kept. Pure; used by `targets.py` and the kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cutover.fields import ABSENT, Json, Path
from cutover.ports import Ref


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the fields of one object were before a step touched them.

    Attributes:
        uid: of the object; a snapshot is never restored to another one of the same name.
        values: per field, its path and its value or ABSENT.
        facts: what else the kind wants to remember of that moment.
        ours: per field, in the same order, what the step sets it to; empty where the kind works that out by itself.
    """

    uid: str
    values: tuple[tuple[Path, Json], ...]
    facts: Mapping[str, Any]
    ours: tuple[Json, ...] = ()

    def value(self, path: Path) -> Json:
        """What this field was."""
        return next(value for known, value in self.values if known == path)


def written(snapshot: Snapshot, ref: Ref, step: str) -> Json:
    """The `data` of the ControllerRevision that keeps a snapshot."""
    fields = [{"path": list(path), **_kept(value)} for path, value in snapshot.values]
    for entry, value in zip(fields, snapshot.ours, strict=False):
        entry["ours"] = _kept(value)
    what = {"kind": ref.resource.kind, "name": ref.name, "uid": snapshot.uid}
    return {"step": step, "object": what, "fields": fields, "facts": dict(snapshot.facts)}


def _kept(value: Json) -> Json:
    return {} if value is ABSENT else {"value": value}


def read(body: Json) -> Snapshot:
    """The snapshot that a ControllerRevision keeps."""
    data = body["data"]
    values = tuple((tuple(entry["path"]), entry.get("value", ABSENT)) for entry in data["fields"])
    ours = tuple(entry["ours"].get("value", ABSENT) for entry in data["fields"] if "ours" in entry)
    return Snapshot(data["object"]["uid"], values, data["facts"], ours)
