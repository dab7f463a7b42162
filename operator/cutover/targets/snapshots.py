"""Snapshots: what fields were before a step wrote them, stored as a ControllerRevision.

Taken and read by `targets.py`, deleted and given an owner by the commands of the engine and its sweep.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from cutover.errors import Conflict, Denied, NotFound, Rejected, Superseded
from cutover.field_path import ABSENT, Json, Operation, Path, readable, same_version
from cutover.go_json import as_go_writes
from cutover.names import matching
from cutover.ports import PLAN_LABEL, PLANS, SNAPSHOTS, Cluster, Ref
from cutover.status.status import ACTIVE

RUN_LABEL: Final = "cutover.dev/run"
LARGEST: Final = 1_500_000
"""Bytes of a snapshot, at most: etcd takes requests of 1.5 MiB, and the rest of the object and of the request need some of that."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the fields of one object were before a step wrote them.

    Attributes:
        uid: of the object; a snapshot is never restored to another one of the same name.
        values: per field, its path and its value or ABSENT.
        facts: what else the kind needs to know of that moment.
        ours: per field, in the same order, what the step sets it to; empty where the kind computes it from its spec.
        owners: who owned the fields (`ownership.py`); empty where that is not known, as in a snapshot of a former release.
        version: of the ControllerRevision that stores it, when this process created or read it.
    """

    uid: str
    values: tuple[tuple[Path, Json], ...]
    facts: Mapping[str, Any]
    ours: tuple[Json, ...] = ()
    owners: tuple[Json, ...] = ()
    version: str = field(default="", compare=False)

    def value(self, path: Path) -> Json:
        """What a field was."""
        return next(value for known, value in self.values if known == path)


def written(snapshot: Snapshot, ref: Ref, step: str) -> Json:
    """The `data` of the ControllerRevision that stores a snapshot."""
    fields = [{"path": list(path), **_stored(value)} for path, value in snapshot.values]
    for entry, value in zip(fields, snapshot.ours, strict=False):
        entry["ours"] = _stored(value)
    what = {"kind": ref.resource.kind, "name": ref.name, "uid": snapshot.uid}
    data = {"step": step, "object": what, "fields": fields, "facts": dict(snapshot.facts)}
    # The values come first: they are what an undo cannot do without.
    with_owners = {**data, "owners": list(snapshot.owners)}
    return with_owners if snapshot.owners and _size(with_owners) <= LARGEST else data


def too_large(ref: Ref, fields: Iterable[tuple[Path, Json, Json]]) -> str:
    """Why the values of some fields before and after a step do not fit into a snapshot; empty when they do.

    Counted in bytes as the API server stores them: what Go escapes (``<``, ``>``, ``&``) takes six. Called by preflight: the
    API server itself would refuse the snapshot only once the step begins.
    """
    given = list(fields)
    snapshot = Snapshot("", tuple((path, before) for path, before, _ in given), {}, tuple(after for *_, after in given))
    if (whole := _size(written(snapshot, ref, ""))) <= LARGEST:
        return ""
    size, name = max((_size([_stored(before), _stored(after)]), readable(path)) for path, before, after in given)
    return (
        f"the old and new values of {ref} take {whole} bytes in the snapshot for the rollback ({name} alone {size}); "
        f"the API server stores at most {LARGEST}"
    )


def _size(body: Json) -> int:
    return len(as_go_writes(body).encode())


def _stored(value: Json) -> Json:
    return {} if value is ABSENT else {"value": value}


def read(body: Json) -> Snapshot:
    """The snapshot that a ControllerRevision stores."""
    data = body["data"]
    values = tuple((tuple(entry["path"]), entry.get("value", ABSENT)) for entry in data["fields"])
    ours = tuple(entry["ours"].get("value", ABSENT) for entry in data["fields"] if "ours" in entry)
    owners, version = tuple(data.get("owners", ())), body["metadata"]["resourceVersion"]
    return Snapshot(data["object"]["uid"], values, data["facts"], ours, owners, version)


def labels(uid: str, run: int) -> dict[str, str]:
    """The labels by which the snapshots of one run of a plan are selected."""
    return {PLAN_LABEL: uid, RUN_LABEL: str(run)}


def former(run: int) -> tuple[str, str, tuple[str, ...]]:
    """The requirement of `names.matching` for what earlier runs have created.

    Smaller numbers, not simply other numbers: a deletion that arrives late must not hit what a newer run needs.
    """
    return RUN_LABEL, "Lt", (str(run),)


async def drop(cluster: Cluster, namespace: str, uid: str, run: int) -> None:
    """Delete the snapshots of one run of a plan."""
    await cluster.delete_all(SNAPSHOTS, namespace, matching(labels(uid, run)))


async def drop_former(cluster: Cluster, namespace: str, uid: str, run: int) -> None:
    """Delete the snapshots of earlier runs. Harmless however late it arrives."""
    await cluster.delete_all(SNAPSHOTS, namespace, matching({PLAN_LABEL: uid}, former(run)))


async def drop_expired(cluster: Cluster, plan: Ref, uid: str, run: int) -> None:
    """Delete the snapshots of this run and of earlier ones once `spec.keepSnapshots` is over.

    Raises:
        Superseded: the plan is active: its rollback was requested while this process was suspended, and needs them.
    """
    if ((await cluster.get(plan)).get("status") or {}).get("phase") in ACTIVE:
        raise Superseded("the plan is active again")
    await drop_former(cluster, plan.namespace, uid, run)
    await drop(cluster, plan.namespace, uid, run)


async def drop_all(cluster: Cluster, namespace: str, uid: str) -> None:
    """Delete the snapshots of all runs of a plan that is gone; harmless where the namespace is gone too."""
    with suppress(NotFound, Denied):
        await cluster.delete_all(SNAPSHOTS, namespace, matching({PLAN_LABEL: uid}))


def owner(plan: Ref, uid: str) -> Json:
    """The plan as an owner of its snapshots."""
    return {"apiVersion": PLANS.api_version, "kind": PLANS.kind, "name": plan.name, "uid": uid}


async def give(
    cluster: Cluster, found: Iterable[Json], owners: Sequence[Json], still_ours: Callable[[], Awaitable[None]]
) -> None:
    """Give snapshots of a run these owners. Idempotent.

    While the plan is active they have none: a foreground deletion of the plan would delete them before the rollback. After the
    end it is the plan, so that they are deleted with it.

    Args:
        cluster: the API server.
        found: the snapshots as they were read; of each only the metadata counts.
        owners: no one, or the plan.
        still_ours: asked after the read, before the writes at that version: a process suspended in between fails on one of them.

    Raises:
        Conflict: one was written in between, so this process may be late.
        NotFound: one is gone.
        Superseded: by `still_ours`.
    """
    others = [body for body in found if (body["metadata"].get("ownerReferences") or []) != owners]
    if others:
        await still_ours()
    for body in others:
        ref = Ref(SNAPSHOTS, body["metadata"]["namespace"], body["metadata"]["name"])
        await write_over(cluster, ref, body, [{"op": "add", "path": "/metadata/ownerReferences", "value": [*owners]}])


async def write_over(
    cluster: Cluster, ref: Ref, body: Json, operations: Sequence[Operation], account: str = ""
) -> None:
    """Patch an object at the version that was read.

    Raises:
        Conflict: it has changed since.
        Rejected: it has not changed, so the server refuses the content.
    """
    try:
        await cluster.patch(ref, [same_version(body), *operations], account)
    except Rejected as refused:
        now = await cluster.get(ref)
        if now["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
            raise
        raise Conflict(f"{ref} has changed") from refused
