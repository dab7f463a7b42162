"""Reads answers of Prometheus' query API. Anything but one finite number becomes a sample without a value and with a note.

Several servers have that API, and each says in its own way that an answer is not complete: docs/gates/prometheus.md has the table.
Notes are in our own words: no text of an answer reaches a status or a log. Pure; called by providers.py.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from cutover.field_path import Json
from cutover.ports import Sample

PATH: Final = "/api/v1/query"
_SENT_ON: Final = r"(?:remote query warning \([^()]*\): )*"
"""How a querier of Thanos begins a text that another querier has sent it."""
_CONTINUES: Final = (
    'name does not |__type__ label |got "|from buckets |with a max diff |over \\d+ samples |result is |which are '
)
"""What stands behind a comma within an info. Thanos puts the texts of another querier into one, with commas between them."""
_ONE_INFO: Final = rf"{_SENT_ON}PromQL info: [^,]+(?:, (?:{_CONTINUES})[^,]+)*"
_INFOS: Final = re.compile(rf"{_ONE_INFO}(?:, {_ONE_INFO})*")


def read(answer: Json) -> Sample:
    """The one number in an answer."""
    try:
        return _read(answer)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return _unreadable()


def _unreadable() -> Sample:
    return Sample(None, "the response of Prometheus cannot be read")


def _read(answer: Json) -> Sample:
    if not isinstance(answer, dict) or answer.get("status") != "success":
        return _unreadable()
    if answer.get("isPartial"):
        return Sample(None, "the response is partial: a part of the storage of metrics gave no answer")
    if not all(_is_info(text) for text in answer.get("warnings") or ()):
        return Sample(None, "Prometheus answered with warnings, so the result may be incomplete")
    kind, result = answer["data"].get("resultType"), answer["data"].get("result")
    if kind == "scalar":
        return _finite(*result)
    if kind in ("matrix", "string"):
        return Sample(None, f"the query returns a {kind}, not one number")
    if kind != "vector":
        return _unreadable()
    if not result:
        return Sample(None, "the query returns no series: there is no data, or it is stale")
    if len(result) > 1:
        return Sample(None, f"the query returns {len(result)} series, not one; aggregate them, for example with sum()")
    if "value" not in result[0]:
        return Sample(None, "the query returns a histogram, not one number")
    return _finite(*result[0]["value"])


def _is_info(text: Any) -> bool:
    """Whether a text among the warnings is a hint on the query, which says nothing of what is missing in the result."""
    return isinstance(text, str) and _INFOS.fullmatch(text) is not None


def _finite(at: float, text: str) -> Sample:
    value = float(text)
    if math.isfinite(value):
        return Sample(value, at=float(at))
    return Sample(None, f"the query returns {text}, which is not a finite number")
