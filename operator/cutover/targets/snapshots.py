"""What fields were before a step touched them, and how that is kept. Used by `targets.py`, the driver and the kinds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from cutover.errors import Conflict, Denied, NotFound, Rejected, Superseded
from cutover.field_path import ABSENT, Json, Operation, Path, as_go_writes, readable, same_version
from cutover.ports import PLAN_LABEL, PLANS, SNAPSHOTS, Cluster, Ref
from cutover.status.status import ACTIVE

RUN_LABEL: Final = "cutover.dev/run"
LARGEST: Final = 1_500_000
"""Bytes of a snapshot, at most: etcd takes a request of 1.5 MiB, and the rest of the object and of the request need some of it."""


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


def too_large(ref: Ref, fields: Iterable[tuple[Path, Json, Json]]) -> str:
    """Why what stands in some fields before and after a step would not fit into a snapshot; empty when it does.

    In bytes as the API server stores them: what Go escapes (``<``, ``>``, ``&``) takes six. Told beforehand, because the server
    says it only when the step begins.
    """
    given = list(fields)
    kept = Snapshot("", tuple((path, before) for path, before, _ in given), {}, tuple(after for *_, after in given))
    if (whole := _size(written(kept, ref, ""))) <= LARGEST:
        return ""
    size, name = max((_size([_kept(before), _kept(after)]), readable(path)) for path, before, after in given)
    return (
        f"the old and new values of {ref} would take {whole} bytes to keep for the rollback ({name} alone {size}), "
        f"and the API server stores no more than {LARGEST}"
    )


def _size(body: Json) -> int:
    return len(as_go_writes(body).encode())


def _kept(value: Json) -> Json:
    return {} if value is ABSENT else {"value": value}


def read(body: Json) -> Snapshot:
    """The snapshot that a ControllerRevision keeps."""
    data = body["data"]
    values = tuple((tuple(entry["path"]), entry.get("value", ABSENT)) for entry in data["fields"])
    ours = tuple(entry["ours"].get("value", ABSENT) for entry in data["fields"] if "ours" in entry)
    return Snapshot(data["object"]["uid"], values, data["facts"], ours)


def labels(uid: str, run: int) -> dict[str, str]:
    """What tells the snapshots of one run of a plan from all others."""
    return {PLAN_LABEL: uid, RUN_LABEL: str(run)}


def former(run: int) -> str:
    """Selects what was made in the runs before this one.

    By their numbers, and not as all that is of another run: a deletion may come late, when a newer run lives on what it has made.
    """
    return f"{RUN_LABEL}<{run}"


async def drop(cluster: Cluster, namespace: str, uid: str, run: int) -> None:
    """Delete the snapshots of one run of a plan."""
    await cluster.delete_all(SNAPSHOTS, namespace, f"{PLAN_LABEL}={uid},{RUN_LABEL}={run}")


async def drop_former(cluster: Cluster, namespace: str, uid: str, run: int) -> None:
    """Delete the snapshots of the runs before this one. However late, it does no harm."""
    await cluster.delete_all(SNAPSHOTS, namespace, f"{PLAN_LABEL}={uid},{former(run)}")


async def drop_kept(cluster: Cluster, plan: Ref, uid: str, run: int) -> None:
    """Delete the snapshots of this run and of those before it, which were kept long enough.

    Raises:
        Superseded: the plan is active, as a process finds that slept: a run that is rolled back lives on them.
    """
    if ((await cluster.get(plan)).get("status") or {}).get("phase") in ACTIVE:
        raise Superseded("the plan is active again")
    await drop_former(cluster, plan.namespace, uid, run)
    await drop(cluster, plan.namespace, uid, run)


async def drop_all(cluster: Cluster, namespace: str, uid: str) -> None:
    """Delete the snapshots of all runs of a plan that is gone; harmless where the namespace is gone too."""
    with suppress(NotFound, Denied):
        await cluster.delete_all(SNAPSHOTS, namespace, f"{PLAN_LABEL}={uid}")


async def give(
    cluster: Cluster, plan: Ref, marks: Mapping[str, str], *, owned: bool, still_ours: Callable[[], Awaitable[None]]
) -> None:
    """After the end the plan owns the snapshots of its run, so that they go when it goes. Twice is harmless.

    While it is active they have no owner: a deletion in the foreground would take them away first.

    Raises:
        Conflict: one was written meanwhile, so that we may be late.
        Superseded: `still_ours` says so.
    """
    owner = {"apiVersion": PLANS.api_version, "kind": PLANS.kind, "name": plan.name, "uid": marks[PLAN_LABEL]}
    wanted = [owner] if owned else []
    picked = ",".join(f"{key}={value}" for key, value in marks.items())
    found = await cluster.list(SNAPSHOTS, plan.namespace, picked)
    others = [body for body in found if (body["metadata"].get("ownerReferences") or []) != wanted]
    if others:  # read before we ask, and written at that version after: a process that slept fails here or there
        await still_ours()
    for body in others:
        ref = Ref(SNAPSHOTS, plan.namespace, body["metadata"]["name"])
        await write_over(cluster, ref, body, [{"op": "add", "path": "/metadata/ownerReferences", "value": wanted}])


async def write_over(
    cluster: Cluster, ref: Ref, body: Json, operations: Sequence[Operation], account: str = ""
) -> None:
    """Write an object as it was read.

    Raises:
        Conflict: it has changed since.
        Rejected: it has not, so the server refuses what is written.
    """
    try:
        await cluster.patch(ref, [same_version(body), *operations], account)
    except Rejected as refused:
        now = await cluster.get(ref)
        if now["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]:
            raise
        raise Conflict(f"{ref} has changed") from refused
