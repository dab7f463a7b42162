"""Takes away the snapshots of plans that are gone without having ended: somebody took our finalizer off. Called by `app.py`."""

from __future__ import annotations

from collections.abc import Sequence

from cutover.ports import PLAN_LABEL, PLANS, SNAPSHOTS, Cluster
from cutover.snapshots import drop_all


async def sweep(cluster: Cluster, namespaces: Sequence[str]) -> int:
    """Delete every snapshot whose plan is gone.

    Args:
        cluster: the API server.
        namespaces: where; empty for everywhere.

    Returns:
        Of how many plans.
    """
    gone: set[tuple[str, str]] = set()
    for namespace in namespaces or ("",):
        # The snapshots first: a plan that is made meanwhile has none among them.
        kept = await cluster.list(SNAPSHOTS, namespace, PLAN_LABEL)
        alive = {plan["metadata"]["uid"] for plan in await cluster.list(PLANS, namespace)}
        marked = {(body["metadata"]["namespace"], body["metadata"]["labels"][PLAN_LABEL]) for body in kept}
        gone |= {(where, uid) for where, uid in marked if uid not in alive}
    for where, uid in sorted(gone):
        await drop_all(cluster, where, uid)
    return len(gone)
