"""Everything that a plan needs before the first step, reported at once. Read-only; called by `engine/`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from cutover.errors import NotFound, NotInstalled, Problem
from cutover.plan import permissions
from cutover.plan.spec import Plan
from cutover.ports import MIGRATOR_LABEL, SERVICE_ACCOUNTS, Cluster, Messenger, Metrics, Ref, Resource
from cutover.preflight import assessment
from cutover.steps.kind import StepContext
from cutover.steps.shared.preconditions import unknown_provider
from cutover.targets.claims import Owner


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
    parts = asyncio.gather(
        account(cluster, namespace, plan.service_account_name),
        *(_of_step(step, cluster, context) for step, context in zip(plan.steps, contexts, strict=True)),
        _of_gates(plan, cluster, contexts[0].targets.owner),
        _accounts(plan, cluster, namespace),
        _permissions(plan, cluster, contexts),
    )
    found, assessed = await asyncio.gather(parts, assessment.assess(plan, cluster, namespace))
    unknown = (_no_providers(plan, metrics), _unknown_receivers(plan, contexts[0].messenger))
    problems = (problem for part in (*found, assessed.problems, *unknown) for problem in part)
    return assessment.Assessment(tuple(dict.fromkeys(problems)), assessed.risks)


async def account(cluster: Cluster, namespace: str, name: str) -> list[Problem]:
    """Whether the account that all writes are made as exists and is allowed to run migrations.

    Impersonation does not check that an account exists, so this does.
    """
    try:
        body = await cluster.get(Ref(SERVICE_ACCOUNTS, namespace, name))
    except NotFound:
        return [Problem("serviceAccountName", f"there is no ServiceAccount {name} in namespace {namespace}; create it")]
    if (body["metadata"].get("labels") or {}).get(MIGRATOR_LABEL) != "true":
        command = f"kubectl label serviceaccount {name} -n {namespace} {MIGRATOR_LABEL}=true"
        message = f"ServiceAccount {name} is not allowed to run migrations; run {command}"
        return [Problem("serviceAccountName", message)]
    return []


async def pod_accounts(cluster: Cluster, namespace: str, name: str, others: Iterable[str]) -> list[Problem]:
    """Whether the accounts of pods exist, are allowed to run migrations, and may be used by the plan's account.

    The API server does not check which account a pod names, so a plan could otherwise get the permissions of any account in its namespace.
    """
    problems = []
    for other in sorted(others):
        found = await account(cluster, namespace, other)
        if not found and not await cluster.may(name, namespace, "use", SERVICE_ACCOUNTS, other):
            message = f"ServiceAccount {name} is not allowed to use ServiceAccount {other}; grant verb use on serviceaccounts/{other}"
            found = [Problem("serviceAccountName", message)]
        problems += found
    return problems


async def _of_step(step: Any, cluster: Cluster, context: StepContext) -> list[Problem]:
    kind = step.kind
    refs = [target.ref(context.namespace) for target in kind.touches()]
    parts = await asyncio.gather(
        *(_there(cluster, f"{context.place}.{kind.key}", ref) for ref in refs), kind.examine(context)
    )
    return [problem for part in parts for problem in part]


async def _there(cluster: Cluster, place: str, ref: Ref) -> list[Problem]:
    try:
        await cluster.get(ref)
    except NotInstalled:
        message = f"the cluster has no kind {ref.resource.kind} ({ref.resource.api_version}); install its CRD"
        return [Problem(place, message)]
    except NotFound:
        return [Problem(place, f"there is no {ref} in namespace {ref.namespace}; create it, or fix the name")]
    return []


async def _permissions(plan: Plan, cluster: Cluster, contexts: Sequence[StepContext]) -> list[Problem]:
    """Whether the account may read and write all that the plan does as it, for do and undo; what is missing as the Role to create."""
    name, namespace = plan.service_account_name, contexts[0].namespace
    refs, reads = plan.targets(namespace), plan.reads(namespace)
    kinds, accounts = plan.makes(), plan.pod_accounts()

    async def denied(wanted: Sequence[tuple[str, Resource, str]]) -> list[int]:
        asked = (cluster.may(name, namespace, verb, resource, of) for verb, resource, of in wanted)
        return [at for at, may in enumerate(await asyncio.gather(*asked)) if not may]

    making = [(verb, resource, "") for resource in kinds for verb in permissions.MAKING]
    patches, unread, made, lent = await asyncio.gather(
        denied([("patch", ref.resource, ref.name) for ref in refs]),
        denied([("get", ref.resource, ref.name) for ref in reads]),
        denied(making),
        denied([("use", SERVICE_ACCOUNTS, account) for account in accounts]),
    )
    no_patch, no_get, no_use = [refs[at] for at in patches], [reads[at] for at in unread], [accounts[at] for at in lent]
    no_make = list(dict.fromkeys(making[at][1] for at in made))
    missing = [
        *([f"patch {_either(map(str, no_patch))}"] if no_patch else []),
        *([f"get {_either(map(str, no_get))}"] if no_get else []),
        *(f"{_either(making[at][0] for at in made if making[at][1] == kind)} {kind.kind}s" for kind in no_make),
        *([f"use ServiceAccount {_either(no_use)}"] if no_use else []),
    ]
    if not missing:
        return []
    rules = permissions.rules(permissions.of(no_patch), no_make, no_use, permissions.of(no_get))
    role = permissions.role(name, namespace, rules)
    message = f"ServiceAccount {name} is not allowed to {' or to '.join(missing)}; to grant it, apply:\n{role}"
    return [Problem("serviceAccountName", message)]


def _either(words: Iterable[str]) -> str:
    """Such as ``create, patch or delete``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


async def _accounts(plan: Plan, cluster: Cluster, namespace: str) -> list[Problem]:
    """The accounts of pods; whether the plan's account may use them is checked with its other permissions."""
    return [problem for other in plan.pod_accounts() for problem in await account(cluster, namespace, other)]


async def _of_gates(plan: Plan, cluster: Cluster, owner: Owner) -> list[Problem]:
    """Workloads that gates name, in addition to those that steps roll out, and what their sources need."""
    problems, namespace = [], owner.namespace
    for place, gate in _gates(plan):
        problems += await gate.source.examine(cluster, owner, place)
        workload = getattr(gate.source, "workload", None)
        if workload is None:
            continue
        ref = Ref(workload.resource, namespace, workload.name)
        try:
            await cluster.get(ref)
        except NotFound:
            message = f"there is no {ref} in namespace {namespace}; create it, or fix the name"
            problems.append(Problem(f"{place}.{gate.source.key}.workload", message))
    return problems


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
