"""Answers of Prometheus' query API. Anything but one finite number is a sample without a value, with a note in our own words."""

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
        return _unread()


def _unread() -> Sample:
    return Sample(None, "the answer of Prometheus cannot be read")


def _read(answer: Json) -> Sample:
    if not isinstance(answer, dict) or answer.get("status") != "success":
        return _unread()
    if answer.get("warnings"):
        return Sample(None, "Prometheus answers with warnings, so the result may be a part of the truth")
    kind, result = answer["data"].get("resultType"), answer["data"].get("result")
    if kind == "scalar":
        return _finite(*result)
    if kind in ("matrix", "string"):
        return Sample(None, f"the query gives a {kind}, not one number")
    if kind != "vector":
        return _unread()
    if not result:
        return Sample(None, "the query gives no series: nothing is there, or it is stale")
    if len(result) > 1:
        return Sample(None, f"the query gives {len(result)} series, not one; aggregate it, for example with sum()")
    if "value" not in result[0]:
        return Sample(None, "the query gives a histogram, not one number")
    return _finite(*result[0]["value"])


def _finite(at: float, text: str) -> Sample:
    value = float(text)
    if math.isfinite(value):
        return Sample(value, at=float(at))
    return Sample(None, f"the query gives {text}, which is no usable number")
