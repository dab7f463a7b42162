"""Turns pydantic's validation errors into problems for the author: the field, its value, what is wrong, and how to fix it. Pure.

Called when a plan or the settings are parsed. Messages for one field's own rules are made by its validator, not here.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from cutover.errors import Problem
from cutover.field_path import Json
from cutover.names import NAME_PATTERN, NAME_RULE, is_name

_PATTERNS: Final = {  # what the value should be, and how to write one
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "name; use lower case letters, digits and -, and begin and end with a letter or digit "
    "(at most 63 characters)",
    NAME_PATTERN: f"name; use {NAME_RULE}",
    r"^\S+$": "image; remove the whitespace",
    r"^[-._a-zA-Z0-9]+$": "key of a Secret or ConfigMap; use letters, digits, -, _ and .",
    r"^[^\s/@]+$": "name or address of a server; write it without a scheme, a user and blanks",
    r"^[A-Za-z0-9_-]{1,64}$": "name of a cookie; use letters, digits, - and _, up to 64 characters",
    r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$": "label value; use letters, digits, -, _ and ., and begin and end with a letter "
    "or digit (at most 63 characters)",
    r"^[A-Za-z0-9_+/-]+$": "time zone; use one of the IANA database, such as Europe/Berlin or UTC",
    r"^(\*|(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)$": "host; use lower case, such as db.example or *.example, or * for all",
}
_NOT_VALID: Final = "is not a valid"
_NAMING: Final = ("name", "host")
"""Fields that alone name an object, for which a plain string is often written."""
_HIDDEN: Final = "the value"
_NOT_A_LIST: Final = "{given} is not a list; begin each item with a dash"
_NOT_AN_INTEGER: Final = "{given} is {what}; write a whole number{unquoted}"
_NOT_A_NUMBER: Final = "{given} is {what}; write a number{unquoted}"
_NOT_A_BOOLEAN: Final = "{given} is {what}; write true or false{unquoted}"
_NOT_A_MAPPING: Final = "{given} is not a mapping; put its fields below it, indented"
_TYPES: Final = {
    dict: "a mapping",
    list: "a list",
    bool: "a boolean",
    int: "a number",
    float: "a decimal number",
}
_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "required field is missing",
    "greater_than": "{given} is too small; it must be above {gt}",
    "greater_than_equal": "{given} is too small; the minimum is {ge}",
    "less_than_equal": "{given} is too large; the maximum is {le}",
    "too_short": "must have at least {min_length} item",
    "string_too_short": "must have at least {min_length} character",
    "too_long": "has {actual_length} items; the maximum is {max_length}",
    "string_too_long": "is too long; the maximum is {max_length} characters",
    "enum": "{given} is not supported; use {expected}",
    "literal_error": "{given} is not supported; use {expected}",
    "int_type": _NOT_AN_INTEGER,
    "finite_number": _NOT_AN_INTEGER,
    "float_type": _NOT_A_NUMBER,
    "bool_type": _NOT_A_BOOLEAN,
    "tuple_type": _NOT_A_LIST,
    "list_type": _NOT_A_LIST,
    "model_type": _NOT_A_MAPPING,
    "dict_type": _NOT_A_MAPPING,
    "invalid_key": "YAML reads the key {given}, which is not a string; put it in quotes, or fix its name",
    "model_attributes_type": _NOT_A_MAPPING,
}


class WrongFields(ValueError):
    """Errors of several fields below the one that is validated, each with where it stands there: every one becomes a problem."""

    def __init__(self, found: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in found))
        self.found = found


def problems_of(error: ValidationError, spec: Json, model: type[BaseModel], hidden: str = "") -> Iterator[Problem]:
    """One problem per error, in the order of the document. Values below the key `hidden` are not shown."""
    for entry in error.errors(include_url=False):
        if entry["type"] == "too_short" and len(entry["input"]) >= entry["ctx"]["min_length"]:
            continue  # it counts only valid items, and the others have errors of their own
        location = entry["loc"]
        place = _place(location, spec)
        if isinstance(several := entry.get("ctx", {}).get("error"), WrongFields):
            yield from (Problem(f"{place}.{field}", message) for field, message in several.found)
            continue
        given = _HIDDEN if hidden and location[:1] == (hidden,) else _shown(entry["input"])
        yield Problem(place, _message(entry, location, spec, model, given))


def _place(location: Sequence[int | str], spec: Json) -> str:
    """A location as the author knows it: items of a list by their name when they have one."""
    text, node = "", spec
    for part in location:
        node = _at([part], node)
        if isinstance(part, int):
            text += f"[{_item_name(node) or part}]"
        else:
            text += f".{part}" if text else part
    return text


def _at(location: Sequence[int | str], node: Json) -> Json:
    """What stands at a location; None where there is nothing."""
    for part in location:
        if isinstance(part, int):
            node = node[part] if isinstance(node, list) and part < len(node) else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    return node


def _item_name(item: Json) -> str:
    name = item.get("name", item.get("container")) if isinstance(item, dict) else None
    return name if isinstance(name, str) else ""


def _message(entry: Any, location: Sequence[int | str], spec: Json, model: type[BaseModel], given: str) -> str:
    kind, context = entry["type"], entry.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown field; {_instead(location, spec, model)}"
    if kind == "value_error":
        return _of_validator(str(context["error"]), given)
    if kind == "string_pattern_mismatch":
        pattern = context["pattern"]
        return f"{given} {_NOT_VALID} {_PATTERNS.get(pattern, f'value; it must match {pattern}')}"
    if kind == "string_type":
        return _not_a_string(entry["input"], given, location[-1])
    if kind == "model_type" and (field := _only_field(location, model)) and _may_be_shown(entry["input"], given):
        return f"{given} is not a mapping; write {{{field}: {entry['input']}}}"
    if kind not in _MESSAGES:
        return f"{given} is not valid: {entry['msg']}"
    value = entry["input"]
    bounds = {key: f"{bound:g}" if isinstance(bound, float) else bound for key, bound in context.items()}
    unquoted = " without quotes" if isinstance(value, str) else ""
    return _MESSAGES[kind].format(given=given, what=name_of_type(value), unquoted=unquoted, **bounds)


def _of_validator(message: str, given: str) -> str:
    """Most validators name the value themselves; of the others the message begins with what is wrong, or with the way out."""
    if message.startswith("is not a duration"):
        return f"{given} {message}"
    return f"{given} is not valid: {message}" if message.startswith("write ") else message


def _only_field(location: Sequence[int | str], model: type[BaseModel]) -> str:
    """The only field that a mapping must have, when that names an object; else empty."""
    required = _schema_of(location, model).get("required", ())
    return required[0] if len(required) == 1 and required[0] in _NAMING else ""


def _may_be_shown(name: Json, given: str) -> bool:
    return given != _HIDDEN and is_name(name)


def name_of_type(value: Json) -> str:
    """What a value is, in the words of YAML."""
    return _TYPES.get(type(value), "a string" if isinstance(value, str) else "null")


def _instead(location: Sequence[int | str], spec: Json, model: type[BaseModel]) -> str:
    """The way out for an unknown field: it stands one level too deep, it is misspelt, or nothing like it exists."""
    *above, key = location
    if above and isinstance(above[-1], str) and key != "name":
        outer = _at(above[:-1], spec)
        if key in _fields_of(above[:-1], model) and isinstance(outer, dict) and key not in outer:
            return f"it belongs beside {above[-1]}, so unindent it"
    near = difflib.get_close_matches(str(key), sorted(_fields_of(above, model)), n=1)
    return f"did you mean {near[0]}?" if near else "remove it"


def _not_a_string(value: Json, given: str, field: int | str = "") -> str:
    if isinstance(value, dict) and len(value) == 1 and field and _may_be_shown(value.get("name"), given):
        return f"must be a string, not a mapping; write {field}: {value['name']}"
    if isinstance(value, (dict, list)):
        return f"must be a string, not a {'mapping' if isinstance(value, dict) else 'list'}"
    return f"{given} is not a string; put it in quotes"


def not_a_name(value: Json) -> str:
    """The message for a value that can be no name of an object."""
    given = _shown(value)
    return f"{given} {_NOT_VALID} {_PATTERNS[NAME_PATTERN]}" if isinstance(value, str) else _not_a_string(value, given)


def _fields_of(location: Sequence[int | str], model: type[BaseModel]) -> set[str]:
    """Names of the fields that are allowed in a mapping."""
    return set(_schema_of(location, model).get("properties", {}))


def _schema_of(location: Sequence[int | str], model: type[BaseModel]) -> Json:
    """The JSON schema of what stands somewhere in the document."""
    schema = model.model_json_schema(by_alias=True)
    node = schema
    for part in location:
        named: Json = node.get("properties", {}).get(part) or next(iter(node.get("patternProperties", {}).values()), {})
        node = node.get("items", {}) if isinstance(part, int) else named
        node = next((choice for choice in node.get("anyOf", ()) if choice.get("type") != "null"), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node


def _shown(value: Json) -> str:
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 -- fits a line
