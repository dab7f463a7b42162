"""What a failure leads to, and what is remembered: one case a sentence, in the saga alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cutover.requests import Request, RequestVerb
from cutover.saga.turn import Done, Rules
from cutover.status import Phase, Verdict
from saga.test_saga import RULES, Walk, gate

FAILING = (gate(Verdict.FAIL),)
PASSING, GUARD = (gate(Verdict.WAIT),), (gate(Verdict.FAIL, guard=True),)


def with_deploy(**changes: object) -> Rules:
    """The rules, where the first step is another."""
    first = replace(RULES.steps[0], **changes)  # type: ignore[arg-type]
    return replace(RULES, steps=(first, *RULES.steps[1:]))


# --- guards after the point of no return --------------------------------------------------------------------------------


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_guard_holds_after_the_point_of_no_return(*, irreversible: bool) -> None:
    walk = Walk(with_deploy(irreversible=irreversible)).to("shift")
    said = walk.go(guards=GUARD)
    assert walk.status.failure is not None
    assert walk.status.failure.reason == "GuardFailed"
    assert (said, walk.status.phase) == (("", Phase.HELD) if irreversible else ("undo shift", Phase.UNWINDING))


@pytest.mark.parametrize("irreversible", [False, True])
def test_a_held_plan_past_it_stays_held_whatever_its_guards_say(*, irreversible: bool) -> None:
    walk = Walk(with_deploy(irreversible=irreversible)).to("shift")
    walk.go(Done())
    walk.go(requests=(Request(RequestVerb.HOLD, "1"),))
    assert walk.is_(Phase.HELD)
    walk.go(guards=GUARD)
    assert walk.status.phase is (Phase.HELD if irreversible else Phase.UNWINDING)
    assert (walk.status.reason == "HeldByPerson") is irreversible
