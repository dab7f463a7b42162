"""Judges measurements. Pure: a number and the tally so far give a verdict; nothing else knows thresholds or missing data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from cutover.status.status import GateStatus, Verdict

FRESH: Final = timedelta(seconds=15)
"""A sample is valid for twice the gate's interval, and for at least this long: a slow server must not pass with an old sample."""


class NoData(StrEnum):
    """What a sample without a usable number means."""

    WAIT = "Wait"
    PASS = "Pass"  # noqa: S105 -- a verdict, not a password
    FAIL = "Fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a gate requires.

    Attributes:
        passes_needed: consecutive passing samples.
        fails_allowed: failing samples that fail the gate: counted over a whole stage for a gate, consecutive for a guard.
        sustain: how long it must have passed without interruption.
        patient: a sample out of bounds is not a failure, only a reason to wait (readiness: pods that are not ready yet).
        compared: the number is the ratio to a baseline.
    """

    name: str
    interval: timedelta
    minimum: float | None = None
    maximum: float | None = None
    passes_needed: int = 1
    fails_allowed: int = 1
    no_data: NoData = NoData.WAIT
    sustain: timedelta = timedelta()
    guard: bool = False
    patient: bool = False
    compared: bool = False
    unit: str = ""

    @property
    def bound(self) -> str:
        """As messages show it: ``>= 1 and <= 300``."""
        parts = [f">= {_number(self.minimum)}"] if self.minimum is not None else []
        if self.maximum is not None:
            parts.append(f"<= {_number(self.maximum)}")
        return " and ".join(parts) + self.unit


@dataclass(frozen=True, slots=True)
class Measurement:
    """A number measured at a time.

    Attributes:
        value: None when there was none, and `note` says why.
        of: the numbers it was computed from, shown beside it.
    """

    value: float | None
    at: datetime
    note: str = ""
    of: str = ""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a gate has counted within one stage (a guard: within one run). Kept in memory; starts again after a crash."""

    passes: int = 0
    fails: int = 0
    since: datetime | None = None
    last: Measurement | None = None
    failed: bool = False


def within(rule: Rule, value: float) -> bool:
    """Whether a number is within the bounds."""
    return (rule.minimum is None or value >= rule.minimum) and (rule.maximum is None or value <= rule.maximum)


def observe(rule: Rule, tally: Tally, seen: Measurement) -> Tally:
    """The tally after one more measurement. A failed gate stays failed."""
    good: bool | None
    if seen.value is None:
        good = {NoData.WAIT: None, NoData.PASS: True, NoData.FAIL: False}[rule.no_data]
    else:
        good = within(rule, seen.value)
    if good:
        fails = 0 if rule.guard else tally.fails
        return replace(tally, passes=tally.passes + 1, fails=fails, since=tally.since or seen.at, last=seen)
    fails = tally.fails + (good is False and not rule.patient)
    return Tally(passes=0, fails=fails, last=seen, failed=tally.failed or fails >= rule.fails_allowed)


def judge(rule: Rule, tally: Tally, now: datetime) -> GateStatus:
    """The gate's verdict now, with the numbers behind it."""
    seen = tally.last
    value = "" if seen is None or seen.value is None else _number(seen.value)
    verdict, message = _verdict(rule, tally, now, value)
    return GateStatus(
        name=rule.name,
        verdict=verdict,
        value=value,
        bound=rule.bound,
        passes=min(tally.passes, rule.passes_needed),
        needed=rule.passes_needed,
        fails=tally.fails,
        guard=rule.guard,
        compared=rule.compared,
        message=message,
    )


def _verdict(rule: Rule, tally: Tally, now: datetime, value: str) -> tuple[Verdict, str]:
    seen = tally.last
    shown = f"{value}{rule.unit} ({seen.of})" if seen and seen.of else f"{value}{rule.unit}"
    if tally.failed:
        return Verdict.FAIL, _why_failed(rule, tally, shown)
    if seen is None:
        return Verdict.WAIT, "no sample yet"
    if now - seen.at > (valid := max(2 * rule.interval, FRESH)):
        return Verdict.WAIT, f"the last sample is older than {valid.total_seconds():.0f}s and is not counted"
    if seen.value is None and rule.no_data is NoData.WAIT:
        return Verdict.WAIT, seen.note
    if tally.passes == 0:
        return Verdict.WAIT, seen.note or f"{shown}, must be {rule.bound}"
    if waits := _not_long_enough(rule, tally, now):
        return Verdict.WAIT, waits
    return Verdict.PASS, seen.note if seen.value is None else f"{shown} is {rule.bound}"


def _why_failed(rule: Rule, tally: Tally, shown: str) -> str:
    seen = tally.last
    note, number = seen.note if seen else "", f"{shown}, must be {rule.bound}"
    what = note if seen and seen.value is None else f"{number}; {note}" if note else number
    samples = f"; {tally.fails} samples failed (failureThreshold {rule.fails_allowed})" if tally.fails > 1 else ""
    return f"{what}{samples}"


def _not_long_enough(rule: Rule, tally: Tally, now: datetime) -> str:
    """What a gate that passes still waits for: more samples, or more time; empty when it has both."""
    if not rule.guard and tally.passes < rule.passes_needed:
        return f"{tally.passes} of {rule.passes_needed} passing samples in a row"
    if rule.sustain and tally.since is not None and now - tally.since < rule.sustain:
        remaining = rule.sustain - (now - tally.since)
        return f"passing; must hold for another {remaining.total_seconds():.0f}s"
    return ""


def _number(value: float) -> str:
    return f"{value:.6g}"
