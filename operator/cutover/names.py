"""How names and labels become addresses at the API server: URL paths and selectors. Pure.

A name may come from anybody: the author of a plan, or of a route that a plan refers to. Whoever could put more than one segment
into a path would ask for another object, a list or another namespace with the operator's permissions. So nothing else makes a
path or a selector (a test of the repository looks), and `adapters/transport.py` takes no other text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final, NewType
from urllib.parse import quote

from cutover.errors import NotFound, Rejected

ApiPath = NewType("ApiPath", str)
"""A URL path below the address of the API server, quoted; only `path` makes one."""
Selector = NewType("Selector", str)
"""A label selector; only `matching` makes one."""
EVERYTHING: Final = Selector("")
"""The selector that selects all objects."""

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
"""The name of an object (RFC 1123 subdomain), for schemas; `is_name` tells whether a value is one."""
NAME_RULE: Final = (
    "lower case letters, digits, - and ., and begin and end with a letter or digit (at most 253 characters)"
)
_NAME: Final = re.compile(NAME_PATTERN)
_LONGEST: Final = 253
"""Characters of a name; no object that Cutover addresses can have a longer one."""
_SHOWN: Final = 60
_LABEL_KEY: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OPERATORS: Final = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
    "Lt": "{key}<{values}",
}


def is_name(value: object) -> bool:
    """Whether a value can be the name of an object."""
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def path(*segments: str) -> ApiPath:
    """A path of these segments, each of them one segment of the URL, no matter what it contains.

    Raises:
        NotFound: no object can be at such a path. The rule is the API server's for segments (`ValidatePathSegmentName`: not
            empty, not ``.`` or ``..``, without ``/`` and ``%``), plus what no kind allows: more than 253 characters, or any
            beyond ASCII. So whoever reads gets the answer of the server, without a request. Whoever writes gets Rejected
            (`Ref.written_at`), because a write must not take a wrong name for an object that is gone: an undo passes over those.
    """
    for segment in segments:
        if (
            segment in ("", ".", "..")
            or "/" in segment
            or "%" in segment
            or len(segment) > _LONGEST
            or not segment.isascii()
        ):
            raise NotFound(f"{_shown(segment)} cannot be the name of an object; use {NAME_RULE}")
    return ApiPath("".join(f"/{quote(segment, safe='')}" for segment in segments))


def matching(labels: Mapping[str, str], *others: tuple[str, str, Sequence[str]]) -> Selector:
    """The selector of objects that have all these labels and meet all other requirements.

    Args:
        labels: by key.
        others: key, operator (``In``, ``NotIn``, ``Exists``, ``DoesNotExist``, or ``Lt`` for numbers) and values.

    Raises:
        Rejected: a key or value cannot be a label, as the API server would answer. A comma in one would be another requirement.
    """
    for key, values in (*((key, (value,)) for key, value in labels.items()), *((key, of) for key, _, of in others)):
        if wrong := next((one for one in values if not _LABEL_VALUE.fullmatch(one)), None):
            raise Rejected(f"{_shown(wrong)} cannot be the value of label {_shown(key)}")
        if not _LABEL_KEY.fullmatch(key):
            raise Rejected(f"{_shown(key)} cannot be the key of a label")
    parts = [f"{key}={value}" for key, value in sorted(labels.items())]
    parts += [_OPERATORS[operator].format(key=key, values=",".join(of)) for key, operator, of in others]
    return Selector(",".join(parts))


def possible(name: str) -> str:
    """The name. Raises NotFound: no object can have it."""
    if not is_name(name):
        raise NotFound(f"{_shown(name)} cannot be the name of an object; use {NAME_RULE}")
    return name


def named(name: str) -> str:
    """The field selector of the object with this name. Raises NotFound: none can have it."""
    return f"metadata.name={possible(name)}"


def regarding(uid: str, reason: str) -> str:
    """The field selector of the events about an object with a reason, a word of ours. Raises NotFound: no object has this uid."""
    return f"regarding.uid={possible(uid)},reason={reason}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")
