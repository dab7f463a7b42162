"""Numbers in, verdicts out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cutover.gates.verdict import Measurement, NoData, Rule, Tally, judge, observe
from cutover.status.status import Verdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RULE = Rule(name="errors", interval=timedelta(seconds=10), maximum=0.5)


def seen(rule: Rule, *values: float | None, every: float = 10) -> tuple[Verdict, str]:
    """The verdict after these samples."""
    tally, now = Tally(), NOW
    for value in values:
        tally = observe(rule, tally, Measurement(value, now, "no answer" if value is None else ""))
        now += timedelta(seconds=every)
    status = judge(rule, tally, now - timedelta(seconds=every))
    return status.verdict, status.message


def rule(**changes: object) -> Rule:
    return Rule(**{"name": "errors", "interval": timedelta(seconds=10), "maximum": 0.5, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "values", "verdict"),
    [
        (rule(), [], Verdict.WAIT),
        (rule(), [0.5], Verdict.PASS),
        (rule(), [0.6], Verdict.FAIL),
        (rule(minimum=0.2), [0.1], Verdict.FAIL),
        (rule(minimum=0.2), [0.2], Verdict.PASS),
        (rule(passes_needed=3), [0.1, 0.1], Verdict.WAIT),
        (rule(passes_needed=3), [0.1, 0.1, 0.1], Verdict.PASS),
        (rule(fails_allowed=2), [0.9], Verdict.WAIT),
        (rule(fails_allowed=2), [0.9, 0.1, 0.9], Verdict.FAIL),
        (rule(fails_allowed=2, guard=True), [0.9, 0.1, 0.9], Verdict.WAIT),
        (rule(fails_allowed=2, guard=True), [0.9, 0.9], Verdict.FAIL),
        (rule(fails_allowed=2, guard=True), [0.9, 0.9, 0.1, 0.9], Verdict.FAIL),
        (rule(passes_needed=3, guard=True), [0.1], Verdict.PASS),
        (rule(), [0.9, 0.1], Verdict.FAIL),
        (rule(), [None], Verdict.WAIT),
        (rule(), [0.1, None], Verdict.WAIT),
        (rule(passes_needed=2), [0.1, None, 0.1], Verdict.WAIT),
        (rule(no_data=NoData.PASS), [None], Verdict.PASS),
        (rule(no_data=NoData.FAIL), [None], Verdict.FAIL),
        (rule(patient=True), [0.9, 0.9, 0.9], Verdict.WAIT),
        (rule(patient=True), [0.9, 0.1], Verdict.PASS),
        (rule(sustain=timedelta(seconds=15)), [0.1, 0.1], Verdict.WAIT),
        (rule(sustain=timedelta(seconds=10)), [0.1, 0.1], Verdict.PASS),
        (rule(sustain=timedelta(seconds=15)), [0.1, 0.1, 0.1], Verdict.PASS),
        (rule(sustain=timedelta(seconds=15), patient=True), [0.1, 0.1, 0.9, 0.1], Verdict.WAIT),
    ],
)
def test_verdict(given: Rule, values: list[float | None], verdict: Verdict) -> None:
    assert seen(given, *values)[0] is verdict


def test_the_reason_is_reported() -> None:
    assert seen(RULE, 0.9) == (Verdict.FAIL, "0.9, must be <= 0.5")
    assert seen(rule(fails_allowed=2), 0.9, 0.8) == (
        Verdict.FAIL,
        "0.8, must be <= 0.5; 2 samples failed (failureThreshold 2)",
    )
    assert seen(RULE, None) == (Verdict.WAIT, "no answer")
    assert seen(rule(passes_needed=3), 0.1) == (Verdict.WAIT, "1 of 3 passing samples in a row")


@pytest.mark.parametrize(("interval", "old"), [(5, 15), (10, 20), (40, 80)])
@pytest.mark.parametrize(("guard", "value"), [(False, 0.1), (True, 0.1), (False, None)])
def test_a_sample_that_is_too_old_passes_nothing(interval: int, old: int, *, guard: bool, value: float | None) -> None:
    """Twice the interval, 15 seconds at least."""
    given = rule(interval=timedelta(seconds=interval), guard=guard, no_data=NoData.PASS)
    tally = observe(given, Tally(), Measurement(value, NOW))
    assert judge(given, tally, NOW + timedelta(seconds=old)).verdict is Verdict.PASS
    late = judge(given, tally, NOW + timedelta(seconds=old + 1))
    assert (late.verdict, late.message) == (Verdict.WAIT, f"the last sample is older than {old}s and is not counted")


def test_a_gate_without_a_for_passes_even_when_the_clock_is_slightly_behind() -> None:
    """The time of a turn is read before its samples are taken."""
    tally = observe(RULE, Tally(), Measurement(0.1, NOW + timedelta(microseconds=5)))
    assert judge(RULE, tally, NOW).verdict is Verdict.PASS


def test_no_more_passes_are_shown_than_are_needed() -> None:
    given, tally = rule(passes_needed=2), Tally()
    for _ in range(3):
        tally = observe(given, tally, Measurement(0.1, NOW))
    shown = judge(given, tally, NOW)
    assert (shown.passes, shown.needed) == (2, 2)
