"""Which plans go before others."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.runtime.queue import Urgency
from cutover.runtime.urgency import urgency_of
from cutover.status.status import ACTIVE, ENDED

ABORT = {"annotations": {"request.cutover.dev/abort": "token=7f by=alice"}}
ABORTED = {"phase": "Running", "requests": [{"verb": "abort", "token": "7f", "answer": "Rejected"}]}


@pytest.mark.parametrize(
    ("metadata", "status", "urgency"),
    [
        ({}, {}, Urgency.ARRIVED),
        ({}, {"phase": "Pending"}, Urgency.ARRIVED),
        ({}, {"phase": "Running"}, Urgency.UNDER_WAY),
        ({}, {"phase": "Waiting"}, Urgency.UNDER_WAY),
        ({}, {"phase": "Succeeded"}, Urgency.ARRIVED),
        ({}, {"phase": "RollingBack"}, Urgency.BACKWARD),
        ({}, {"phase": "Stuck"}, Urgency.BACKWARD),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"phase": "Running"}, Urgency.BACKWARD),
        ({"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"phase": "Succeeded"}, Urgency.ARRIVED),
        (ABORT, {"phase": "Running"}, Urgency.BACKWARD),
        (ABORT, ABORTED, Urgency.UNDER_WAY),
        (ABORT, ABORTED | {"requests": [{"verb": "abort", "token": "6e"}]}, Urgency.BACKWARD),
        ({"annotations": {"request.cutover.dev/rollback": "now"}}, {"phase": "Succeeded"}, Urgency.BACKWARD),
        ({"annotations": {"request.cutover.dev/pause": "now"}}, {"phase": "Running"}, Urgency.UNDER_WAY),
    ],
)
def test_of_a_plan(metadata: dict[str, Any], status: dict[str, Any], urgency: Urgency) -> None:
    assert urgency_of({"metadata": metadata, "status": status}) is urgency


def test_of_a_plan_of_which_a_gate_has_failed() -> None:
    assert urgency_of({"metadata": {}, "status": {"phase": "Running"}}, failed=True) is Urgency.BACKWARD


def test_of_a_plan_that_is_gone() -> None:
    assert urgency_of(None) is Urgency.ARRIVED


def test_every_phase_has_one() -> None:
    for phase in {*ACTIVE, *ENDED}:
        assert (urgency_of({"metadata": {}, "status": {"phase": phase}}) is Urgency.ARRIVED) is (phase in ENDED)
