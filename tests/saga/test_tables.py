"""The tables are the law: every pair of a state and an event, legal or not, and that each state is reached and left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

import pytest

from cutover import saga
from cutover.errors import Broken
from cutover.saga.draft import Draft
from cutover.saga.tables import PLAN, STEP, TOUCHED, PlanEvent, StepEvent
from cutover.saga.turn import Inputs
from cutover.status.phases import PHASES, states_in
from cutover.status.state import State
from cutover.status.status import ACTIVE, ENDED, Phase, StepState
from saga.test_saga import NOW, RULES, Walk

S = TypeVar("S")
E = TypeVar("E")


@pytest.mark.parametrize("state", [None, *State])
@pytest.mark.parametrize("event", list(PlanEvent))
def test_the_plan_table_is_the_law(state: State | None, event: PlanEvent) -> None:
    status = replace(Walk().to("deploy").status, state=state, phase=None if state is None else PHASES[state])
    draft = Draft(RULES, status, Inputs(), NOW)
    to = PLAN.get((state, event))
    if to is not None:
        draft.plan_event(event, "Because")
        assert (draft.status.state, draft.status.phase, draft.status.reason) == (to, PHASES[to], "Because")
    else:
        with pytest.raises(Broken, match=f"^a plan in state {state} cannot {event}$"):
            draft.plan_event(event, "Because")
        assert draft.status == status, "what is refused changes nothing"


@pytest.mark.parametrize("state", list(StepState))
@pytest.mark.parametrize("event", list(StepEvent))
def test_the_step_table_is_the_law(state: StepState, event: StepEvent) -> None:
    before = Walk().to("deploy").status
    status = replace(before, steps=(replace(before.steps[0], state=state), *before.steps[1:]))
    draft = Draft(RULES, status, Inputs(), NOW)
    to = STEP.get((state, event))
    if to is not None:
        draft.step_event(0, event)
        assert draft.status.steps[0].state is to
    else:
        with pytest.raises(Broken, match=f"^step deploy is {state} and cannot {event}$"):
            draft.step_event(0, event)
        assert draft.status == status, "what is refused changes nothing"


def test_each_event_is_in_its_table() -> None:
    assert {event for _, event in PLAN} == set(PlanEvent)
    assert {event for _, event in STEP} == set(StepEvent)


def reached_from(start: S, table: Mapping[tuple[S, E], S]) -> set[S]:
    """All states to which a table leads from one."""
    found = {start}
    while more := {to for (of, _), to in table.items() if of in found} - found:
        found |= more
    return found


def test_every_state_is_reached() -> None:
    assert reached_from(None, PLAN) == {None, *State}
    assert reached_from(StepState.PENDING, STEP) == set(StepState)


@pytest.mark.parametrize("state", [None, *State])
def test_every_state_of_a_plan_has_a_way_to_an_end(state: State | None) -> None:
    assert reached_from(state, PLAN) & states_in(*ENDED)


@pytest.mark.parametrize("state", sorted(states_in(*ACTIVE)))
def test_whatever_it_does_a_plan_that_has_begun_can_be_abandoned(state: State) -> None:
    assert PLAN[state, PlanEvent.ABANDON] is State.ABANDONED


@pytest.mark.parametrize("state", list(StepState))
def test_every_state_of_a_step_has_a_way_to_an_end(state: StepState) -> None:
    ends = {StepState.DONE, StepState.UNDONE}
    assert reached_from(state, STEP) & ends
    assert state not in TOUCHED or StepState.UNDONE in reached_from(state, STEP)


def test_in_every_state_it_is_known_what_is_done_next() -> None:
    assert set(saga._IN_STATE) == set(State)


def test_active_and_ended_are_all_but_pending() -> None:
    assert set(Phase) - {Phase.PENDING} == ACTIVE | ENDED
    assert not ACTIVE & ENDED
