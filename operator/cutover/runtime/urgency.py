"""The queue of plans, and how urgent the turn of a plan is, by what the API server says of it. Called by app.py."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from cutover.field_path import Json
from cutover.ports import Ref
from cutover.runtime.queue import Queue, Urgency
from cutover.status import requests
from cutover.status.requests import RequestVerb
from cutover.status.status import ACTIVE, Phase
from cutover.targets.finalizer import deleted_at

_BACKWARD: Final = (Phase.ROLLING_BACK, Phase.STUCK)
_REVERSING: Final = (RequestVerb.ABORT, RequestVerb.ROLLBACK, RequestVerb.ABANDON)


def queue_of_plans(
    turn: Callable[[Ref], Awaitable[timedelta | None]], known: Callable[[Ref], tuple[Json | None, bool]]
) -> Queue[Ref]:
    """The queue of all plans.

    Args:
        turn: one turn of a plan.
        known: a plan as it was last seen, and whether one of its gates or guards has just failed.
    """

    def urgency(ref: Ref) -> Urgency:
        plan, failed = known(ref)
        return urgency_of(plan, failed=failed)

    return Queue(turn, urgency, lambda ref: ref.namespace)


def urgency_of(plan: Json | None, *, failed: bool = False) -> Urgency:
    """How urgent its next turn is. A plan that rolls back or is to goes first, after a restart too: what it undoes may serve users.

    Args:
        plan: as it was last seen; None when it is gone.
        failed: one of its gates or guards has just failed.
    """
    if plan is None:
        return Urgency.ARRIVED
    status = plan.get("status") or {}
    active = status.get("phase") in ACTIVE
    if failed or status.get("phase") in _BACKWARD or (active and deleted_at(plan)) or _to_reverse(plan, status):
        return Urgency.BACKWARD
    return Urgency.UNDER_WAY if active else Urgency.ARRIVED


def _to_reverse(plan: Json, status: Json) -> bool:
    """Whether a request that ends or reverses the run was not answered yet."""
    annotations = plan["metadata"].get("annotations") or {}
    if not any(requests.PREFIX + verb in annotations for verb in _REVERSING):
        return False
    answered = {(record["verb"], record["token"]) for record in status.get("requests") or ()}
    return any(
        request.verb in _REVERSING and (request.verb, request.token) not in answered
        for request in requests.read(annotations)
    )
