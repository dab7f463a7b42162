"""Names of other objects in a pod spec: each must be one that an object can have. Pure; used where a plan brings a pod spec.

The API server takes most of these names as they are, because nothing reads them before the kubelet does. Cutover follows some of
them with its own permissions (service accounts, ConfigMaps) and shows others, so it refuses all that can be no name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cutover.field_path import Json
from cutover.names import is_name
from cutover.schema.problems import not_a_name

_OF_CONTAINERS: Final = (
    "env[].valueFrom.configMapKeyRef.name",
    "env[].valueFrom.secretKeyRef.name",
    "envFrom[].configMapRef.name",
    "envFrom[].secretRef.name",
)
_OF_VOLUMES: Final = (
    "configMap.name",
    "secret.secretName",
    "persistentVolumeClaim.claimName",
    "projected.sources[].configMap.name",
    "projected.sources[].secret.name",
    "csi.nodePublishSecretRef.name",
    "azureFile.secretName",
    *(f"{kind}.secretRef.name" for kind in ("cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos")),
)
_FIELDS: Final = tuple(
    field.split(".")
    for field in (
        "serviceAccountName",
        "serviceAccount",
        "priorityClassName",
        "runtimeClassName",
        "imagePullSecrets[].name",
        "resourceClaims[].resourceClaimName",
        "resourceClaims[].resourceClaimTemplateName",
        *(f"volumes[].{field}" for field in _OF_VOLUMES),
        *(f"{part}[].{field}" for part in ("initContainers", "containers") for field in _OF_CONTAINERS),
    )
)
"""Where a pod spec names other objects, as Kubernetes 1.36 has it."""


def wrong_names(pod: Json, at: str) -> Iterator[tuple[str, str]]:
    """Each name of another object in a pod spec, or in a patch of one, that no object can have: where it stands, and a message.

    Only names are checked: where a spec has another shape than a pod's, the server's dry run says so. An empty name is none.

    Args:
        pod: the pod spec.
        at: where it stands, below the field that is validated.
    """
    for field in _FIELDS:
        for where, value in _values(pod, field, at):
            if value not in (None, "") and not is_name(value):
                yield where, not_a_name(value)


def _values(node: Json, field: Sequence[str], at: str) -> Iterator[tuple[str, Json]]:
    """Each value that stands at a field, and where."""
    if not field:
        yield at, node
        return
    key, *rest = field
    value = node.get(key.removesuffix("[]")) if isinstance(node, dict) else None
    where = f"{at}.{key.removesuffix('[]')}"
    if not key.endswith("[]"):
        yield from _values(value, rest, where)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _values(item, rest, f"{where}[{_item_name(item) or position}]")


def _item_name(item: Json) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""
