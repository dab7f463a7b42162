"""A turn of a plan that has ended and needs nothing, which reads none of its spec. Called by the driver.

Thousands of plans have ended, each gets a turn at the start of a process and at every change of a label, and nothing of
their runs is kept: reading their specs again would cost all other plans time.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cutover.engine.plan_cache import PlanCache
from cutover.field_path import Json
from cutover.saga import advance
from cutover.saga.turn import Inputs, Rules, Turn
from cutover.status import requests
from cutover.status.status import ENDED
from cutover.targets.finalizer import deleted_at, has_finalizer


def idle_turn(body: Json, cache: PlanCache, now: datetime) -> Turn | None:
    """The turn of an ended plan whose spec was judged before, if nothing is to be done or answered; otherwise None.

    The saga decides. It gets rules without steps, and where they could matter its answer is not used: a new generation or a
    request that has no answer yet would change the status, and what is left to release or delete is a command.
    """
    status = cache.status
    if status.phase not in ENDED or status.run is None or status != cache.saved:
        return None
    rules = Rules(
        steps=(),
        generation=body["metadata"]["generation"],
        spec_hash=status.run.spec_hash,
        start_deadline=timedelta(),
    )
    inputs = Inputs(
        requests=requests.read(body["metadata"].get("annotations") or {}),
        deleted_at=deleted_at(body),
        has_finalizer=has_finalizer(body),
    )
    turn = advance(rules, status, inputs, now)
    return turn if turn.command is None and turn.status == status else None
