"""What a `traffic` step needs before the first step. Read-only; called by preflight through `Traffic.examine`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

from cutover.errors import NotFound, PlanError, Problem
from cutover.field_path import Json, find
from cutover.objects.at_once import at_once
from cutover.objects.destination_rules import MESH
from cutover.objects.services import ports_of
from cutover.ports import SERVICES, Ref
from cutover.routing.routes import Pair
from cutover.routing.rule_warnings import gateways_of
from cutover.steps.kind import StepContext
from cutover.steps.shared.named_ports import lacking
from cutover.steps.traffic import rules, sides, trial, winners
from cutover.steps.traffic.overlap import overlaps
from cutover.steps.traffic.spec import TrafficSpec
from cutover.steps.traffic.temporary import temporary_fields
from cutover.targets.foreign import restore_command


async def examine(step: TrafficSpec, context: StepContext) -> list[Problem]:
    """The routes and both destinations exist, have weight, and resolve to Services that have the port that the routes name."""
    problems, found, body = list[Problem](), list[Pair](), None
    place = f"{context.place}.traffic"
    try:
        body = await context.cluster.get(step.ref(context))
        found = step.pairs(context, body)
        # otherwise it waits for another plan, which removes its own fields
        free = context.targets.unclaimed_by_others(body)
        fields = temporary_fields(step, context, body, found) if free else []
        impossible = _weight_problems(step, context, found)
        problems += impossible
        if free and not impossible:
            problems += await trial.refused(step, context, body, found, fields)
        problems += _leftovers(step, context, body, found) if free else ()
        match = (*step.match, *([step.stickiness.match("")] if step.stickiness else ()))
        told = [*step.where.warnings(body, found, match)]
        problems += [Problem(place, message, warning=True) for message in told]
        problems += await rules.problems(step, context, body, found)
        problems += await winners.problems(step, context, body, found)
    except NotFound:
        pass  # preflight reports it for every target
    except PlanError as error:
        problems.extend(error.problems)
    try:
        sides.forget(context)
        reader = replace(context, cluster=at_once(context.cluster, context.namespace, fresh=False))
        ends = await sides.look_up(reader, step.ends, found)
        problems += await overlaps(context, (step.from_, ends.old), (step.to, ends.new))
        problems += [problem async for problem in _not_where_they_seem(step, reader, ends, body)]
        problems += await lacking(context, str(step.to), ends.new, f"{place}.to")
    except PlanError as error:
        problems.extend(error.problems)
    return problems


async def _not_where_they_seem(
    step: TrafficSpec, context: StepContext, ends: sides.Endpoints, body: Json
) -> AsyncIterator[Problem]:
    """Destinations for which the route names no port, of Services that have several (of any protocol); Services that sidecars do not balance."""
    for field, name, side in (("from", step.from_, ends.old), ("to", step.to, ends.new)):
        ports = ports_of(await context.cluster.get(Ref(SERVICES, context.namespace, side.service)))
        if None in side.asked and len(ports) > 1:
            has = " and ".join(map(str, ports))
            message = f"{step.ref(context)} names no port of {name}, and its Service has {has}, so Istio takes the number of the port"
            message += " at which a request comes in; name the one that is meant (destination.port)"
            yield Problem(f"{context.place}.traffic.{field}", message, warning=True)
        if side.headless and body is not None and _in_sidecars(body):
            message = f"Service {side.service} has no address of its own (clusterIP: None), so a sidecar sends requests for {name} to the"
            message += " address that its client has called, regardless of the weights; give it one, or use it behind a gateway only"
            yield Problem(f"{context.place}.traffic.{field}", message, warning=True)


def _in_sidecars(body: Json) -> bool:
    """Whether the sidecars of clients apply it themselves: by default a VirtualService (a delegate is applied where its root is)."""
    return MESH in gateways_of(body) and ("hosts" in body["spec"] or "parentRefs" in body["spec"])


def _leftovers(step: TrafficSpec, context: StepContext, body: Json, found: list[Pair]) -> Iterator[Problem]:
    """What an abandoned plan has left, with the command that removes it. An error where the step mirrors too: that mirror would stay."""
    for left in step.where.leftovers(body, found):
        fields = [(at, was) for path, was in left.fields if (at := find(body, path)) is not None]
        message = f"{left.message}; remove it: {restore_command(step.ref(context), *fields)}"
        yield Problem(f"{context.place}.traffic", message, warning=not (left.mirrors and step.mirror))


def _weight_problems(step: TrafficSpec, context: StepContext, found: list[Pair]) -> list[Problem]:
    """Weights of the object that cannot express the weights of the step."""
    problems = []
    for pair in found:
        both = f"{step.from_} and {step.to}"
        if pair.total == 0:
            message = f"{both} have no weight in {step.ref(context)}, so there is nothing to shift"
            problems.append(Problem(f"{context.place}.traffic", f"{message}; give {step.from_} its weight first"))
        elif message := step.shift().too_coarse(pair.total):
            where = f"{both} have {pair.total} in total in {step.where.word} {pair.route} of {step.ref(context)}"
            out = "give them weights that add up to 100"
            problems.append(Problem(f"{context.place}.traffic.weights", f"{where}, and {message}; {out}"))
    return problems
