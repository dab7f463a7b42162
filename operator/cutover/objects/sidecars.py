"""Whether a mesh would put a sidecar into the pods of a Job, by the labels and annotations that ask for it. Pure.

The rules are those of the two meshes: https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/ and
https://linkerd.io/2/reference/proxy-configuration/. Whether it is a native one, which ends with the pod, only the mesh knows.
"""

from __future__ import annotations

from typing import Final

from cutover.field_path import Json

_ISTIO: Final = "sidecar.istio.io/inject"
_LINKERD: Final = "linkerd.io/inject"


def asked_for(namespace: Json, template: Json) -> str:
    """Who asks for a sidecar in these pods, and how the template declines it; empty when nobody asks.

    Args:
        namespace: where they run.
        template: of the pods.
    """
    if (template.get("spec") or {}).get("hostNetwork"):
        return ""  # neither mesh touches these
    metadata = template.get("metadata") or {}
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    theirs, their_notes = (namespace["metadata"].get(part) or {} for part in ("labels", "annotations"))
    if who := _istio(theirs, labels.get(_ISTIO, notes.get(_ISTIO)), labels):
        return f'{who} asks for a sidecar of Istio; the label {_ISTIO}: "false" in the pod template declines it'
    mode, who = notes.get(_LINKERD), f"its annotation {_LINKERD}"
    if mode is None:
        mode, who = their_notes.get(_LINKERD), f"the annotation {_LINKERD} of the namespace"
    if mode in ("enabled", "ingress"):
        return (
            f"{who} asks for a sidecar of Linkerd; the annotation {_LINKERD}: disabled in the pod template declines it"
        )
    return ""


def _istio(namespace: Json, chosen: str | None, labels: Json) -> str:
    if chosen == "false" or namespace.get("istio-injection") == "disabled":
        return ""
    if namespace.get("istio-injection") == "enabled":
        return "the label istio-injection of the namespace"
    if "istio.io/rev" in namespace:
        return "the label istio.io/rev of the namespace"
    if chosen == "true":
        return f"its label {_ISTIO}"
    return "its label istio.io/rev" if "istio.io/rev" in labels else ""
