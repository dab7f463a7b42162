"""The permissions that a plan's account needs, as the manifests to create. Pure; used by preflight and `explain`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import yaml

from cutover.ports import SERVICE_ACCOUNTS, Ref, Resource

MAKING: Final = ("create", "patch", "delete")
"""Verbs needed on a kind of objects that the plan creates. RBAC cannot name what does not exist yet."""


def rules(
    targets: Iterable[tuple[Resource, str]],
    makes: Iterable[Resource] = (),
    pod_accounts: Iterable[str] = (),
    reads: Iterable[tuple[Resource, str]] = (),
) -> list[dict[str, list[str]]]:
    """The rules of a Role, for do and undo alike.

    Args:
        targets: the objects to patch.
        makes: kinds of objects to create.
        pod_accounts: service accounts to give to pods.
        reads: the objects to read.
    """
    accounts = list(dict.fromkeys(pod_accounts))
    return [
        *(_rule(resource, ["patch"], names) for resource, names in _by_resource(targets).items()),
        *(_rule(resource, ["get"], names) for resource, names in _by_resource(reads).items()),
        *(_rule(resource, list(MAKING)) for resource in dict.fromkeys(makes)),
        *([_rule(SERVICE_ACCOUNTS, ["use"], accounts)] if accounts else []),
    ]


def _by_resource(objects: Iterable[tuple[Resource, str]]) -> dict[Resource, list[str]]:
    found: dict[Resource, list[str]] = {}
    for resource, name in dict.fromkeys(objects):
        found.setdefault(resource, []).append(name)
    return found


def _rule(resource: Resource, verbs: list[str], names: list[str] | None = None) -> dict[str, list[str]]:
    only = {"resourceNames": names} if names else {}
    return {"apiGroups": [resource.group], "resources": [resource.plural], **only, "verbs": verbs}


def role(account: str, namespace: str, needed: list[dict[str, list[str]]]) -> str:
    """A Role with these rules and its RoleBinding, as YAML to apply as it is."""
    group, name = "rbac.authorization.k8s.io", f"{account}-cutover"
    metadata = {"name": name, "namespace": namespace}
    manifests = [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": needed},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]
    return "---\n".join(yaml.safe_dump(manifest, sort_keys=False) for manifest in manifests)


def of(refs: Iterable[Ref]) -> list[tuple[Resource, str]]:
    """Objects as `rules` takes them."""
    return [(ref.resource, ref.name) for ref in refs]
