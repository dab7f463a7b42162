"""How Kubernetes spells the fields of a resource. Used by the dataclasses of the status and the models of the spec."""

from __future__ import annotations

from typing import Final


def camel(name: str) -> str:
    """The name of a field as Kubernetes spells it: ``started_at`` becomes ``startedAt``."""
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


AS_KUBERNETES_SPELLS: Final = {"alias_generator": camel, "populate_by_name": True, "extra": "ignore"}
"""Of the dataclasses: their names in JSON, and that fields of a later version are ignored."""
