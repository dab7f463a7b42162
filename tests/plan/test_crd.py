"""What `kubectl explain mplan` shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cutover.plan.crd import definition, text

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


def test_the_schema_has_only_what_the_api_server_knows() -> None:
    """What pydantic says of the keys of a map, it would refuse the whole file for."""
    known = {
        "type", "description", "properties", "items", "additionalProperties", "required", "enum", "pattern", "format", "default", "minimum",
        "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
    }  # fmt: skip
    assert {key for field in FIELDS.values() for key in field if not key.startswith("x-kubernetes-")} <= known
    assert FIELDS["spec.steps[].backfill.set"]["additionalProperties"]["type"] == "string"


def test_no_field_keeps_unknown_content() -> None:
    """The API server accepts such content at depths that it and its clients cannot read back, and one plan would end the lists of all."""
    assert "preserve-unknown-fields" not in text()
    assert [where for where, field in FIELDS.items() if "type" not in field] == []
    empty = [where for where, field in FIELDS.items() if field["type"] == "object" and not _content(field)]
    assert empty == []


def _content(field: dict[str, Any]) -> Any:
    return field.get("properties") or field.get("additionalProperties")
