"""What is kept of gates and guards once their stage is over, so that the end of the run can say what was seen. Pure.

Kept in the same turn as the transition it belongs to, and so saved with it: what is judged once more after a crash counts once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cutover.saga.draft import Draft, position
from cutover.saga.requests import gates_skipped
from cutover.saga.turn import Done
from cutover.status.reasons import Reason
from cutover.status.status import Compared, GateStatus, Verdict

REMEMBERED: Final = 8
"""Comparisons that are kept: those that failed first of all, then the latest."""


def note_judged(draft: Draft, done: Done) -> None:
    """A stage is over; one in which there was nothing to do was not judged."""
    if done.skip:
        return
    gates, guards, seen = draft.inputs.gates, draft.inputs.guards, draft.tally
    passed = sum(gate.verdict is Verdict.PASS for gate in gates)
    skipped = len(gates) - passed if gates_skipped(draft.status) else 0
    draft.count(passed=seen.passed + passed, skipped=seen.skipped + skipped, guarded=seen.guarded + bool(guards))
    draft.judged(position(draft.status), passed=passed == len(gates))
    _compared(draft, (*gates, *guards))


def note_failed(draft: Draft, reason: Reason | str, message: str) -> None:
    """The run turns back, or is paused."""
    if reason == Reason.GATE_FAILED:
        draft.count(failed=draft.tally.failed + 1)
    elif reason == Reason.GUARD_FAILED:
        draft.count(guard_failed=message)
    else:
        return
    both = (*draft.inputs.gates, *draft.inputs.guards)
    _compared(draft, [gate for gate in both if gate.verdict is Verdict.FAIL])


def _compared(draft: Draft, gates: Sequence[GateStatus]) -> None:
    """Of each gate that compares the last word; one that was skipped while it waited has none, whatever it said before."""
    step = draft.status.current.step if draft.status.current else ""
    latest = [
        Compared(
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
        for one in draft.tally.compared
        if (one.step, one.gate) not in named and not (one.passed and (one.step, one.gate) in waits)
    ]
    ordered = sorted([*kept, *latest], key=lambda one: not one.passed)  # what failed is pushed out last
    draft.count(compared=tuple(ordered[-REMEMBERED:]))
