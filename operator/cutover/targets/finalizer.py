"""Our finalizer on a plan, which is there only while the plan is active, and whether it or its namespace goes. Used by the driver and its commands."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cutover.errors import Conflict, NotFound, OutsideError, Rejected
from cutover.field_path import Json, Operation, same_version
from cutover.ports import FINALIZER, NAMESPACES, Cluster, Ref
from cutover.status.reasons import Reason
from cutover.status.status import ACTIVE, Status


def deleted_at(body: Json) -> datetime | None:
    """When an object was deleted that a finalizer still keeps; None when nobody has deleted it."""
    when = body["metadata"].get("deletionTimestamp")
    return None if when is None else datetime.fromisoformat(when)


async def terminating(cluster: Cluster, namespace: str) -> bool:
    """Whether a namespace is being deleted."""
    try:
        body = await cluster.get(Ref(NAMESPACES, "", namespace))
    except NotFound:
        return True
    except OutsideError:
        return False
    return "deletionTimestamp" in body["metadata"]


def has_finalizer(body: Json) -> bool:
    """Whether our finalizer is on a plan."""
    return FINALIZER in (body["metadata"].get("finalizers") or ())


def needs_finalizer(status: Status, body: Json) -> bool:
    """Whether a plan is active and has not our finalizer, though it could have it: on one that is being deleted nothing new is set.

    A rollback of a success sets it as its first act, after that has been announced.
    """
    active = status.phase in ACTIVE and status.reason != Reason.RECLAIMING
    return active and not has_finalizer(body) and "deletionTimestamp" not in body["metadata"]


async def set_finalizer(cluster: Cluster, ref: Ref, body: Json, *, wanted: bool) -> None:
    """Set our finalizer on a plan, or take it away; it is there only while the plan is active.

    Raises:
        Conflict: the plan has changed since `body`, so that it may have ended, or begun again.
        NotFound: it is gone, and the finalizer was to be set.
    """
    for _ in range(3):
        present = list(body["metadata"].get("finalizers") or ())
        if (FINALIZER in present) == wanted:
            return
        try:
            await cluster.patch(ref, list(_finalizer(body, present, wanted=wanted)))
        except Rejected:
            body = await cluster.get(ref)
            if wanted or (body.get("status") or {}).get("phase") in ACTIVE:
                break
            continue
        except NotFound:
            if wanted:
                raise
        return
    raise Conflict(f"{ref} has changed, and its finalizer was not written")


def _finalizer(body: Json, present: list[str], *, wanted: bool) -> Iterator[Operation]:
    yield same_version(body)
    after = [*present, FINALIZER] if wanted else [name for name in present if name != FINALIZER]
    yield {"op": "add", "path": "/metadata/finalizers", "value": after}
