"""The ledger of the API server in memory: no mark of a success while a field that the run wrote has another value."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.errors import Broken
from cutover.ports import APPLIED_LABEL, PLAN_LABEL
from cutover.testing.ledger import Ledger
from support.fakes.shop import V1, V2

MINE = {PLAN_LABEL: "uid-1"}
MARKED = {APPLIED_LABEL: "hash"}


def body(replicas: int, labels: dict[str, str]) -> dict[str, Any]:
    return {"metadata": {"labels": labels}, "spec": {"replicas": replicas}}


def written() -> Ledger:
    """A run has claimed an object, and set its replicas to 3, then 5."""
    ledger = Ledger()
    ledger.note(V2, body(1, {}), body(1, MINE), {})
    ledger.note(V2, body(1, MINE), body(3, MINE), {})
    ledger.note(V2, body(3, MINE), body(5, MINE), {})
    return ledger


@pytest.mark.parametrize("there", [{V2: body(3, MINE)}, {}])
def test_a_success_is_not_marked_while_a_field_differs_or_its_object_is_gone(there: dict[Any, Any]) -> None:
    ledger = written()
    ledger.note(V1, body(1, {}), body(1, MINE), {})
    with pytest.raises(Broken, match="a run ends as a success"):
        ledger.note(V1, body(1, MINE), body(1, MARKED), there)


def test_what_was_written_last_counts_and_a_release_without_a_mark_is_not_asked() -> None:
    written().note(V2, body(5, MINE), body(5, MARKED), {V2: body(5, MINE)})
    written().note(V2, body(1, MINE), body(1, {}), {V2: body(1, MINE)})
