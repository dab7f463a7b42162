"""The writes of a `traffic` step, tried out by the server before the first step. Changes nothing; used by `preconditions.py`.

Two dry runs stand for all writes: the first weight, with every temporary field that any stage sets, and the last one without them.
Between them nothing but the numbers of the weights differs.
"""

from __future__ import annotations

from collections.abc import Sequence

from cutover.errors import Denied, Problem, Rejected
from cutover.field_path import Json, Operation, Path, find, in_order, write
from cutover.routing.routes import Pair
from cutover.routing.shift import Role
from cutover.steps.kind import StepContext, Target
from cutover.steps.shared.preconditions import may_not_patch
from cutover.steps.traffic.spec import TrafficSpec

_Fields = Sequence[tuple[Path, Json]]


async def refused(
    step: TrafficSpec,
    context: StepContext,
    body: Json,
    found: Sequence[Pair],
    temporary: Sequence[tuple[Role, Path, Json]],
) -> list[Problem]:
    """What the server refuses, or would not keep: an older CRD prunes some fields.

    Of an object that an earlier step of the plan writes the weights are others by then, and nothing else: only the temporary fields are tried.
    """
    ref, place = step.ref(context), f"{context.place}.traffic"
    fields = [(path, value) for _, path, value in temporary]
    trials = [(step.weights[0], [*fields, *_weights(step, found, 0)]), (step.weights[-1], _weights(step, found, -1))]
    if Target(ref.resource, ref.name) in context.earlier:
        trials = [(step.weights[0], fields)]
    asked = list[list[Operation]]()
    for weight, wanted in trials:
        if not (operations := _operations(body, wanted)) or operations in asked:
            continue
        asked.append(operations)
        try:
            after = await context.cluster.try_out(ref, operations, context.targets.owner.account)
        except (Rejected, Denied) as no:
            if await may_not_patch(context, ref, no):
                return []  # preflight reports it with all other permissions
            return [Problem(place, f"the server refuses weight {weight} of {ref}: {no}")]
        if not _keeps(after, wanted):
            kept = "would not keep all fields that are written to it"
            return [Problem(place, "; ".join(filter(None, (f"{ref} {kept}", step.where.pruned_because))))]
    return []


def _keeps(after: Json, wanted: _Fields) -> bool:
    return all((at := find(after, path)) is not None and at.value == value for path, value in wanted)


def _weights(step: TrafficSpec, found: Sequence[Pair], which: int) -> list[tuple[Path, Json]]:
    weights = list[tuple[Path, Json]]()
    for pair in found:
        share = step.shift().share_at(which, pair.total, pair.new.weight)
        weights += [(pair.old.weight_path, pair.total - share), (pair.new.weight_path, share)]
    return weights


def _operations(body: Json, wanted: _Fields) -> list[Operation]:
    places = [(at, value) for path, value in wanted if (at := find(body, path)) is not None and at.value != value]
    return in_order(one for at, value in places for one in write(at, value) if one["op"] != "test")
