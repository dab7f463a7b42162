"""`.status` from JSON and to JSON. Pure; called by the driver and by all that shows a plan."""

from __future__ import annotations

from typing import Final

from pydantic import TypeAdapter

from cutover.field_path import Json
from cutover.status.status import Status

_STATUS: Final = TypeAdapter(Status)


def read_status(document: Json) -> Status:
    """Read `.status` as the operator saved it. Fields of a later version are ignored."""
    return _STATUS.validate_python(document or {})


def write_status(status: Status) -> Json:
    """The status as a JSON document, without what is empty or false."""
    return _without_empty(_STATUS.dump_python(status, mode="json", by_alias=True))


def _without_empty(document: Json) -> Json:
    if isinstance(document, dict):
        kept = {key: _without_empty(value) for key, value in document.items()}
        return {
            key: value
            for key, value in kept.items()
            if value is not None and value is not False and value not in ("", [], {})
        }
    if isinstance(document, list):
        return [_without_empty(item) for item in document]
    return document
