"""What `kubectl explain mplan` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cutover.plan.crd import definition

SCHEMA = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
# Names and values of Python, which nobody who reads a plan knows: observed_generation, None, True.
OF_PYTHON = re.compile(r"\b[a-z]+_[a-z_]+\b|\b(?:None|True|False)\b|Attributes:")


def fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every field below a node, those of nested objects, of items of lists and of values of maps included."""
    for name, part in node.get("properties", {}).items():
        yield f"{path}.{name}", part
        yield from fields(part, f"{path}.{name}")
    for below in (node.get("items"), node.get("additionalProperties")):
        if isinstance(below, dict):
            yield from fields(below, f"{path}[]")


FIELDS = {
    where: field
    for top in ("spec", "status")
    for where, field in [(top, SCHEMA["properties"][top]), *fields(SCHEMA["properties"][top], top)]
}


def test_all_fields_are_found() -> None:
    assert {"spec.steps[].traffic.to.host", "status.current.gates[].verdict", "status.conditions[].type"} <= set(FIELDS)


def test_every_field_of_spec_and_status_is_described() -> None:
    assert [where for where, field in FIELDS.items() if not field.get("description", "").strip()] == []


def test_no_description_speaks_python() -> None:
    texts = {where: field.get("description", "") for where, field in FIELDS.items()}
    assert {where: text for where, text in texts.items() if OF_PYTHON.search(text)} == {}
