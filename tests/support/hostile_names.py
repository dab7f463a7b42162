"""Values that no name may be, and what they would reach if one was put into a URL as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NO_SEGMENTS: Final = (
    "",
    ".",
    "..",
    "../../../namespaces/kube-system/configmaps",
    "flags/../../secrets",
    "%2e%2e",
    "..%2f..%2fsecrets",
    "shop-v1/proxy",
    "é",
    "\ud800",
    "x" * 254,
)
"""What can be no segment of a path, as the API server has it."""

ODD_SEGMENTS: Final[Mapping[str, str]] = {
    "flags": "flags",
    "system:flags": "system%3Aflags",
    "a b": "a%20b",
    "flags?labelSelector=a": "flags%3FlabelSelector%3Da",
    "flags#a": "flags%23a",
    "flags;a&b": "flags%3Ba%26b",
    "flags\\..": "flags%5C..",
    "a\r\nb": "a%0D%0Ab",
    "...": "...",
}
"""Segments that need quoting, with what they are quoted to."""

_ENV = ("configMapKeyRef: {name: NAME, key: a}", "secretKeyRef: {name: NAME, key: a}")
_ENV_FROM = ("configMapRef: {name: NAME}", "secretRef: {name: NAME}")
_VOLUMES = (
    "configMap: {name: NAME}",
    "secret: {secretName: NAME}",
    "persistentVolumeClaim: {claimName: NAME}",
    "projected: {sources: [{configMap: {name: NAME}}]}",
    "projected: {sources: [{secret: {name: NAME}}]}",
    "csi: {driver: d, nodePublishSecretRef: {name: NAME}}",
    "azureFile: {secretName: NAME, shareName: s}",
    "rbd: {image: i, monitors: [m], secretRef: {name: NAME}}",
)
_CONTAINERS = (
    *(f"env: [{{name: A, valueFrom: {{{source}}}}}]" for source in _ENV),
    *(f"envFrom: [{{{source}}}]" for source in _ENV_FROM),
)
REFERENCES: Final = (
    "{serviceAccountName: NAME}",
    "{serviceAccount: NAME}",
    "{priorityClassName: NAME}",
    "{runtimeClassName: NAME}",
    "{imagePullSecrets: [{name: NAME}]}",
    "{resourceClaims: [{name: a, resourceClaimName: NAME}]}",
    "{resourceClaims: [{name: a, resourceClaimTemplateName: NAME}]}",
    *(f"{{volumes: [{{name: a, {source}}}]}}" for source in _VOLUMES),
    *(f"{{containers: [{{name: app, image: x, {part}}}]}}" for part in _CONTAINERS),
    *(f"{{initContainers: [{{name: init, image: x, {part}}}]}}" for part in _CONTAINERS),
)
"""Parts of a pod spec, as YAML, each of which names one other object."""
