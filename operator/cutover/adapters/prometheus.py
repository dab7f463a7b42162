"""Reads answers of Prometheus' query API. Anything but one finite number becomes a sample without a value and with a note.

Notes are in our own words: no text of an answer reaches a status or a log. Pure; called by providers.py.
"""

from __future__ import annotations

import math
from typing import Final

from cutover.field_path import Json
from cutover.ports import Sample

PATH: Final = "/api/v1/query"


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
    if answer.get("warnings"):
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


def _finite(at: float, text: str) -> Sample:
    value = float(text)
    if math.isfinite(value):
        return Sample(value, at=float(at))
    return Sample(None, f"the query returns {text}, which is not a finite number")
