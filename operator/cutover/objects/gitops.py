"""Which tool keeps an object in sync with git, by the labels and annotations it sets, and how to make it ignore fields. Pure.

Used by `preflight/` for every target of a plan, and by the `flags` kind, which names who reverted a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import yaml

from cutover.field_path import Json
from cutover.ports import HTTP_ROUTES, VIRTUAL_SERVICES, Ref


class Tool(StrEnum):
    """A tool that restores an object to the state in git or a release."""

    ARGO_CD = "Argo CD"
    FLUX = "Flux"
    HELM = "Helm"


_MANAGER_KEYS: Final = (
    (Tool.ARGO_CD, "application", "argocd.argoproj.io/instance", ""),
    (Tool.FLUX, "Kustomization", "kustomize.toolkit.fluxcd.io/name", "kustomize.toolkit.fluxcd.io/namespace"),
    (Tool.FLUX, "HelmRelease", "helm.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/namespace"),
)
_TRACKING: Final = "argocd.argoproj.io/tracking-id"
_BY_LABEL: Final = "app.kubernetes.io/instance"
"""The label of Argo CD before 3.0. Charts set it too, so it counts only where Argo CD has written the object."""
_ARGO_WRITERS: Final = ("argocd-controller", "argocd-application-controller")
_LEAVES: Final = {
    "Kustomization": ("kustomize.toolkit.fluxcd.io/reconcile", "disabled"),
    "HelmRelease": ("helm.toolkit.fluxcd.io/driftDetection", "disabled"),
}
"""The annotation that makes Flux ignore one object."""
_ONLY_ONCE: Final = ("kustomize.toolkit.fluxcd.io/ssa", ("IfNotPresent", "Ignore"))


@dataclass(frozen=True, slots=True, order=True)
class Manager:
    """What keeps an object in sync.

    Attributes:
        kind: in the words of the tool: application, Kustomization, HelmRelease, release.
        namespace: of the manager; empty where its labels do not tell.
    """

    tool: Tool
    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        """As messages show it: ``Argo CD (application shop)``."""
        return f"{self.tool} ({self.kind} {f'{self.namespace}/' if self.namespace else ''}{self.name})"


def manager_of(body: Json) -> Manager | None:
    """What keeps an object in sync; None when no tool has marked it."""
    labels, annotations = _labels(body), _annotations(body)
    if application := _tracked(body, annotations.get(_TRACKING, "")):
        return Manager(Tool.ARGO_CD, "application", application)
    for tool, kind, name, namespace in _MANAGER_KEYS:
        for entries in (labels, annotations):
            if name in entries:
                return Manager(tool, kind, entries[name], entries.get(namespace, ""))
    writers = {entry.get("manager") for entry in body["metadata"].get("managedFields") or ()}
    if _BY_LABEL in labels and not writers.isdisjoint(_ARGO_WRITERS):
        return Manager(Tool.ARGO_CD, "application", labels[_BY_LABEL])
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        return Manager(Tool.HELM, "release", annotations.get("meta.helm.sh/release-name", "unknown"))
    return None


def _tracked(body: Json, tracking_id: str) -> str:
    """The application of ``shop:apps/Deployment:prod/web``; empty when the annotation was copied from another object, as in Argo CD."""
    application, _, rest = tracking_id.partition(":")
    kind, _, name = rest.partition(":")
    kind = kind.partition("/")[2]
    metadata = body["metadata"]
    here = f"{metadata.get('namespace', '')}/{metadata['name']}"
    return application if name == here and kind == body.get("kind", kind) else ""


def drifts(body: Json) -> Manager | None:
    """Who will revert an object while a plan changes it; None when nobody will, or the tool is told to ignore it.

    Helm writes only when it is run.
    """
    owner, annotations = manager_of(body), _annotations(body)
    if owner is None or owner.tool is Tool.HELM:
        return None
    key, value = _LEAVES.get(owner.kind, ("", ""))
    if key and value == annotations.get(key, _labels(body).get(key)):
        return None
    if owner.kind == "Kustomization" and annotations.get(_ONLY_ONCE[0]) in _ONLY_ONCE[1]:
        return None
    return owner


def way_out(owner: Manager, fields: Mapping[Ref, Sequence[str]]) -> str:
    """How to make a tool ignore the fields that a plan writes: one sentence, and the YAML to add.

    Args:
        owner: what keeps these objects in sync.
        fields: for each object the fields that are written, as jq paths.
    """
    objects = ", ".join(map(str, fields))
    if owner.tool is Tool.ARGO_CD:
        message = (
            f"{owner.tool} {owner.kind} {owner.name} owns {objects} and writes back what git says; "
            "until git says the new values, add this to that Application:"
        )
        routes = [path for ref in fields if ref.resource in (VIRTUAL_SERVICES, HTTP_ROUTES) for path in fields[ref]]
        lists = " and ".join(dict.fromkeys(path.partition("[]")[0].removeprefix(".") for path in routes))
        note = f"# Argo CD then ignores all of {lists}, including other edits of it in git.\n" if lists else ""
        return f"{message}\n{note}{_ignored(fields)}"
    key, value = _LEAVES[owner.kind]
    where = f"{owner.namespace}/" if owner.namespace else ""
    message = (
        f"{owner.tool} {owner.kind} {where}{owner.name} owns {objects} and restores what git has; until git has the "
        "new values, set this on each of them, and remove it afterwards:"
    )
    return f"{message}\n{yaml.safe_dump({'metadata': {'annotations': {key: value}}})}"


def _ignored(fields: Mapping[Ref, Sequence[str]]) -> str:
    ignored = [
        {
            **({"group": ref.resource.group} if ref.resource.group else {}),
            "kind": ref.resource.kind,
            "name": ref.name,
            "namespace": ref.namespace,
            "jqPathExpressions": list(paths),
        }
        for ref, paths in fields.items()
    ]
    spec = {"ignoreDifferences": ignored, "syncPolicy": {"syncOptions": ["RespectIgnoreDifferences=true"]}}
    return yaml.safe_dump({"spec": spec}, sort_keys=False, width=1000)


def _labels(body: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = body["metadata"].get("labels") or {}
    return labels


def _annotations(body: Json) -> Mapping[str, str]:
    annotations: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return annotations
