"""Turns what pydantic finds into sentences for the author of a plan: where, which value, what is wrong, the way out. Pure."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from cutover.errors import Problem
from cutover.field_path import Json

_PATTERNS: Final = {
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "use lower case letters, digits and -, at most 63",
    r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$": "use the name of an object: lower case letters, digits, - and ., at most 253",
    r"^\S+$": "take the blanks out",
    r"^[A-Za-z0-9_-]{1,64}$": "use letters, digits, - and _, at most 64",
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$": "use the value of a label: letters, digits, -, _ and ., at most 63",
    r"^[A-Za-z0-9_+/-]+$": "use a time zone of the IANA database, such as Europe/Berlin or UTC",
    r"^(\*|(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)$": "use a host in lower case, such as db.example or *.example, or * for all",
}
_NO_LIST: Final = "{given} is not a list; begin each item with a dash"
_NO_NUMBER: Final = "{given} is not a whole number; write one without quotes"
_NO_MAPPING: Final = "{given} is not a mapping; put its fields below it, indented"
_SENTENCES: Final[Mapping[str, str]] = {
    "missing": "is missing; add it",
    "greater_than": "{given} is too small; it must be above {gt}",
    "greater_than_equal": "{given} is too small; the least is {ge}",
    "less_than_equal": "{given} is too large; the most is {le}",
    "too_short": "is empty; give at least {min_length}",
    "string_too_short": "is empty; give at least {min_length} character",
    "too_long": "has {actual_length} items; the most is {max_length}, so split it",
    "string_too_long": "is too long; the most is {max_length} characters",
    "enum": "{given} is not known; use {expected}",
    "literal_error": "{given} is not known; use {expected}",
    "int_type": _NO_NUMBER,
    "int_parsing": _NO_NUMBER,
    "int_from_float": _NO_NUMBER,
    "finite_number": _NO_NUMBER,
    "float_type": "{given} is not a number; write one without quotes",
    "float_parsing": "{given} is not a number; write one without quotes",
    "string_type": "{given} is not a string; put it in quotes",
    "bool_type": "{given} is neither true nor false; write one of them without quotes",
    "bool_parsing": "{given} is neither true nor false; write one of them without quotes",
    "tuple_type": _NO_LIST,
    "list_type": _NO_LIST,
    "model_type": _NO_MAPPING,
    "dict_type": _NO_MAPPING,
    "invalid_key": "YAML has read the key {given}, which is no string; put it in quotes, or mend its name",
    "model_attributes_type": _NO_MAPPING,
}


def sentences(error: ValidationError, spec: Json, model: type[BaseModel], hidden: str = "") -> Iterator[Problem]:
    """One sentence a mistake, in the order of the document. What stands below the key `hidden` is not shown."""
    for entry in error.errors(include_url=False):
        if entry["type"] == "too_short" and len(entry["input"]) >= entry["ctx"]["min_length"]:
            continue  # it counts only the items without mistakes, and those are said already
        location = entry["loc"]
        given = "the value" if hidden and location[:1] == (hidden,) else _shown(entry["input"])
        yield Problem(_place(location, spec), _says(entry, location, model, given))


def _place(location: Sequence[int | str], spec: Json) -> str:
    """A location as the author wrote it: items of a list by their name when they have one."""
    text, node = "", spec
    for part in location:
        if isinstance(part, int):
            node = node[part] if isinstance(node, list) and part < len(node) else None
            text += f"[{_item_name(node) or part}]"
        else:
            node = node.get(part) if isinstance(node, dict) else None
            text += f".{part}" if text else part
    return text


def _item_name(item: Json) -> str:
    name = item.get("name", item.get("container")) if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _says(entry: Any, location: Sequence[int | str], model: type[BaseModel], given: str) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(str(location[-1]), sorted(_siblings(location, model)), n=1)
        return f"there is no such field here; {f'did you mean {near[0]}?' if near else 'drop it'}"
    if kind == "value_error":
        says = str(context["error"])
        return f"{given} is not possible: {says}" if says.startswith("write ") else says
    if kind == "string_pattern_mismatch":
        return f"{given} is no valid name; {_PATTERNS.get(context['pattern'], context['pattern'])}"
    sentence = _SENTENCES.get(kind)
    if sentence is None:
        return f"{given} is not possible: {entry['msg']}"
    bounds = {key: f"{bound:g}" if isinstance(bound, float) else bound for key, bound in context.items()}
    return sentence.format(given=given, **bounds)


def _siblings(location: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Names of the fields that may stand where an unknown one was found."""
    schema = model.model_json_schema(by_alias=True)
    node = schema
    for part in location[:-1]:
        named: Json = node.get("properties", {}).get(part) or next(iter(node.get("patternProperties", {}).values()), {})
        node = node.get("items", {}) if isinstance(part, int) else named
        node = next((choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return set(node.get("properties", {}))


def _shown(value: Json) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 -- fits a line
