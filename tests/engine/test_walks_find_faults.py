"""Each rule that the walks watch is switched off in turn, and a few walks must find that: an invariant that finds nothing proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from cutover.engine import commands, inputs, postconditions
from cutover.engine.command_context import CommandContext
from cutover.engine.postconditions import Standings
from cutover.engine.releasing import release
from cutover.steps.deploy import preconditions
from cutover.steps.shared import ready_sides
from cutover.targets import targets
from engine.test_random_walks import Machine
from support.faults.random_walk import Walk
from support.plans.walked import at_the_end_of

pytestmark = pytest.mark.exhaustive

_WALKS = 40
"""All of them take some ten seconds; far fewer find it."""
Off = Callable[[pytest.MonkeyPatch], None]


def _machine(stories: list[str], rules: list[str]) -> Any:
    """The walks of some stories in which only this happens."""

    class Few(Walk, RuleBasedStateMachine):
        nothing_is_wrong = Machine.nothing_is_wrong

        @initialize(name=st.sampled_from(stories), ahead=st.integers(0, 24))
        def begin(self, name: str, ahead: int) -> None:
            self.set_up(name, 1, {"onFailure": "Rollback", "keepSnapshots": "24h"}, "go on")
            self.run(self.several(ahead))

    for name in rules:
        setattr(Few, name, globals().get(name) or getattr(Machine, name))
    return Few


@rule(which=st.integers(0, 5))
def takes_back_at_the_release(self: Any, which: int) -> None:
    """After the last turn has asked."""
    self.at_release = which


def _walk(stories: list[str], rules: list[str]) -> None:
    chosen = settings(
        max_examples=_WALKS,
        stateful_step_count=15,
        deadline=None,
        database=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(seed(1)(_machine(stories, rules)), settings=chosen)


async def _stands(*_: Any, **__: Any) -> Standings:
    return Standings()


async def _nothing(*_: Any, **__: Any) -> None:
    """No reason to wait."""


async def _no_reason(*_: Any, **__: Any) -> str:
    return ""


def _no_postcondition(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(postconditions, "ask", _stands)
    patch.setattr(inputs, "ask", _stands)


def _no_five_seconds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ready_sides, "GRACE", timedelta(hours=1))


def _no_scale_down_check(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(preconditions, "still_needed", _no_reason)


def _no_drain(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CommandContext, "_draining", _nothing)


def _no_check_before_the_release(patch: pytest.MonkeyPatch) -> None:
    """Neither are the fields asked in that moment, nor is the object released at the version that was asked."""

    async def end(context: CommandContext) -> Any:
        return await release(context, {})

    patch.setattr(commands, "_end", end)


def _no_owners(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(targets, "given_back", lambda *_: None)


TURNS = ["all_work", "time_passes"]
RULES: list[tuple[Off, list[str], list[str], str]] = [
    (_no_postcondition, ["canary", "flagged"], [*TURNS, "takes_back"], "a run ends as a success"),
    (_no_five_seconds, ["canary", "retired"], [*TURNS, "pods_go"], "and no pod, and all sleep"),
    (_no_scale_down_check, ["early"], TURNS, "replicas with weight 80"),
    (_no_drain, ["switched", "retired"], TURNS, "before it has drained"),
    (
        _no_check_before_the_release,
        ["canary"],
        [*TURNS, "takes_back_at_the_release"],
        "a run ends as a success",
    ),
    (_no_owners, ["canary", "retired"], [*TURNS, "asks"], "owners of"),
]


@pytest.mark.parametrize(("off", "stories", "happens", "found"), RULES, ids=[rule[0].__name__ for rule in RULES])
def test_walks_find_that_a_rule_is_off(
    off: Off, stories: list[str], happens: list[str], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for story in stories:
        at_the_end_of(story)  # known before the rule is off
    off(monkeypatch)
    with pytest.raises(AssertionError, match=found):
        _walk(stories, happens)


@pytest.mark.parametrize(
    ("stories", "happens"), [rule[1:3] for rule in RULES], ids=[rule[0].__name__ for rule in RULES]
)
def test_the_same_walks_find_nothing_while_it_is_on(stories: list[str], happens: list[str]) -> None:
    _walk(stories, happens)
