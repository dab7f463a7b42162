"""The part of JSONPath (RFC 9535) that plans may use: it finds a few values in one pass over a document. Pure.

A path comes from the author of a plan and runs inside the operator, so what could be slow is refused: descent (`..`), several
selectors in one bracket, functions (including regular expressions), and queries in filters that yield many values. Called by gates/http.
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
"""Characters of a path, at most."""
_DEEPEST: Final = 32
_PLAIN_SELECTORS: Final = (NameSelector, IndexSelector, SliceSelector, WildcardSelector)
_LITERALS: Final = (Nil, BooleanLiteral, StringLiteral, IntegerLiteral, FloatLiteral)
_ENVIRONMENT: Final = JSONPathEnvironment(strict=True)


def check(text: str) -> None:
    """Raises ValueError, with a sentence for the author, when it is not a JSONPath or could be slow."""
    _compiled(text)


def find(text: str, document: Json, most: int) -> list[Json]:
    """The first values that a path leads to, `most` of them at most."""
    path = _compiled(text)
    if isinstance(document, str):  # the library would parse it as JSON again
        return [] if path.segments else [document]
    return [match.obj for match in itertools.islice(path.finditer(document), most)]


@functools.lru_cache(maxsize=1024)
def _compiled(text: str) -> JSONPath:
    try:
        path = _ENVIRONMENT.compile(text)
    except (JSONPathError, RecursionError):
        path = None
    if path is None or not isinstance(path, JSONPath):
        raise ValueError("write a JSONPath (RFC 9535) such as $.latency.p99")
    if problem := _problem(path):
        raise ValueError(problem)
    return path


def _problem(path: JSONPath) -> str:
    """Why a path is refused; empty when it is not."""
    if len(path.segments) > _DEEPEST:
        return f"the JSONPath goes {len(path.segments)} levels deep; the maximum is {_DEEPEST}"
    for segment in path.segments:
        if not isinstance(segment, JSONPathChildSegment):
            return "the JSONPath contains .., which searches the whole document; write the full path to the number"
        if len(segment.selectors) != 1:
            return "the JSONPath has several selectors in one bracket; keep one"
        (selector,) = segment.selectors
        if isinstance(selector, Filter):
            if problem := _filter_problem(selector.expression):
                return problem
        elif not isinstance(selector, _PLAIN_SELECTORS):
            return "the JSONPath has a selector that is not in RFC 9535; use names, indexes, slices, * and filters"
    return ""


def _filter_problem(expression: BaseExpression, depth: int = 0) -> str:
    if depth > _DEEPEST:
        return f"a filter of the JSONPath is nested more than {_DEEPEST} levels deep; simplify it"
    if isinstance(expression, FilterExpression | PrefixExpression | InfixExpression):
        return next(filter(None, (_filter_problem(child, depth + 1) for child in expression.children())), "")
    if isinstance(expression, FilterQuery):
        problem = "a filter of the JSONPath compares many values; name one, as in $.parts[?@.name == 'db']"
        return "" if expression.path.singular_query() else problem
    if not isinstance(expression, _LITERALS):
        return "a filter of the JSONPath calls a function; use only comparisons and && or ||"
    return ""
