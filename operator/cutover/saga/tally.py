"""Counts of gates and guards once their stage is over, from which the report of the run is made. Pure.

Counted in the same turn as the transition they belong to, and so saved with it: what is evaluated again after a crash counts
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Final

from cutover.saga.draft import Draft, position
from cutover.saga.requests import gates_skipped
from cutover.saga.turn import Done
from cutover.status.report import Comparison
from cutover.status.status import GateStatus, Verdict

REMEMBERED: Final = 8
"""Comparisons that are kept: those that failed first, then the latest."""


def record_judged_stage(draft: Draft, done: Done) -> None:
    """A stage is over; where there was nothing to do, no gate was evaluated."""
    if done.skip:
        return
    gates, guards, seen = draft.inputs.gates, draft.inputs.guards, draft.tally
    passed = sum(gate.verdict is Verdict.PASS for gate in gates)
    skipped = len(gates) - passed if gates_skipped(draft.status) else 0
    draft.update_tally(
        gates_passed=seen.gates_passed + passed,
        gates_skipped=seen.gates_skipped + skipped,
        guarded_stages=seen.guarded_stages + bool(guards),
    )
    draft.mark_gates_passed(position(draft.status), passed=passed == len(gates))
    _record_comparisons(draft, (*gates, *guards))


class Cause(Enum):
    """What made a run roll back or pause."""

    STEP = auto()
    DONE_STEP = auto()  # an earlier one, of which what it did no longer works
    GATE = auto()
    GUARD = auto()
    TIME = auto()  # of the plan as a whole
    USER = auto()  # who aborted or deleted it


def record_failure(draft: Draft, cause: Cause, message: str) -> None:
    """The run is rolled back or paused."""
    if cause is Cause.GATE:
        draft.update_tally(gates_failed=draft.tally.gates_failed + 1)
    elif cause is Cause.GUARD:
        draft.update_tally(failed_guard=message)
    else:
        return
    both = (*draft.inputs.gates, *draft.inputs.guards)
    _record_comparisons(draft, [gate for gate in both if gate.verdict is Verdict.FAIL])


def _record_comparisons(draft: Draft, gates: Sequence[GateStatus]) -> None:
    """The last result of each gate that compares. One that was skipped while it waited has none, even if it passed before."""
    step = draft.status.current.step if draft.status.current else ""
    latest = [
        Comparison(
            step="" if gate.guard else step,
            gate=gate.name,
            passed=gate.verdict is Verdict.PASS,
            message=gate.message,
        )
        for gate in gates
        if gate.compared and gate.verdict is not Verdict.WAIT
    ]
    named = {(one.step, one.gate) for one in latest}
    waits = {("" if gate.guard else step, gate.name) for gate in gates if gate.verdict is Verdict.WAIT}
    kept = [
        one
        for one in draft.tally.comparisons
        if (one.step, one.gate) not in named and not (one.passed and (one.step, one.gate) in waits)
    ]
    ordered = sorted([*kept, *latest], key=lambda one: not one.passed)  # what failed comes last, and is kept
    draft.update_tally(comparisons=tuple(ordered[-REMEMBERED:]))
