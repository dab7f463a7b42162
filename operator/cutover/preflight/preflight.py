"""Everything that a plan needs before the first step, reported at once. Read-only; called by `engine/`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from cutover.errors import NotFound, NotInstalled, Problem
from cutover.messaging import Messenger
from cutover.plan.spec import Plan
from cutover.plan.warnings import warnings
from cutover.ports import HTTP_ROUTES, VIRTUAL_SERVICES, Cluster, Metrics, Ref, Resource
from cutover.preflight import accounts, assessment
from cutover.steps.kind import StepContext
from cutover.steps.parts import Examines
from cutover.steps.shared.preconditions import unknown_provider
from cutover.targets.claims import Owner

_SINCE: Final = {VIRTUAL_SERVICES: "Istio 1.22", HTTP_ROUTES: "Gateway API 1.0"}
"""The first release whose CRDs have the version that is read and written here."""


async def missing(
    plan: Plan, cluster: Cluster, metrics: Metrics, namespace: str, contexts: Sequence[StepContext]
) -> assessment.Assessment:
    """Everything that the plan needs and does not find, in the order of the plan, and risks that users should know in advance.

    Args:
        plan: the plan.
        cluster: the API server.
        metrics: the providers.
        namespace: of the plan and all its targets.
        contexts: the context of each step, in order.
    """
    ref = contexts[0].targets.owner.plan
    parts = asyncio.gather(
        accounts.missing(plan, ref, cluster),
        *(_of_step(step, cluster, context) for step, context in zip(plan.steps, contexts, strict=True)),
        _of_gates(plan, cluster, contexts[0].targets.owner),
    )
    found, assessed, denied = await asyncio.gather(
        parts, assessment.assess(plan, cluster, namespace), accounts.missing_permissions(plan, ref, cluster)
    )
    unknown = (_no_providers(plan, metrics), _unknown_receivers(plan, contexts[0].messenger))
    # The permissions come last: their message ends in a manifest to copy.
    problems = (problem for part in (*found, assessed.problems, *unknown, warnings(plan), denied) for problem in part)
    return assessment.Assessment(tuple(dict.fromkeys(problems)), assessed.risks)


async def _of_step(step: Any, cluster: Cluster, context: StepContext) -> list[Problem]:
    kind = step.kind
    refs = [target.ref(context.namespace) for target in kind.touches()]
    needs = [kind.examine(context)] if isinstance(kind, Examines) else []
    parts = await asyncio.gather(*(_there(cluster, f"{context.place}.{kind.key}", ref) for ref in refs), *needs)
    return [problem for part in parts for problem in part]


async def _there(cluster: Cluster, place: str, ref: Ref) -> list[Problem]:
    try:
        await cluster.get(ref)
    except NotInstalled as missing:
        return [Problem(place, _not_served(ref.resource, missing.versions))]
    except NotFound:
        return [Problem(place, f"there is no {ref} in namespace {ref.namespace}; create it, or fix the name")]
    return []


def _not_served(resource: Resource, versions: Sequence[str]) -> str:
    if not versions:
        return f"the cluster has no kind {resource.kind} ({resource.api_version}); install its CRD"
    served = f"the cluster serves {resource.kind} of {resource.group} as {' and '.join(versions)} only"
    return f"{served}, and Cutover needs {resource.version}, as {_SINCE.get(resource, 'later releases')} and later have it; upgrade that"


async def _of_gates(plan: Plan, cluster: Cluster, owner: Owner) -> list[Problem]:
    """What gates and guards need, those of one step at a time: a plan has up to a thousand."""
    problems = list[Problem]()
    for _, gates in groupby(_gates(plan), lambda one: one[0].partition(".")[0]):
        for part in await asyncio.gather(*(_of_gate(place, gate, cluster, owner) for place, gate in gates)):
            problems += part
    return problems


async def _of_gate(place: str, gate: Any, cluster: Cluster, owner: Owner) -> Sequence[Problem]:
    """The workload that a gate names, in addition to those that steps roll out, and what its source needs."""
    problems = list(await gate.source.examine(cluster, owner, place))
    workload = getattr(gate.source, "workload", None)
    if workload is None:
        return problems
    ref = Ref(workload.resource, owner.namespace, workload.name)
    return problems + await _there(cluster, f"{place}.{gate.source.key}.workload", ref)


def _no_providers(plan: Plan, metrics: Metrics) -> Iterable[Problem]:
    """Providers that do not exist, or that the operator cannot use."""
    for place, gate in _gates(plan):
        name, kind = gate.source.provider(), gate.source.key
        if name and name not in (known := metrics.names(kind)):
            message = f"there is no provider {name} of kind {kind}; the administrator has configured: {', '.join(known) or 'none'}"
            yield Problem(f"{place}.{kind}.provider", message)
        elif name and not metrics.usable(name):
            message = (
                f"the operator cannot use its credentials for provider {name}; the operator's log names the file to fix"
            )
            yield Problem(f"{place}.{kind}.provider", message)


def _unknown_receivers(plan: Plan, messenger: Messenger) -> Iterable[Problem]:
    for notification in plan.notifications:
        if message := unknown_provider(messenger, notification.provider):
            yield Problem(f"notifications[{notification.provider}].provider", message)


def _gates(plan: Plan) -> Iterable[tuple[str, Any]]:
    for guard in plan.guards:
        yield f"guards[{guard.name}]", guard
    for step in plan.steps:
        for gate in step.gates:
            yield f"steps[{step.name}].gates[{gate.name}]", gate
