"""The base of plans and settings, and the types of their fields.

The CRD, the docs and the checks are generated from these models, so each bound is defined once. Used by `plan/`, `settings/`, kinds
and gates.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from cutover.names import NAME_PATTERN
from cutover.status.spelling import camel

_DURATION: Final = re.compile(r"([0-9]+)(ms|s|m|h)")
DURATION_PATTERN: Final = r"^([0-9]{1,7}(ms|s|m|h)){1,4}$"
_LONGEST: Final = timedelta(days=36_525)
"""The maximum duration: several of them added up must still be a valid time."""
_UNITS: Final = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}


def _make_exact(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") in ("int", "float", "bool"):
            node["strict"] = True
        for part in node.values():
            _make_exact(part)
    elif isinstance(node, list | tuple):
        for part in node:
            _make_exact(part)


class Model(BaseModel):
    """A frozen model that refuses unknown fields by name, and numbers and booleans that are written as strings."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=camel, populate_by_name=True)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema of the model, with exact numbers and booleans.

        The API server takes no "3" for a 3, so a plan that has one cannot be applied. `strict` in the configuration would also
        refuse what is only written differently: lists for tuples, strings for enums.
        """
        schema = handler(source)
        _make_exact(schema)
        return schema


def parse_duration(
    value: object, least: timedelta = timedelta(), most: timedelta = _LONGEST, hint: str = ""
) -> timedelta:
    """Read ``90s``, ``1h30m`` or ``500ms``.

    Args:
        value: as written.
        least: the minimum.
        most: the maximum.
        hint: what else helps where the maximum is too short, for the message.

    Raises:
        ValueError: with a sentence for the author, which names the limits of the field also where this is not a duration at all.
    """
    if isinstance(value, timedelta):
        return value
    at_least = f"use {show_duration(least)} or more" if least else ""
    at_most = f"use {show_duration(most)} or less" if most < _LONGEST else ""
    if not isinstance(value, str) or not re.fullmatch(DURATION_PATTERN, value):
        units = "the units are h, m, s and ms, such as 90s or 12h"
        way_out = f"add its unit, such as {value}s" if type(value) is int else units
        raise ValueError("; ".join(filter(None, (f"is not a duration; {way_out}", at_least, at_most))))
    span = sum((int(count) * _UNITS[unit] for count, unit in _DURATION.findall(value)), timedelta())
    if span < least:
        raise ValueError(f"{value} is too short; {at_least}")
    if span > most:
        what = f"too long; {at_most}{hint}" if at_most else "longer than a hundred years; write a shorter duration"
        raise ValueError(f"{value} is {what}")
    return span


def show_duration(span: timedelta) -> str:
    """The shortest form of a duration; ``parse_duration`` reads it back."""
    rest = round(span.total_seconds() * 1000)
    text = ""
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return text or "0s"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(show_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32}),
]
"""A duration, written as ``90s`` or ``1h30m``."""

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN, max_length=253)]
"""The name of an object (RFC 1123 subdomain)."""

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", max_length=63)]
"""A short name (RFC 1123 label), for steps, gates and containers."""


def _decimal(value: object) -> float:
    if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,18}(\.[0-9]{1,9})?", value):
        raise ValueError('write a decimal number as a string, such as "0.5"')
    return float(value)


Decimal = Annotated[
    float,
    BeforeValidator(_decimal),
    PlainSerializer(lambda value: f"{value:g}"),
    WithJsonSchema({"type": "string", "pattern": r"^-?[0-9]{1,18}(\.[0-9]{1,9})?$", "maxLength": 32}),
]
"""A number written as a string, because Kubernetes API conventions rule out floats in specs."""

Text = Annotated[str, Field(max_length=1024)]


def validations(*rules: tuple[str, str]) -> dict[str, Any]:
    """CEL rules that the API server evaluates, each with its message; for `json_schema_extra` of a model or field.

    A message that begins with ``=`` is a CEL expression.
    """
    return {
        "x-kubernetes-validations": [
            {"rule": rule, "messageExpression" if message.startswith("=") else "message": message.removeprefix("=")}
            for rule, message in rules
        ]
    }
