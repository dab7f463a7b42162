"""Random walks: whatever comes in, in whatever order, the saga keeps its promises."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cutover.saga import advance
from cutover.saga.tables import TOUCHED
from cutover.saga.turn import (
    Again,
    Command,
    DeletionPolicy,
    Done,
    Failed,
    Inputs,
    OnFailure,
    Opening,
    Outcome,
    Pause,
    Rules,
    Verb,
    Wait,
)
from cutover.saga.unreadable_spec import unreadable
from cutover.status.durable import durable_part
from cutover.status.phases import PHASES, state_before_states
from cutover.status.requests import Request, RequestVerb
from cutover.status.status import ACTIVE, ENDED, GateStatus, Phase, Status, StepState, Verdict
from saga.test_saga import RULES

pytestmark = pytest.mark.exhaustive

OUTCOMES: list[Outcome | None] = [
    None,
    Done(),
    Done(),
    Done(skip=True),
    Again(1.0, "not yet"),
    Wait("AwaitingApproval", "a person"),
    Failed("Rejected", "no"),
    Pause("LoweredByHand", "somebody"),
]
GATES = [
    (),
    (GateStatus(name="g", verdict=Verdict.WAIT),),
    (GateStatus(name="g", verdict=Verdict.FAIL, message="bad"),),
    (GateStatus(name="g", verdict=Verdict.FAIL, message="bad", guard=True),),
]
OPENINGS = [Opening()] * 6 + [Opening(open=False, opens_at=datetime(2026, 2, 1, tzinfo=UTC)), Opening(open=False)]
TROUBLES = [None] * 6 + [Failed("TargetGone", "gone"), Pause("ClaimLost", "lost")]
REQUESTS = [Request(verb, str(token), "bob", "shift") for verb in RequestVerb for token in range(3)]


@dataclass(frozen=True)
class Happening:
    """What comes in at one turn."""

    outcome: Outcome | None
    gates: tuple[GateStatus, ...]
    target_problem: Failed | Pause | None
    problem_at: int
    requests: tuple[Request, ...]
    crash: bool
    delete: bool
    suspended: bool
    outdated: bool
    readable: bool
    opening: Opening
    ahead: frozenset[int]
    seconds: int


happenings = st.builds(
    Happening,
    outcome=st.sampled_from(OUTCOMES),
    gates=st.sampled_from([*GATES, (), (), ()]),
    target_problem=st.sampled_from(TROUBLES),
    problem_at=st.sampled_from([-1, 0, 1]),
    requests=st.lists(st.sampled_from(REQUESTS), max_size=2, unique_by=lambda request: request.verb).map(tuple),
    crash=st.booleans(),
    delete=st.sampled_from([False] * 12 + [True]),
    suspended=st.sampled_from([False] * 6 + [True]),
    outdated=st.sampled_from([False] * 9 + [True]),
    readable=st.sampled_from([False] + [True] * 9),
    opening=st.sampled_from(OPENINGS),
    ahead=st.sampled_from([frozenset[int](), frozenset[int](), frozenset({1}), frozenset({0, 1})]),
    seconds=st.sampled_from([0, 1, 30, 100]),
)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    """The plan of the other tests, with other policies."""
    steps = tuple(
        replace(
            rule,
            retries=draw(st.sampled_from([0, 0, 1])),
            irreversible=draw(st.sampled_from([False, False, True])),
            on_failure=draw(st.sampled_from(OnFailure)),
            enforced=rule.kind == "traffic",
            stages=(*rule.stages[:-1], replace(rule.stages[-1], cleanup=draw(st.booleans()))),
        )
        for rule in RULES.steps
    )
    return replace(
        RULES,
        steps=steps,
        on_failure=draw(st.sampled_from(OnFailure)),
        deletion=draw(st.sampled_from(DeletionPolicy)),
        keep_snapshots=timedelta(minutes=draw(st.sampled_from([0, 5]))),
    )


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rules(), st.lists(happenings, max_size=70))
def test_promises(rules: Rules, walk: list[Happening]) -> None:
    status, now, bound = Status(), datetime(2026, 1, 1, tzinfo=UTC), False
    deleted_at: datetime | None = None
    command: Command | None = None
    for happening in walk:
        now += timedelta(seconds=happening.seconds)
        deleted_at = deleted_at or (now if happening.delete else None)
        before = status
        if happening.crash:
            status, command = durable_part(status), None
        inputs = Inputs(
            outcome=happening.outcome if command is not None else None,
            last_command=command.verb if command is not None else None,
            gates=tuple(gate for gate in happening.gates if not gate.guard),
            guards=tuple(gate for gate in happening.gates if gate.guard),
            target_problem=happening.target_problem,
            problem_at=happening.problem_at,
            requests=tuple(sorted(happening.requests, key=lambda request: list(RequestVerb).index(request.verb))),
            new_process=happening.crash,
            deleted_at=deleted_at,
            suspended=happening.suspended,
            outdated_crd="the CRD is too old" if happening.outdated else "",
            opening=happening.opening,
            has_finalizer=bound,
            ready_to_undo=happening.ahead,
        )
        if happening.readable or status.phase not in ACTIVE:
            turn = advance(rules, status, inputs, now)
        else:
            turn = unreadable(status, "no", replace(inputs, outcome=None, last_command=None), now)
        status, command = turn.status, turn.command
        _check(rules, before, status, command)
        if command is not None and command.verb in (Verb.CLAIM, Verb.RECLAIM, Verb.REMOVE_FINALIZER):
            bound = command.verb is not Verb.REMOVE_FINALIZER
    _finishes(rules, status, now, bound=bound)


def _check(rules: Rules, before: Status, status: Status, command: Command | None) -> None:
    assert status.run is not None
    assert status.state is not None
    assert status.phase is PHASES[status.state]
    earlier = state_before_states(status.phase, status.reason, failed=status.failure is not None)
    assert earlier is status.state, "a status without its state tells it too"
    assert status.run.fence >= (before.run.fence if before.run else 0), "the fence never falls"
    states = [step.state for step in status.steps]
    begun = [place for place, state in enumerate(states) if state is not StepState.PENDING]
    assert begun == list(range(len(begun))), "steps begin in their order"
    assert sum(state in (StepState.DOING, StepState.WAITING) for state in states) <= 1
    for old, new, rule in zip(before.steps, status.steps, rules.steps, strict=False):
        if rule.irreversible and old.state is StepState.DONE:
            assert new.state is StepState.DONE, "what cannot be undone is not undone"
    if command is not None and command.verb is Verb.DO:
        _check_forward(status, states, command)
    if command is not None and command.verb is Verb.UNDO:
        assert states[command.step] is StepState.UNDOING
        assert status.current is not None
        assert status.current.step == status.steps[command.step].name, "an undo is announced"
        later = [state for state in states[command.step + 1 :] if state in TOUCHED]
        assert status.phase is not Phase.SUCCEEDED
        assert not later or rules.steps[command.step].kind in ("traffic", "deploy")
    _check_end(status, states)


def _check_forward(status: Status, states: list[StepState], command: Command) -> None:
    assert status.phase in (Phase.RUNNING, Phase.WAITING, Phase.PAUSED)
    known = {StepState.DOING, StepState.WAITING} | ({StepState.FAILED} if status.phase is Phase.PAUSED else set())
    assert states[command.step] in known, "a command is announced"
    assert status.current is not None
    assert status.current.step == status.steps[command.step].name
    assert status.current.stage.startswith(f"{command.stage + 1}/")
    assert set(states[: command.step]) <= {StepState.DONE}


def _check_end(status: Status, states: list[StepState]) -> None:
    if status.phase is Phase.SUCCEEDED:
        expected = StepState.PENDING if status.reason == "AlreadyApplied" else StepState.DONE
        assert set(states) == {expected}
        assert status.failure is None
    if status.phase is Phase.ROLLED_BACK:
        assert not set(states) & TOUCHED
        assert status.failure is not None
    assert status.run is not None
    assert (status.run.paused_at is not None) >= (status.phase is Phase.PAUSED), "a paused plan has its clocks stopped"


def _finishes(rules: Rules, status: Status, now: datetime, *, bound: bool) -> None:
    """From wherever it is: deleted, with every command done, it ends in a few turns, and the finalizer comes off."""
    outcome: Outcome | None = None
    verb: Verb | None = None
    for _ in range(60):
        now += timedelta(minutes=2)
        inputs = Inputs(outcome=outcome, last_command=verb, deleted_at=now, has_finalizer=bound)
        turn = advance(rules, status, inputs, now)
        status, outcome = turn.status, Done() if turn.command else None
        verb = turn.command.verb if turn.command else None
        if turn.command is not None and turn.command.verb is Verb.REMOVE_FINALIZER:
            bound = False
        if status.phase in ENDED and not bound:
            return
    raise AssertionError(f"never ends: {status}")
