"""The environment of a container, resolved through the API as the kubelet does it."""

from __future__ import annotations

import base64
import re
from typing import Any

from harness.api import Api

_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class ConfigError(Exception):
    """Something that the environment names is not there; the text is the kubelet's."""


def environment(api: Api, pod: Any, container: Any, address: str) -> dict[str, str]:
    """All variables of a container. Raises ConfigError."""
    namespace = pod["metadata"]["namespace"]
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        for kind, key in (("configmap", "configMapRef"), ("secret", "secretRef")):
            if key in source:
                data = _data(api, namespace, kind, source[key]["name"], optional=source[key].get("optional", False))
                found |= {source.get("prefix", "") + name: value for name, value in (data or {}).items()}
    for entry in container.get("env") or ():
        value = _value(api, pod, entry, address)
        if value is not None:
            found[entry["name"]] = _REFERENCE.sub(lambda match: found.get(match.group(1), match.group(0)), value)
    return found


def expand(text: str, variables: dict[str, str]) -> str:
    """References in commands and arguments."""
    return _REFERENCE.sub(lambda match: variables.get(match.group(1), match.group(0)), text)


def _value(api: Api, pod: Any, entry: Any, address: str) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    metadata = pod["metadata"]
    if "fieldRef" in source:
        path = source["fieldRef"]["fieldPath"]
        known = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "status.podIP": address,
            "spec.nodeName": pod["spec"]["nodeName"],
        }
        match = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
        found: str = metadata.get(match.group(1), {}).get(match.group(2), "") if match else known.get(path, "")
        return found
    for kind, key in (("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")):
        if key in source:
            ref = source[key]
            data = _data(api, metadata["namespace"], kind, ref["name"], optional=ref.get("optional", False))
            if data is None or ref["key"] not in data:
                if ref.get("optional"):
                    return None
                word = "ConfigMap" if kind == "configmap" else "Secret"
                raise ConfigError(f"couldn't find key {ref['key']} in {word} {metadata['namespace']}/{ref['name']}")
            return str(data[ref["key"]])
    return ""


def _data(api: Api, namespace: str, kind: str, name: str, *, optional: bool) -> dict[str, str] | None:
    body = api.find(f"/api/v1/namespaces/{namespace}/{kind}s/{name}")
    if body is None:
        if optional:
            return None
        raise ConfigError(f'{kind} "{name}" not found')
    data = body.get("data") or {}
    if kind == "secret":
        return {key: base64.b64decode(value).decode() for key, value in data.items()}
    return dict(data)
