"""YAML in a string: the type of fields that hold a part of another object, such as a patch or the template of a Job. Pure.

The API server checks and keeps such a field as text. As a field of unknown content it would accept documents that it cannot send
back, because its limits for reading are lower than those for writing. The text comes from the author of a plan and is read inside
the operator, so it is built from the events of the parser, which do not nest: size and depth are bounded before anything is built.
Scalars are read as kubectl reads them, not as PyYAML does: `12:30` and `2026-01-01` are strings. There are three
exceptions: `y`, `Y`, `n` and `N` are strings (kubectl: booleans), so are `.inf` and `.nan` (kubectl: an error), and a whole number of 2^53
or more that is written as a float stays one (kubectl: an integer).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import yaml
from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema

from cutover.errors import PlanError, Problem
from cutover.field_path import Json
from cutover.schema.problems import name_of_type
from cutover.schema.yaml_mistakes import TEMPLATE, sentence

LONGEST: Final = 16_384
"""Maximum characters of a text, as the API server counts them: up to four times as many bytes."""
MOST: Final = 2_000
"""Maximum keys and values of a text, lists and mappings included; the template of a usual Job has about 50."""
MOST_TOGETHER: Final = 20_000
"""The same for all texts of a plan together, which are read in one go while all other plans wait."""
DEEPEST: Final = 32
"""Maximum depth of mappings and lists; a pod template needs 12."""
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_INTEGER: Final = re.compile(r"[-+]?(0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)")
_OCTAL: Final = re.compile(r"[-+]?0[0-7]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_LARGEST: Final = 2**63
_EXACT: Final = 2**53
"""Up to here a float that is a whole number is written as one, as kubectl does."""
_DIGITS: Final = 70
"""More characters than any integer below `_LARGEST` needs, in any base."""
_CORE: Final = "tag:yaml.org,2002:"
_TOO_MANY: Final = f"more than {MOST} keys and values, the maximum; long lists belong into a ConfigMap or the image"
_TOO_MUCH: Final = (
    f"the patches and templates of all steps, gates and guards have more than {MOST_TOGETHER} keys and values together, "
    "the maximum; split the plan, or keep templates in CronJobs and name them in cronJob"
)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not been read yet; `keys` is empty between a value and the next key."""

    items: Json
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Room:
    """The context in which the spec of a plan is validated.

    Attributes:
        left: how many keys and values its texts may still have.
        namespace: of the plan; empty where it is not known.
    """

    left: int = MOST_TOGETHER
    namespace: str = ""


def parse(text: str, field: str = "text", room: Room | None = None) -> dict[str, Any]:
    """The mapping that the text in a field holds; JSON is YAML too.

    Raises:
        ValueError: the text is wrong, with a sentence for the author.
        PlanError: no room is left for it. It ends the validation of the plan at once, as each further text would cost time.
    """
    if len(text) > LONGEST:
        raise ValueError(
            f"has {len(text)} characters, and the maximum is {LONGEST}; comments count too, "
            "and long scripts belong into a ConfigMap or the image"
        )
    try:
        document = _built(text, room or Room())
    except yaml.MarkedYAMLError as error:
        raise _mistake(error.problem_mark, f"not valid YAML: {sentence(error, text)}") from None
    except (yaml.YAMLError, UnicodeError):
        raise ValueError("contains a control character; remove it") from None
    if document is None:
        raise ValueError(f'is empty; indent the lines below "{field}: |", or remove it')
    if not isinstance(document, dict):
        if _is_json_patch(document):
            raise ValueError("a list of op, path and value is a JSON patch; write a strategic merge patch")
        what = f"is {name_of_type(document)}, and not a mapping"
        raise ValueError(f"{what}; begin its lines with the name of a field and a colon")  # noqa: TRY004 -- of the author
    return document


def _is_json_patch(document: Json) -> bool:
    return isinstance(document, list) and any(
        isinstance(item, dict) and {"op", "path"} <= item.keys() for item in document
    )


def _built(text: str, room: Room) -> Json:
    """The only document of a text."""
    root = _Open([])
    inside = [root]
    for event in _events(text, room):
        if isinstance(event, yaml.DocumentStartEvent) and root.items:
            raise _mistake(event.start_mark, "a second document begins; keep one, without ---")
        if isinstance(event, yaml.CollectionEndEvent):
            inside.pop()
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event)
            _put(inside[-1], node, event)
            if isinstance(node, dict | list):
                if len(inside) > DEEPEST:
                    raise _mistake(
                        event.start_mark, f"more than {DEEPEST} levels deep, the maximum; check the indentation"
                    )
                inside.append(_Open(node))
    return root.items[0] if root.items else None


def _events(text: str, room: Room) -> Iterator[Any]:
    """The events of a text, as many as it and its plan may have."""
    count = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.NodeEvent):
            count, room.left = count + 1, room.left - 1  # also of texts that are refused, for they cost the same
            if room.left < 0:
                raise PlanError(Problem("", _TOO_MUCH))
            if count > MOST:
                raise _mistake(event.start_mark, _TOO_MANY)
        yield event


def _node(event: Any) -> Json:
    """A scalar, or an empty mapping or list to fill."""
    if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
        name = f"{'*' if isinstance(event, yaml.AliasEvent) else '&'}{event.anchor}"
        way_out = "write the value out, or put it in quotes if it is a string"
        raise _mistake(event.start_mark, f"anchors and aliases such as {name} are not supported; {way_out}")
    if event.tag is not None:
        raise _mistake(event.start_mark, f"the tag {event.tag.replace(_CORE, '!!')} is not supported; remove it")
    if isinstance(event, yaml.MappingStartEvent):
        return {}
    if isinstance(event, yaml.SequenceStartEvent):
        return []
    return event.value if event.style else _plain(event.value)


def _plain(text: str) -> Json:
    """A scalar without quotes: null, a boolean, a number that JSON can express, or else a string."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == "_":
        return text
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits) and len(digits) <= _DIGITS:
        number = int(digits, 8 if _OCTAL.fullmatch(digits) else 0)
        if -_LARGEST <= number < _LARGEST:
            return number
    if _FLOAT.fullmatch(digits) and math.isfinite(real := float(digits)):
        return int(real) if real.is_integer() and abs(real) < _EXACT else real
    return text


def _put(parent: _Open, node: Json, event: Any) -> None:
    """Add a node to the mapping or list that it is in."""
    if isinstance(parent.items, list):
        parent.items.append(node)
    elif parent.keys:
        parent.items[parent.keys.pop()] = node
    elif isinstance(node, dict):
        raise _mistake(event.start_mark, TEMPLATE)
    elif not isinstance(node, str):
        shown = "a list" if isinstance(node, list) else event.value
        raise _mistake(event.start_mark, f"the key {shown} is not a string for YAML; put it in quotes, or fix its name")
    elif node == "<<" and not event.style:
        raise _mistake(event.start_mark, "the merge key << is not supported; write the fields out")
    elif node in parent.items:
        raise _mistake(event.start_mark, f"{node} is given twice in one mapping; keep one")
    else:
        parent.keys.append(node)


def _mistake(mark: Any, what: str) -> ValueError:
    return ValueError(f"line {mark.line + 1}, column {mark.column + 1} of the text: {what}")


def _read(value: object, info: ValidationInfo) -> dict[str, Any]:
    name = str(info.field_name).rstrip("_")
    if not isinstance(value, str):
        raise ValueError(f'must be text, not {name_of_type(value)}; write "{name}: |" and indent the YAML below it')  # noqa: TRY004 -- pydantic wants it
    return parse(value, name, info.context if isinstance(info.context, Room) else None)


YamlText = Annotated[
    dict[str, Any],
    BeforeValidator(_read),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST}),
]
"""A mapping, written as YAML or JSON in a string; the model has what is in it."""
