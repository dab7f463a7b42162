"""What a `traffic` step sets beside the weights for a while: mirrors, header routes, cookies. Reads nothing."""

from __future__ import annotations

from cutover.errors import PlanError, Problem
from cutover.field_path import Json, Path
from cutover.routing.routes import HeaderRoute, Pair
from cutover.routing.shift import Role
from cutover.steps.kind import StepContext
from cutover.steps.traffic.spec import TrafficSpec


def temporary_fields(
    step: TrafficSpec, context: StepContext, body: Json, found: list[Pair]
) -> list[tuple[Role, Path, Json]]:
    """The fields that are set beside the weights for a while, each with its value. Raises PlanError.

    Of routes that come in one write the last stands highest: the headers of a match go before a cookie.
    """
    place, where = f"{context.place}.traffic", step.where
    if step.asks_for_http and (other := next((pair.route for pair in found if not pair.route.http), None)):
        message = f"route {other} is not an http route, and only http routes support headers and mirrors; remove match and mirror"
        raise PlanError(Problem(f"{place}.virtualService", message))
    fields = list[tuple[Role, Path, Json]]()
    for pair in found:
        fields += [(Role.MIRROR, *field) for field in (where.mirror(pair, step.mirror.percent) if step.mirror else ())]
        fields += _stickiness(step, context, body, pair)
        if step.match:
            wanted = HeaderRoute(context.targets.step, pair.new, step.match)
            fields.append((Role.MATCH, *where.header_route(body, pair, wanted, f"{place}.match")))
    if message := where.over_limit(body, [field[1:] for field in fields]):
        raise PlanError(Problem(place, message))
    return fields


def _stickiness(step: TrafficSpec, context: StepContext, body: Json, pair: Pair) -> list[tuple[Role, Path, Json]]:
    """For each side the cookie that its answers set, and the route of those who bring it.

    The value is of this run and step alone: a cookie of any other means nothing.
    """
    fields, place = list[tuple[Role, Path, Json]](), f"{context.place}.traffic.stickiness"
    owner, name = context.targets.owner, context.targets.step
    for role, side, destination in ((Role.KEEPS_OLD, "from", pair.old), (Role.KEEPS_NEW, "to", pair.new)):
        if step.stickiness:
            value = f"{owner.uid[:8]}-{owner.run}-{name}-{side}"
            wanted = HeaderRoute(f"{name}-stays-{side}", destination, (step.stickiness.match(value),))
            fields.append((role, *step.where.cookie(pair.route, destination, step.stickiness.sets(value), place)))
            fields.append((role, *step.where.header_route(body, pair, wanted, place)))
    return fields
