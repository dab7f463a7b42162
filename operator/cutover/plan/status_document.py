"""`.status` from JSON and to JSON. Pure; called by the driver and by all that shows a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from pydantic import TypeAdapter

from cutover.field_path import Json
from cutover.status.phases import PHASES, state_before_states
from cutover.status.state import State
from cutover.status.status import Phase, Status

_STATUS: Final = TypeAdapter(Status)
_STATES, _PHASES = frozenset(State), frozenset(Phase)


def read_status(document: Json) -> Status:
    """Read `.status` as the operator saved it. Fields of a later version are ignored."""
    status = _STATUS.validate_python({**(document or {}), "state": saved_state(document)})
    return status if status.state is None else replace(status, phase=PHASES[status.state])


def saved_state(document: Json) -> State | None:
    """The state that a status tells of; None when the operator has not seen the plan.

    An earlier version has saved none, and a later one may save one that is not known here. The phase and the reason tell it then.
    """
    saved = document or {}
    if saved.get("state") in _STATES:
        return State(saved["state"])
    if saved.get("phase") not in _PHASES:
        return None
    return state_before_states(Phase(saved["phase"]), saved.get("reason", ""), failed="failure" in saved)


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
