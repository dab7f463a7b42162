"""What the CustomResourceDefinition in force lacks of the one that this version generates. Pure.

Helm installs a CRD and never upgrades it, so an operator that is newer than its CRD is a common state. The API server then
drops the fields it does not know from every plan and every status, without an error. A CRD that knows more than this version
lacks nothing. Called by `runtime/crd_check.py` with the CRD as it was read, and by the driver with what a save lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Json
from cutover.plan.crd import definition
from cutover.ports import PLANS, VERSION
from cutover.status.durable import HARMLESS

NAME: Final = f"{PLANS.plural}.{PLANS.group}"
UPGRADE: Final = "kubectl apply --server-side --force-conflicts -f crds/migrationplans.yaml"
"""Upgrades the CRD. Forced, because Helm is on record as the manager of the fields of a CRD that it has installed."""
_SHOWN: Final = 3


@dataclass(frozen=True, slots=True)
class CrdGap:
    """What the CRD lacks, as paths such as ``status.steps[].made``.

    Attributes:
        essential: fields of plans, and of the status those that a plan depends on. Without them no run begins or goes forward.
        harmless: fields of the status that are shown, or reported, and nothing more.
        unread: the CRD was not read yet, so it may lack anything.
    """

    essential: tuple[str, ...] = ()
    harmless: tuple[str, ...] = ()
    unread: bool = False

    @classmethod
    def of(cls, paths: Iterable[str]) -> CrdGap:
        """The gap that these paths make."""
        found = sorted(set(paths))
        harmless = tuple(path for path in found if any(_within(path, field) for field in HARMLESS))
        return cls(tuple(path for path in found if path not in harmless), harmless)

    @property
    def paths(self) -> frozenset[str]:
        """All of it."""
        return frozenset((*self.essential, *self.harmless))

    @property
    def problem(self) -> str:
        """Why no run may begin or go forward, and what to do; empty when it may."""
        if self.unread:
            return f"the CustomResourceDefinition {NAME} has not been read yet, so plans wait; the API server gives no answer"
        return _sentence(self.essential, "plans wait until it is upgraded") if self.essential else ""

    @property
    def remark(self) -> str:
        """What is lost, and what to do; empty when nothing is."""
        return self.problem or (_sentence(self.harmless, "they are not shown") if self.harmless else "")


def gap_of(crd: Json) -> CrdGap:
    """Compare a CRD as the API server has it with the one that this version generates."""
    ours, served = _fields(definition()), _fields(crd)
    return CrdGap.of(path for part in ("spec", "status") for path in _missing(ours[part], served.get(part) or {}, part))


def dropped(sent: Json, kept: Json, path: str = "status") -> Iterator[str]:
    """The paths of what was sent to the API server and is not in its answer."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        for name, value in sent.items():
            if name not in kept:
                yield f"{path}.{name}"
            elif value != kept[name]:
                yield from dropped(value, kept[name], f"{path}.{name}")
    elif isinstance(sent, list) and isinstance(kept, list):
        for one, other in zip(sent, kept, strict=False):
            yield from dropped(one, other, f"{path}[]")


def _fields(crd: Json) -> Json:
    """The fields of the version that we use; none where it is not there."""
    schemas = [one.get("schema") or {} for one in crd["spec"]["versions"] if one["name"] == VERSION]
    return schemas[0].get("openAPIV3Schema", {}).get("properties", {}) if schemas else {}


def _missing(ours: Json, served: Json, path: str) -> Iterator[str]:
    """What the served schema drops or refuses of what ours accepts; a whole object that it lacks is one path."""
    if served.get("x-kubernetes-preserve-unknown-fields"):
        return
    if ours.get("type") != served.get("type"):
        yield path
        return
    # Of the status only: a plan that is refused is told so, and a status that is refused is lost.
    if "enum" in served and path.startswith("status"):
        yield from (f"{path}={value}" for value in ours.get("enum", ()) if value not in served["enum"])
    known = served.get("properties", {})
    for name, part in ours.get("properties", {}).items():
        if name in known:
            yield from _missing(part, known[name], f"{path}.{name}")
        else:
            yield f"{path}.{name}"
    for below in ("items", "additionalProperties"):
        if isinstance(ours.get(below), dict):
            yield from _missing(ours[below], served.get(below) or {}, f"{path}[]")


def _within(path: str, field: str) -> bool:
    return path == field or path.startswith((f"{field}.", f"{field}[]", f"{field}="))


def _sentence(paths: tuple[str, ...], effect: str) -> str:
    named = ", ".join(paths[:_SHOWN])
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return (
        f"the CustomResourceDefinition {NAME} is older than the operator and lacks {named}{more}, which the API server "
        f"therefore drops; {effect}: {UPGRADE}"
    )
