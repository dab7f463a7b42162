"""Who has written a status, told from what it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cutover.status.durable import says_nothing_else
from cutover.status.requests import Answer, RequestRecord
from cutover.status.status import Current, Phase, Run, Status, StepState, StepStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = Run(number=1, generation=1, spec_hash="h", started_at=NOW, fence=3, running_since=NOW)
DEPLOY = StepStatus(name="deploy", kind="deploy", state=StepState.DONE, attempt=1)
SHIFT = StepStatus(name="shift", kind="traffic", state=StepState.DOING, attempt=1, made="uid")
ASKED = RequestRecord(verb="abort", token="t", answer=Answer.ACCEPTED, at=NOW, run=1)  # noqa: S106 -- of a request
OURS = Status(
    phase=Phase.RUNNING,
    reason="Progressing",
    run=RUN,
    current=Current(step="shift", stage="1/2", intent="weight 10", started_at=NOW),
    steps=(DEPLOY, SHIFT),
    requests=(ASKED,),
)


@pytest.mark.parametrize(
    "read",
    [
        OURS,
        Status(),
        replace(OURS, run=None),
        replace(OURS, current=None, requests=()),
        replace(OURS, run=replace(RUN, running_since=None)),
        replace(OURS, steps=(DEPLOY, replace(SHIFT, made="", state=StepState.PENDING))),
    ],
)
def test_ours_without_some_fields(read: Status) -> None:
    assert says_nothing_else(read, OURS)


@pytest.mark.parametrize(
    "read",
    [
        replace(OURS, run=replace(RUN, fence=4)),
        replace(OURS, run=replace(RUN, running_since=NOW + timedelta(seconds=1))),
        replace(OURS, phase=Phase.ROLLING_BACK),
        replace(OURS, requests=(ASKED, replace(ASKED, verb="pause"))),
        replace(OURS, steps=(DEPLOY,)),
        replace(OURS, steps=(DEPLOY, replace(SHIFT, state=StepState.DONE))),
        replace(OURS, point_of_no_return="deploy"),
    ],
)
def test_somebody_elses(read: Status) -> None:
    assert not says_nothing_else(read, OURS)
    assert not says_nothing_else(read, Status())
