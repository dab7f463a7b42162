"""The account of a plan and those of its pods: whether they exist, are labelled, and have all permissions. Read-only.

Asked before the first step, before the first write of each step and of its undo, and where a write was denied. An access review needs
no account to exist, so one look reports everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Final, TypeVar

from cutover.errors import Denied, NotFound, OutsideError, Problem
from cutover.plan import permissions
from cutover.plan.spec import Plan
from cutover.ports import MIGRATOR_LABEL, SERVICE_ACCOUNTS, Cluster, Ref, Resource

E = TypeVar("E", bound=Exception)

_FIELD: Final = "serviceAccountName"


async def missing(plan: Plan, ref: Ref, cluster: Cluster) -> list[Problem]:
    """Accounts of a plan that may not be used."""
    names = (plan.service_account_name, *plan.pod_accounts())
    return [Problem(_FIELD, message) for message in await unusable(cluster, ref.namespace, names)]


async def missing_permissions(plan: Plan, ref: Ref, cluster: Cluster) -> list[Problem]:
    """What the plan's account may not do, with the Role to create."""
    denied = await denials(plan, ref, cluster)
    return [Problem(_FIELD, f"{denied}; to grant it, apply:\n{permissions.role(ref, plan)}")] if denied else []


async def unusable(cluster: Cluster, namespace: str, names: Iterable[str]) -> list[str]:
    """Why accounts may not be used, one message for each: it does not exist, or is not allowed to run migrations.

    Impersonation does not check that an account exists, so this does.
    """
    found = await asyncio.gather(*(_unusable(cluster, namespace, name) for name in names))
    return [message for message in found if message]


async def _unusable(cluster: Cluster, namespace: str, name: str) -> str:
    label = f"kubectl label serviceaccount {name} -n {namespace} {MIGRATOR_LABEL}=true"
    try:
        body = await cluster.get(Ref(SERVICE_ACCOUNTS, namespace, name))
    except NotFound:
        create = f"kubectl create serviceaccount {name} -n {namespace}"
        return (
            f"there is no ServiceAccount {name} in namespace {namespace}; create it and label it: {create} && {label}"
        )
    if (body["metadata"].get("labels") or {}).get(MIGRATOR_LABEL) != "true":
        return f"ServiceAccount {name} is not allowed to run migrations; run {label}"
    return ""


async def denials(plan: Plan, ref: Ref, cluster: Cluster) -> str:
    """What the account may not do of all that the plan does as it, for do and undo, in a sentence; empty when it may do everything."""
    refs, reads = plan.targets(ref.namespace), plan.reads(ref.namespace)
    made, accounts = plan.makes(), plan.pod_accounts()
    making = [(verb, resource, "") for resource in made for verb in permissions.MAKING]
    patches, gets, makes, uses = await asyncio.gather(
        _denied(plan, ref, cluster, [("patch", target.resource, target.name) for target in refs]),
        _denied(plan, ref, cluster, [("get", source.resource, source.name) for source in reads]),
        _denied(plan, ref, cluster, making),
        _denied(plan, ref, cluster, [("use", SERVICE_ACCOUNTS, account) for account in accounts]),
    )
    sentences = [
        *([f"patch {_either(str(refs[at]) for at in patches)}"] if patches else []),
        *([f"get {_either(str(reads[at]) for at in gets)}"] if gets else []),
        *(
            f"{_either(verbs)} {resource.kind}s"
            for resource in made
            if (verbs := [making[at][0] for at in makes if making[at][1] == resource])
        ),
        *([f"use ServiceAccount {_either(accounts[at] for at in uses)}"] if uses else []),
    ]
    return (
        f"ServiceAccount {plan.service_account_name} is not allowed to {' or to '.join(sentences)}" if sentences else ""
    )


async def explained(plan: Plan, ref: Ref, cluster: Cluster, error: E) -> E | Denied:
    """A denied write as what the account lacks, with the command that grants it; any other error as it is.

    The server denies what a policy refuses too: then the account lacks nothing, and the text of the server says why.
    """
    if not isinstance(error, Denied):
        return error
    try:
        lacks = await denials(plan, ref, cluster)
    except OutsideError:
        return error
    return Denied(f"{lacks}; to grant it: {permissions.role_command(ref)}") if lacks else error


async def use_denied(plan: Plan, ref: Ref, cluster: Cluster, accounts: Sequence[str]) -> str:
    """Which of the accounts the plan's account may not give to pods, in a sentence; empty when it may give all.

    The API server does not check which account a pod names, so a plan could otherwise get the permissions of any account in its namespace.
    """
    denied = await _denied(plan, ref, cluster, [("use", SERVICE_ACCOUNTS, account) for account in accounts])
    if not denied:
        return ""
    named = _either(accounts[at] for at in denied)
    return f"ServiceAccount {plan.service_account_name} is not allowed to use ServiceAccount {named}"


async def _denied(plan: Plan, ref: Ref, cluster: Cluster, wanted: Sequence[tuple[str, Resource, str]]) -> list[int]:
    """Positions of what the account may not do."""

    async def allowed(verb: str, resource: Resource, name: str) -> bool:
        """Of the whole kind first: that answer all plans of an account have in common."""
        may = partial(cluster.may, plan.service_account_name, ref.namespace, verb, resource)
        return (bool(name) and await may("")) or await may(name)

    asked = await asyncio.gather(*(allowed(*one) for one in wanted))
    return [at for at, may in enumerate(asked) if not may]


def _either(words: Iterable[str]) -> str:
    """Such as ``create, patch or delete``."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
