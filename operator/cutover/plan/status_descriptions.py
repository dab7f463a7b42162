"""The descriptions of `.status`, taken from the docstrings of its dataclasses, so that each text stands once. Pure.

Called by `crd.py`; `kubectl explain mplan.status` shows them.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import is_dataclass
from typing import Any, Final

from cutover.field_path import Json
from cutover.status import release, report, requests, status
from cutover.status.spelling import camel
from cutover.status.state import State
from cutover.status.status import Status

_CLASSES: Final[dict[str, Any]] = {
    name: found
    for module in (status, report, requests, release)
    for name, found in vars(module).items()
    if is_dataclass(found)
}
_ATTRIBUTE: Final = re.compile(r"^    (\w+): ", re.MULTILINE)


def add_descriptions(schema: Json) -> Json:
    """The JSON schema of a status with a description of each object and each field."""
    parts = {name: _described(part, name) for name, part in schema.get("$defs", {}).items()}
    described = _described(schema, Status.__name__) | {"$defs": parts}
    _, states = _read_docstring(State)
    each = " ".join(f"{State[name]}: {text}" for name, text in states.items())
    described["properties"]["state"]["description"] += f" {each}"
    return described


def _described(node: Json, name: str) -> Json:
    if name not in _CLASSES:  # an enumeration: its values speak for themselves
        return node
    summary, texts = _read_docstring(_CLASSES[name])
    fields = {camel(field): text for field, text in texts.items()}
    properties = {field: part | {"description": fields[field]} for field, part in node["properties"].items()}
    return node | {"description": summary, "properties": properties}


def _read_docstring(cls: Any) -> tuple[str, dict[str, str]]:
    """The text of a class, and of each of its attributes."""
    summary, _, attributes = inspect.cleandoc(cls.__doc__).partition("Attributes:\n")
    _, *parts = _ATTRIBUTE.split(attributes)
    return summary.strip(), {name: " ".join(text.split()) for name, text in zip(parts[::2], parts[1::2], strict=True)}
