"""Deletes snapshots and Jobs that nothing else deletes. Called by `app.py` when a process starts to work.

There are two kinds of them: those of a plan that is gone without having ended, because our finalizer was removed by hand, and
snapshots that a process wrote late, after another one had ended the run and deleted its own. A new object has no fence that
makes a late write fail. It does no harm, and the process that wrote it deletes it, unless it died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final

from cutover.errors import Denied, NotFound, OutsideError
from cutover.field_path import Json
from cutover.names import matching
from cutover.ports import JOBS, MADE_LABEL, PLAN_LABEL, PLANS, SNAPSHOTS, Cluster
from cutover.status.durable import needs_no_snapshots
from cutover.targets.snapshots import RUN_LABEL, drop, drop_all

log = logging.getLogger(__name__)

_LONGEST_PAUSE: Final = 600.0


async def sweep_until_done(cluster: Cluster, namespaces: Sequence[str], pause: float = 10.0) -> None:
    """Sweep once, for no other process does until one starts; while the API server is away it is tried again, ever less often."""
    while True:
        try:
            plans = await sweep(cluster, namespaces)
        except OutsideError as error:
            log.warning("could not look for snapshots that are no longer needed", extra={"why": str(error)})
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        else:
            if plans:
                log.info("deleted snapshots that are no longer needed", extra={"plans": plans})
            return


async def sweep(cluster: Cluster, namespaces: Sequence[str]) -> int:
    """Delete all snapshots and Jobs whose plan is gone, and all snapshots of runs that have ended and keep none.

    Args:
        cluster: the API server.
        namespaces: where to look; empty for everywhere.

    Returns:
        Of how many plans.
    """
    swept: set[str] = set()
    for namespace in namespaces or ("",):
        # Plans last: one that is created in between has nothing among what was listed before.
        jobs = await cluster.list(JOBS, namespace, matching({}, (MADE_LABEL, "Exists", ())))
        stored = await cluster.list(SNAPSHOTS, namespace, matching({}, (PLAN_LABEL, "Exists", ())))
        plans = {plan["metadata"]["uid"]: plan for plan in await cluster.list(PLANS, namespace)}
        swept |= await _sweep_snapshots(cluster, stored, plans)
        swept |= await _sweep_jobs(cluster, jobs, plans)
    return len(swept)


async def _sweep_snapshots(cluster: Cluster, stored: Sequence[Json], plans: Mapping[str, Json]) -> set[str]:
    swept = set()
    runs = {(body["metadata"]["namespace"], *_run_of(body["metadata"]["labels"])) for body in stored}
    for namespace, uid, run in sorted(runs):
        if uid not in plans:
            await drop_all(cluster, namespace, uid)
        elif _has_ended(plans[uid].get("status") or {}, run):
            await drop(cluster, namespace, uid, run)
        else:
            continue
        swept.add(uid)
    return swept


async def _sweep_jobs(cluster: Cluster, jobs: Sequence[Json], plans: Mapping[str, Json]) -> set[str]:
    makers = {(body["metadata"]["namespace"], body["metadata"]["labels"][MADE_LABEL]) for body in jobs}
    gone = sorted(maker for maker in makers if maker[1] not in plans)
    for namespace, uid in gone:
        with suppress(NotFound, Denied):  # the namespace is gone too
            await cluster.delete_all(JOBS, namespace, matching({MADE_LABEL: uid}))
    return {uid for _, uid in gone}


def _run_of(labels: Json) -> tuple[str, int]:
    run = labels.get(RUN_LABEL, "")
    return labels[PLAN_LABEL], int(run) if run.isdecimal() else 0


def _has_ended(status: Json, run: int) -> bool:
    last = status.get("run") or {}
    return needs_no_snapshots(status.get("phase"), last.get("keepUntil")) and last.get("number") == run
