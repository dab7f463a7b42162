"""What a plan may do and its author has probably not meant, each as a sentence. Pure; shown by lint, `explain` and preflight."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from cutover.errors import Problem
from cutover.plan.spec import Plan
from cutover.schema.model import show_duration

_MOST_READ: Final = 20_000
"""Characters of queries that are read in a plan: all other plans wait in the meantime. Longer ones are not warned of."""


def warnings(plan: Plan) -> Iterator[Problem]:
    """Each with `warning` set."""
    read = 0
    for step in plan.steps:
        for gate in step.gates:
            read += sum(map(len, gate.source.queries()))
            if read > _MOST_READ:
                return
            yield from _of_range(step, gate)


def _of_range(step: Any, gate: Any) -> Iterator[Problem]:
    """A query that looks back further than the stage is judged proves nothing: its samples may all be from before the stage.

    A stage is over after its dwell, once its gates pass; so the last sample is at least as late as the dwell, and as a gate can pass.
    """
    source = gate.source
    back, stages = source.looks_back(), [stage for stage in step.kind.stages() if not stage.cleanup]
    if not back or not stages or any(stage.needs_approval for stage in stages):
        return
    samples = (gate.success_threshold - 1) * gate.interval
    passes = source.settle() + gate.initial_delay + max(samples, source.sustain())
    judged = min(max(stage.dwell, stage.settle + passes) for stage in stages)
    if back > judged:
        span = show_duration(back)
        yield Problem(
            f"steps[{step.name}].gates[{gate.name}].{source.key}.query",
            f"it looks back {span}, and a stage is judged for {_shown(judged)}, so samples from before the stage may decide; "
            f"write $(window) as the range, with window: {span}, or set initialDelay to {span}",
            warning=True,
        )


def _shown(span: timedelta) -> str:
    return f"{show_duration(span)} only" if span else "no time at all"
