"""The rights that a plan's account needs, as the manifests to create. Pure; used by preflight and `explain`."""

from __future__ import annotations

from collections.abc import Iterable

import yaml

from cutover.ports import Ref, Resource


def rules(targets: Iterable[tuple[Resource, str]]) -> list[dict[str, list[str]]]:
    """The rules of a Role: to patch just these objects, for do and undo alike."""
    found: dict[Resource, list[str]] = {}
    for resource, name in targets:
        names = found.setdefault(resource, [])
        if name not in names:
            names.append(name)
    return [
        {"apiGroups": [resource.group], "resources": [resource.plural], "resourceNames": names, "verbs": ["patch"]}
        for resource, names in found.items()
    ]


def role(account: str, namespace: str, targets: Iterable[Ref]) -> str:
    """A Role and its binding as YAML, to be applied as it is."""
    group, name = "rbac.authorization.k8s.io", f"{account}-cutover"
    metadata = {"name": name, "namespace": namespace}
    manifests = [
        {
            "apiVersion": f"{group}/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": rules((ref.resource, ref.name) for ref in targets),
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    ]
    return "---\n".join(yaml.safe_dump(manifest, sort_keys=False) for manifest in manifests)
