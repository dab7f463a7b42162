"""Whether requests come to the routes of a step at all, or another route is tried before them. Read-only; used by the kind `traffic`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cutover.errors import PlanError, Problem
from cutover.field_path import ABOVE, Json, Path, stand
from cutover.ports import Outlines
from cutover.routing.order import Surroundings, Taken, taken, told, unsent
from cutover.routing.routes import Pair, Route
from cutover.routing.shift import temporary_fields_of
from cutover.saga.turn import Failed
from cutover.steps.kind import StepContext
from cutover.steps.shared.preconditions import may_name
from cutover.steps.traffic import drift
from cutover.steps.traffic.spec import TrafficSpec
from cutover.targets.snapshots import Snapshot

_UNSEEN = "the operator watches some namespaces only, so a route of another namespace that takes requests before this plan's is not seen"


async def problems(step: TrafficSpec, context: StepContext, body: Json, found: Sequence[Pair]) -> list[Problem]:
    """What the routes lose to others; an error where it is certain that no request comes to one of them."""
    place = f"{context.place}.traffic"
    routes, gateways = await _asked(step, context, wait=True)
    around = _around(routes, gateways)
    told_ones = [Problem(place, why, warning=not none) for why, none in step.where.unreached(body, around)]
    if all(problem.warning for problem in told_ones):
        nowhere, lost = _lost(step, context, body, found, around)
        told_ones += [Problem(place, _sent_to_nobody(step, one), warning=not around.complete) for one in nowhere]
        told_ones += [Problem(place, await _say(step, context, one), warning=not one.whole) for one in lost]
    if not around.complete:
        told_ones.append(Problem("", _UNSEEN if routes.number and gateways.number else _unread(step), warning=True))
    return told_ones


def _unread(step: TrafficSpec) -> str:
    kind = step.where.resource
    return f"the operator could not list {kind.plural} and {step.where.gateways.plural} of all namespaces, so it is not known whether another {kind.kind} takes requests before this plan's"


async def not_served(step: TrafficSpec, context: StepContext, body: Json, snapshot: Snapshot) -> Failed | None:
    """Whether the object is as this plan wrote it, and a gateway refuses that, or another route takes its requests."""
    restores = step.restores(snapshot)
    if refused := drift.not_served(step.where, body, snapshot, restores):
        return refused
    return None if stand(body, restores) else await lost(step, context, body, wait=context.certain)


async def lost(step: TrafficSpec, context: StepContext, body: Json, *, wait: bool) -> Failed | None:
    """Whether another route has begun to take all requests of one of the step's. Where nothing has changed, this is a look at a number.

    `wait`: a new process must know, before it moves traffic, or lets the plan end.
    """
    routes, gateways = await _asked(step, context, wait=wait)
    if not routes.number:
        return None
    key, at = f"{context.place}.order", (routes.number, gateways.number)
    known = context.memo.get(key)
    if known is None or known[0] != at:
        known = context.memo[key] = at, await _now(step, context, body, _around(routes, gateways))
    message = str(known[1])
    return Failed("NotServed", message) if message else None


async def _now(step: TrafficSpec, context: StepContext, body: Json, around: Surroundings) -> str:
    try:
        found = step.pairs(context, body)
    except PlanError:
        return ""  # others have changed its routes, which is reported where they are written
    if why := next((why for why, none in step.where.unreached(body, around) if none), ""):
        return why
    ours = await _header_routes(step, context)
    nowhere, lost = _lost(step, context, body, found, around)
    if nowhere and around.complete:
        return _sent_to_nobody(step, nowhere[0])
    whole = next((one for one in lost if one.whole and one.taker.path not in ours), None)
    return await _say(step, context, whole) if whole else ""


async def _header_routes(step: TrafficSpec, context: StepContext) -> list[Path]:
    """Those of this step, which are meant to take requests: where the route itself asks for the header, all of them, as was told."""
    snapshot = await context.targets.saved(step.ref(context))
    added = [one.path for one in temporary_fields_of(snapshot)] if snapshot else []
    return [
        (*above, {key: value for key, value in last.items() if key != ABOVE})
        for *above, last in added
        if isinstance(last, Mapping)
    ]


async def _asked(step: TrafficSpec, context: StepContext, *, wait: bool) -> tuple[Outlines, Outlines]:
    kinds = step.where.resource, step.where.gateways
    routes, gateways = [await context.cluster.outlines(kind, context.namespace, wait=wait) for kind in kinds]
    return routes, gateways


def _around(routes: Outlines, gateways: Outlines) -> Surroundings:
    named = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in gateways.bodies}
    return Surroundings(routes.bodies, named, routes.complete and gateways.complete)


def _lost(
    step: TrafficSpec, context: StepContext, body: Json, found: Sequence[Pair], around: Surroundings
) -> tuple[list[Route], list[Taken]]:
    """Routes that no proxy has, and what the others lose to those before them."""
    routes, ref = [pair.route for pair in found if pair.route.http], step.ref(context)
    places = list(step.where.places(body, around)) if routes else []
    return unsent(places, ref, routes), list(taken(places, ref, routes))


def _sent_to_nobody(step: TrafficSpec, route: Route) -> str:
    word = step.where.word
    message = f"{word} {route} gets no requests, so its weights have no effect: no proxy has any of its matches"
    why = "they name gateways that its object is not at, or do not fit in those of the route that delegates to it"
    return f"{message}; {why}, where no expression fits beside another path"


async def _say(step: TrafficSpec, context: StepContext, one: Taken) -> str:
    foreign = one.by.namespace != context.namespace
    name = f"{one.by} of namespace {one.by.namespace}" if foreign else str(one.by)
    return told(one, step.where.word, step.ref(context), name if await may_name(context, one.by) else "")
