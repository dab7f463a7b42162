"""Takes away the snapshots and Jobs of plans that are gone without having ended: somebody took our finalizer off. Called by `app.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cutover.ports import JOBS, MADE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, Cluster

_KEPT: Final = ((SNAPSHOTS, PLAN_LABEL), (JOBS, MADE_LABEL))
"""What a plan leaves, and the label that says whose it is."""


async def sweep(cluster: Cluster, namespaces: Sequence[str]) -> int:
    """Delete every snapshot and Job whose plan is gone.

    Args:
        cluster: the API server.
        namespaces: where; empty for everywhere.

    Returns:
        Of how many plans.
    """
    plans = set()
    for namespace in namespaces or ("",):
        # What is kept first: a plan that is made meanwhile has nothing among it.
        kept = [(resource, label, await cluster.list(resource, namespace, label)) for resource, label in _KEPT]
        alive = {plan["metadata"]["uid"] for plan in await cluster.list(PLANS, namespace)}
        gone = {
            (body["metadata"]["namespace"], resource, label, body["metadata"]["labels"][label])
            for resource, label, bodies in kept
            for body in bodies
            if body["metadata"]["labels"][label] not in alive
        }
        for where, resource, label, uid in sorted(gone):
            await cluster.delete_all(resource, where, f"{label}={uid}")
            plans.add(uid)
    return len(plans)
