"""The permissions that a plan's account needs, as the manifests to create. Pure; used by preflight, `explain` and `role`.

The Role is the plan's own, and holds all that the plan needs, also what the account may do already. So to apply it never takes from
another plan of the same account, nor from this one what an earlier Role of it has given.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import yaml

from cutover.plan.spec import Plan
from cutover.ports import SERVICE_ACCOUNTS, Ref, Resource

MAKING: Final = ("create", "patch", "delete")
"""Verbs needed on a kind of objects that the plan creates. RBAC cannot name what does not exist yet."""
_LONGEST_NAME: Final = 253

Rule = dict[str, list[str]]


def rules(plan: Plan) -> list[Rule]:
    """The rules of a Role, for do and undo alike."""
    accounts = plan.pod_accounts()
    return [
        *(_rule(resource, ["patch"], names) for resource, names in _by_resource(plan.targets("")).items()),
        *(_rule(resource, ["get"], names) for resource, names in _by_resource(plan.reads("")).items()),
        *(_rule(resource, list(MAKING)) for resource in plan.makes()),
        *([_rule(SERVICE_ACCOUNTS, ["use"], accounts)] if accounts else []),
    ]


def _by_resource(refs: Iterable[Ref]) -> dict[Resource, list[str]]:
    found: dict[Resource, list[str]] = {}
    for ref in refs:
        found.setdefault(ref.resource, []).append(ref.name)
    return found


def _rule(resource: Resource, verbs: list[str], names: list[str] | None = None) -> Rule:
    only = {"resourceNames": names} if names else {}
    return {"apiGroups": [resource.group], "resources": [resource.plural], **only, "verbs": verbs}


def role(ref: Ref, plan: Plan) -> str:
    """The Role of a plan and its RoleBinding, as YAML to apply as it is."""
    group, name, account = "rbac.authorization.k8s.io", _name_of_role(ref.name), plan.service_account_name
    metadata = {"name": name, "namespace": ref.namespace}
    manifests = [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules(plan)},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": ref.namespace}],
        },
    ]
    return "---\n".join(yaml.safe_dump(manifest, sort_keys=False) for manifest in manifests)


def _name_of_role(plan: str) -> str:
    """One name per plan, and no longer than a name may be."""
    name = f"migrationplan-{plan}"
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(plan.encode()).hexdigest()[:10]
    return f"{name[: _LONGEST_NAME - 11].rstrip('-.')}-{digest}"


def role_command(ref: Ref) -> str:
    """The command that applies that Role, for messages that are too short for it."""
    return f"kubectl cutover role {ref.name} -n {ref.namespace} | kubectl apply -f -"
