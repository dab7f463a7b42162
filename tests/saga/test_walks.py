"""Random walks: whatever comes in, in whatever order, the saga keeps its promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutover.requests import Request, RequestVerb
from cutover.saga import advance
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import Again, Command, Done, Failed, Inputs, Outcome, Verb, Wait
from cutover.status import ENDED, GateStatus, Phase, Status, StepState, Verdict, settled
from saga.test_saga import RULES

OUTCOMES: list[Outcome | None] = [
    None,
    Done(),
    Done(skip=True),
    Again(1.0, "not yet"),
    Wait("AwaitingApproval", "a person"),
    Failed("Rejected", "no"),
]
GATES = [
    (),
    (GateStatus(name="g", verdict=Verdict.WAIT),),
    (GateStatus(name="g", verdict=Verdict.FAIL, message="bad"),),
]
REQUESTS = [(), *((Request(verb, str(token), "bob", "shift"),) for verb in RequestVerb for token in range(2))]

turns = st.lists(
    st.tuples(
        st.sampled_from(OUTCOMES),
        st.sampled_from([*GATES, (), ()]),
        st.sampled_from([*REQUESTS, (), (), (), ()]),
        st.booleans(),  # crash
        st.sampled_from([False] * 9 + [True]),  # deleting, from here on
        st.sampled_from([0, 1, 30, 100]),  # seconds that pass
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(turns)
def test_promises(
    walk: list[tuple[Outcome | None, tuple[GateStatus, ...], tuple[Request, ...], bool, bool, int]],
) -> None:
    status, now, deleting, bound = Status(), datetime(2026, 1, 1, tzinfo=UTC), False, False
    command: Command | None = None
    for outcome, gates, requests, crash, delete, seconds in walk:
        deleting = deleting or delete
        now += timedelta(seconds=seconds)
        before = status
        if crash:
            status, command = settled(status), None
        given_outcome = outcome if command is not None else None
        inputs = Inputs(
            outcome=given_outcome, gates=gates, requests=requests, taken_over=crash, deleting=deleting, bound=bound
        )
        turn = advance(RULES, status, inputs, now)
        status, command = turn.status, turn.command
        _check(before, status, command)
        if command is not None and command.verb in (Verb.CLAIM, Verb.UNBIND):
            bound = command.verb is Verb.CLAIM
    _finishes(status, now, bound=bound)


def _check(before: Status, status: Status, command: Command | None) -> None:
    fence_before = before.run.fence if before.run else 0
    assert status.run is not None
    assert status.run.fence >= fence_before, "the fence never falls"
    states = [step.state for step in status.steps]
    touched = [place for place, state in enumerate(states) if state in TOUCHED or state is StepState.UNDONE]
    assert touched == list(range(len(touched))), "steps begin in their order"
    assert sum(state in (StepState.DOING, StepState.WAITING, StepState.UNDOING) for state in states) <= 1
    if command is not None and command.verb is Verb.DO:
        assert states[command.step] in (StepState.DOING, StepState.WAITING), "a command is announced"
        assert status.current is not None
        assert status.current.step == status.steps[command.step].name
        assert status.current.stage.startswith(f"{command.stage + 1}/")
    if command is not None and command.verb is Verb.UNDO:
        assert states[command.step] is StepState.UNDOING
        assert not any(state in TOUCHED for state in states[command.step + 1 :]), "the last comes first"
    if status.phase is Phase.SUCCEEDED:
        assert set(states) == {StepState.DONE}
    if status.phase is Phase.ROLLED_BACK:
        assert not set(states) & TOUCHED
        assert status.failure is not None


def _finishes(status: Status, now: datetime, *, bound: bool) -> None:
    """From wherever it is: deleted, with every command done, it ends in a few turns."""
    outcome: Outcome | None = None
    for _ in range(40):
        now += timedelta(minutes=2)
        turn = advance(RULES, status, Inputs(outcome=outcome, deleting=True, bound=bound), now)
        status, outcome = turn.status, Done() if turn.command else None
        if status.phase in ENDED:
            return
    raise AssertionError(f"never ends: {status}")
