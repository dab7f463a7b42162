"""The temporary fields of a `traffic` step, set beside the weights for some stages: mirrors, header routes, cookies. Pure."""

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
    """The temporary fields, each with its role and value. Raises PlanError.

    Of routes added in one write the last one ends up on top, so the order matters: the headers of a match win over a cookie.
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
    """For each side the cookie that its responses set, and the route of visitors who bring it.

    The value is unique to this run and step, so that a cookie of another one has no effect.
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
