"""How far into the past a PromQL query looks. Pure; used by the source `prometheus`.

Only what decides that is read: selectors, ranges, subqueries and offsets, in one pass over the query. It is no parser of PromQL: what it does
not know (functions, other dialects, ranges that are computed) it passes over, so it may find too little, never too much
(docs/decisions/0019-ranges-of-queries.md).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

_DURATION: Final = r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|[smhdwy]))+|[0-9]+(?:\.[0-9]+)?"
_TOKEN: Final = re.compile(
    r"""
    (?P<text>"(?:\\.|[^"\\])*+(?:"|\\?\Z)|'(?:\\.|[^'\\])*+(?:'|\\?\Z)|`[^`]*+(?:`|\Z)|\#[^\n]*+)
    |(?P<range>\[[^]\[]*+\])
    |\boffset\b\s*+(?P<sign>-?)\s*+(?P<offset>"""
    + _DURATION
    + r""")
    |(?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*+\()
    |(?P<function>[A-Za-z_:][\w:]*+\s*+\()
    |(?P<word>[A-Za-z_:][\w:]*+)
    |(?P<number>[0-9.][\w.]*+)
    |(?P<other>\S)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[smhdwy]?)")
_SECONDS: Final = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_OPERATORS: Final = ("and", "or", "unless", "atan2", "bool", "offset")
_MATCHING: Final = ("by", "without", "on", "ignoring", "group_left", "group_right")
_AGGREGATIONS: Final = ("sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "quantile")
_CHOOSING: Final = ("bottomk", "topk", "limitk", "limit_ratio")
_NO_SELECTORS: Final = frozenset((*_OPERATORS, *_MATCHING, *_AGGREGATIONS, *_CHOOSING, "inf", "nan"))


@dataclass(frozen=True, slots=True)
class _Span:
    """From when until when the samples of an expression are, in seconds before now; of several only the newest count.

    A part of a query that ends earlier than another is a comparison with the past, and meant to be one.
    """

    newest: float
    oldest: float

    def further(self, range_: float = 0.0, offset: float = 0.0) -> _Span:
        return _Span(self.newest + offset, self.oldest + offset + range_)


def _together(one: _Span | None, other: _Span | None) -> _Span | None:
    if one is None or other is None:
        return one or other
    if one.newest != other.newest:
        return min(one, other, key=lambda span: span.newest)
    return _Span(one.newest, max(one.oldest, other.oldest))


@dataclass(slots=True)
class _Group:
    """What stands in parentheses so far: `last` is what a range or an offset after it is of."""

    labels: bool = False
    all: _Span | None = None
    last: _Span | None = None

    def add(self, span: _Span | None) -> None:
        if span is not None:
            self.all, self.last = _together(self.all, self.last), span

    def end(self) -> None:
        self.all, self.last = _together(self.all, self.last), None


@dataclass(slots=True)
class _Reader:
    groups: list[_Group] = field(default_factory=lambda: [_Group()])
    in_braces: bool = False

    def take(self, kind: str, found: re.Match[str]) -> None:
        group, text = self.groups[-1], found.group()
        if self.in_braces:
            self.in_braces = text != "}"
        elif kind in ("function", "labels"):
            self.groups.append(_Group(kind == "labels"))
        elif kind == "range" and group.last is not None:
            group.last = group.last.further(range_=_seconds(text[1:-1].partition(":")[0]))
        elif kind == "offset" and group.last is not None:
            shift = _seconds(found["offset"])
            group.last = group.last.further(offset=-shift if found["sign"] else shift)
        elif kind == "word" and text.lower() not in _NO_SELECTORS and not group.labels:
            group.add(_Span(0.0, 0.0))
        elif kind in ("word", "other"):
            self._sign(text)

    def _sign(self, sign: str) -> None:
        group = self.groups[-1]
        if sign == "{":
            self.in_braces = True
            if group.last is None:  # a selector without a name
                group.add(_Span(0.0, 0.0))
        elif sign == "(":
            self.groups.append(_Group())
        elif sign == ")" and len(self.groups) > 1:
            self.groups.pop()
            group.end()
            self.groups[-1].add(group.all)
        elif sign != "@":
            group.end()


def looks_back(query: str) -> timedelta:
    """How old the oldest sample is that the newest part of a query reads, without the server's own lookback."""
    reader = _Reader()
    for kind, found in _tokens(query):
        reader.take(kind, found)
    while len(reader.groups) > 1:  # parentheses that are not closed: the server will refuse the query
        inner = reader.groups.pop()
        inner.end()
        reader.groups[-1].add(inner.all)
    reader.groups[0].end()
    span = reader.groups[0].all
    return timedelta(seconds=min(max(span.oldest, 0.0), _SECONDS["y"] * 100)) if span else timedelta()


def _tokens(query: str) -> Iterator[tuple[str, re.Match[str]]]:
    for found in _TOKEN.finditer(query):
        kind = found.lastgroup
        if kind is not None and kind != "text":
            yield kind, found


def _seconds(text: str) -> float:
    """A duration of PromQL in seconds; 0 where it is none, such as an expression."""
    written = text.strip()
    if not re.fullmatch(_DURATION, written):
        return 0.0
    return sum(float(count) * _SECONDS[unit] for count, unit in _PART.findall(written))
