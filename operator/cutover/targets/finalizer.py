"""Our finalizer on a plan, present only while the plan is active, and whether the plan or its namespace is being deleted.

Called by the driver and the commands of the engine. It writes plans, never targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cutover.errors import Conflict, NotFound, OutsideError, Rejected
from cutover.field_path import Json, Operation, same_version
from cutover.ports import FINALIZER, NAMESPACES, Cluster, Ref
from cutover.status.state import State
from cutover.status.status import ACTIVE, Status


def deleted_at(body: Json) -> datetime | None:
    """When the deletion of an object was requested; None when it was not. A finalizer still keeps the object."""
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
    """Whether a plan is active without our finalizer and could get it: the API server adds none to an object being deleted.

    While a success is claimed again for its rollback, the finalizer is left to that command, which adds it first of all.
    """
    active = status.phase in ACTIVE and status.state is not State.RECLAIMING
    return active and not has_finalizer(body) and "deletionTimestamp" not in body["metadata"]


async def set_finalizer(cluster: Cluster, ref: Ref, body: Json, *, wanted: bool) -> None:
    """Add our finalizer to a plan, or remove it.

    Raises:
        Conflict: the plan has changed since `body`, so its run may have ended, or a new one begun.
        NotFound: it is gone, and the finalizer was to be added.
    """
    for _ in range(3):
        present = list(body["metadata"].get("finalizers") or ())
        if (FINALIZER in present) == wanted:
            return
        try:
            await cluster.patch(ref, list(_finalizer(body, present, wanted=wanted)))
        except Rejected:
            # Another write came first. Removing is tried again on what is there now, unless the plan is active again.
            body = await cluster.get(ref)
            if wanted or (body.get("status") or {}).get("phase") in ACTIVE:
                break
            continue
        except NotFound:
            if wanted:
                raise
        return
    raise Conflict(f"{ref} has changed, so its finalizer was left as it is")


def _finalizer(body: Json, present: list[str], *, wanted: bool) -> Iterator[Operation]:
    yield same_version(body)
    after = [*present, FINALIZER] if wanted else [name for name in present if name != FINALIZER]
    yield {"op": "add", "path": "/metadata/finalizers", "value": after}
