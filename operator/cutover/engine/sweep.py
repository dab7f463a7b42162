"""Takes away the snapshots and Jobs that nobody else will: called by `app.py` when a process begins to work.

There are two kinds of them: those of a plan that is gone without having ended, because somebody took our finalizer off, and snapshots that a
process wrote after another one had ended the run and tidied up. A new object has no fence that could tell it is late; it does
no harm, and the process that wrote it takes it away itself, unless it died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from cutover.errors import Denied, NotFound, OutsideError
from cutover.field_path import Json
from cutover.ports import JOBS, MADE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, Cluster
from cutover.status.status import needs_no_snapshots
from cutover.targets.snapshots import RUN_LABEL, drop, drop_all

log = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 600.0


async def sweep_at_last(cluster: Cluster, namespaces: Sequence[str], pause: float = 10.0) -> None:
    """Sweep once: no other process does before one begins anew, so a server that is away is asked again, ever less often."""
    while True:
        try:
            plans = await sweep(cluster, namespaces)
        except OutsideError as error:
            log.warning("snapshots that nobody needs could not be looked for", extra={"why": str(error)})
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            if plans:
                log.info("snapshots that nobody needs were deleted", extra={"plans": plans})
            return


async def sweep(cluster: Cluster, namespaces: Sequence[str]) -> int:
    """Delete every snapshot and Job whose plan is gone, and every snapshot whose run has ended so that it keeps none.

    Args:
        cluster: the API server.
        namespaces: where; empty for everywhere.

    Returns:
        Of how many plans.
    """
    swept: set[str] = set()
    for namespace in namespaces or ("",):
        # What is kept first: a plan that is made meanwhile has nothing among it.
        made = await cluster.list(JOBS, namespace, MADE_LABEL)
        kept = await cluster.list(SNAPSHOTS, namespace, PLAN_LABEL)
        plans = {plan["metadata"]["uid"]: plan for plan in await cluster.list(PLANS, namespace)}
        runs = {(body["metadata"]["namespace"], *_run_of(body["metadata"]["labels"])) for body in kept}
        for where, uid, run in sorted(runs):
            if uid not in plans:
                await drop_all(cluster, where, uid)
            elif _has_ended(plans[uid].get("status") or {}, run):
                await drop(cluster, where, uid, run)
            else:
                continue
            swept.add(uid)
        makers = {(body["metadata"]["namespace"], body["metadata"]["labels"][MADE_LABEL]) for body in made}
        for where, uid in sorted(maker for maker in makers if maker[1] not in plans):
            with suppress(NotFound, Denied):  # the namespace is gone too
                await cluster.delete_all(JOBS, where, f"{MADE_LABEL}={uid}")
            swept.add(uid)
    return len(swept)


def _run_of(labels: Json) -> tuple[str, int]:
    run = labels.get(RUN_LABEL, "")
    return labels[PLAN_LABEL], int(run) if run.isdecimal() else 0


def _has_ended(status: Json, run: int) -> bool:
    last = status.get("run") or {}
    return needs_no_snapshots(status.get("phase"), last.get("keepUntil")) and last.get("number") == run
