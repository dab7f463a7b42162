"""A status stays below 64 KiB, whatever the plan: with 64 steps, and 16 gates and 16 guards that all have much to say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from cutover.conditions import present
from cutover.plan import write_status
from cutover.requests import RequestVerb
from cutover.status import (
    RISKS,
    Answer,
    Current,
    Failure,
    GateStatus,
    PastRun,
    Phase,
    RequestRecord,
    Risk,
    Run,
    Status,
    StepState,
    StepStatus,
    with_risks,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
NAME, LONG = "n" * 63, "x" * 100_000


def test_the_largest_status() -> None:
    run = Run(
        number=99, generation=99, spec_hash="f" * 64, started_at=NOW, fence=999, spent=1e6, held_at=NOW, finished_at=NOW
    )
    gates = tuple(
        GateStatus(name=NAME, value="1.23456e+07", bound=">= 0.123456 and <= 123456%", message=LONG, guard=place > 15)
        for place in range(32)
    )
    status = Status(
        observed_generation=99,
        phase=Phase.UNWINDING,
        reason="PastPointOfNoReturn",
        message=LONG,
        run=run,
        failure=Failure(step=NAME, stage="32/32", reason="StageTimedOut", message="x" * 1024),
        current=Current(
            step=NAME,
            stage="32/32",
            intent="i" * 512,
            weight=50,
            started_at=NOW,
            applied_at=NOW,
            message=LONG,
            gates=gates,
        ),
        point_of_no_return=NAME,
        steps=tuple(
            StepStatus(
                name=NAME,
                kind="traffic",
                state=StepState.UNDOING,
                attempt=10,
                made="u" * 32,
                written=True,
                started_at=NOW,
                finished_at=NOW,
                message="x" * 256,
            )
            for _ in range(64)
        ),
        requests=tuple(
            RequestRecord(
                verb=verb,
                token="t" * 64,
                answer=Answer.REJECTED,
                at=NOW,
                run=99,
                by="b" * 253,
                step=NAME,
                message="x" * 256,
            )
            for verb in RequestVerb
        ),
        history=tuple(
            PastRun(
                number=9, phase=Phase.SUCCEEDED, reason="Completed", message="x" * 256, started_at=NOW, finished_at=NOW
            )
            for _ in range(5)
        ),
    )
    status = with_risks(status, [Risk(kind, "OwnedBySeveral", LONG) for kind in RISKS], NOW)
    size = len(json.dumps(write_status(present(status, NOW))))
    assert 40_000 < size < 64 * 1024, size
