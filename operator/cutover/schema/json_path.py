"""JSONPath (RFC 9535) as plans may write it: what finds a few values in one pass over a document, and nothing costlier.

Pure. A path comes from the author of a plan and runs inside the operator, so what could take long is refused: descent (`..`),
several selectors in one bracket, functions (regular expressions among them), and queries in filters that go to many values.
"""

from __future__ import annotations

import functools
import itertools
from typing import Final

from jsonpath import JSONPath, JSONPathEnvironment, JSONPathError
from jsonpath.filter import (
    BaseExpression,
    BooleanLiteral,
    FilterExpression,
    FilterQuery,
    FloatLiteral,
    InfixExpression,
    IntegerLiteral,
    Nil,
    PrefixExpression,
    StringLiteral,
)
from jsonpath.segments import JSONPathChildSegment
from jsonpath.selectors import Filter, IndexSelector, NameSelector, SliceSelector, WildcardSelector

from cutover.field_path import Json

LONGEST: Final = 512
_DEEPEST: Final = 32
_PLAIN: Final = (NameSelector, IndexSelector, SliceSelector, WildcardSelector)
_LITERALS: Final = (Nil, BooleanLiteral, StringLiteral, IntegerLiteral, FloatLiteral)
_ENVIRONMENT: Final = JSONPathEnvironment(strict=True)


def check(text: str) -> None:
    """Raises ValueError, with a sentence for people, when it is no JSONPath or one that may cost too much."""
    _compiled(text)


def find(text: str, document: Json, most: int) -> list[Json]:
    """The first values that a path leads to, `most` of them at most."""
    path = _compiled(text)
    if isinstance(document, str):  # the library would read it as JSON once more
        return [] if path.segments else [document]
    return [match.obj for match in itertools.islice(path.finditer(document), most)]


@functools.lru_cache(maxsize=1024)
def _compiled(text: str) -> JSONPath:
    try:
        path = _ENVIRONMENT.compile(text)
    except (JSONPathError, RecursionError):
        path = None
    if path is None or not isinstance(path, JSONPath):
        raise ValueError("write one JSONPath as RFC 9535 has it, such as $.latency.p99")
    if says := _against(path):
        raise ValueError(says)
    return path


def _against(path: JSONPath) -> str:
    """What speaks against it; empty for nothing."""
    if len(path.segments) > _DEEPEST:
        return f"the JSONPath goes {len(path.segments)} levels deep; the most is {_DEEPEST}"
    for segment in path.segments:
        if not isinstance(segment, JSONPathChildSegment):
            return "the JSONPath has .. in it, which looks everywhere; name the way to the number"
        if len(segment.selectors) != 1:
            return "the JSONPath has several selectors in one bracket; keep one"
        (selector,) = segment.selectors
        if isinstance(selector, Filter):
            if says := _against_filter(selector.expression):
                return says
        elif not isinstance(selector, _PLAIN):
            return "the JSONPath has a selector that RFC 9535 does not know; use names, indexes, slices, * and filters"
    return ""


def _against_filter(expression: BaseExpression, depth: int = 0) -> str:
    if depth > _DEEPEST:
        return f"a filter of the JSONPath is nested more than {_DEEPEST} deep; write it plainly"
    if isinstance(expression, FilterExpression | PrefixExpression | InfixExpression):
        return next(filter(None, (_against_filter(child, depth + 1) for child in expression.children())), "")
    if isinstance(expression, FilterQuery):
        says = "a filter of the JSONPath looks at many values; name one, as in $.parts[?@.name == 'db']"
        return "" if expression.path.singular_query() else says
    if not isinstance(expression, _LITERALS):
        return "a filter of the JSONPath has a function in it; compare values with ==, <, && and the like alone"
    return ""
