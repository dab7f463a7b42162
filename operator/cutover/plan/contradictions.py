"""Contradictions in a plan that no single field shows, each as a sentence for its author. Pure; called by `parsing.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from cutover.errors import Problem
from cutover.gates import SOURCES
from cutover.plan.spec import KIND_KEYS, Plan
from cutover.schema.model import show_duration
from cutover.steps.parts import MayBeIrreversible, NeedsGates
from cutover.steps.shared.database_kind import DatabaseKind

_NEVER_PASSES: Final = "a guard is judged throughout and never has passed, so it counts no passing samples; remove it"


def contradictions(plan: Plan) -> Iterator[Problem]:
    """Errors that no single field shows."""
    yield from _duplicates("steps", "step", [step.name for step in plan.steps])
    yield from _duplicates("databases", "database", [database.name for database in plan.databases])
    yield from _of_guards(plan)
    yield from _of_notifications(plan)
    for step in plan.steps:
        yield from _of_step(f"steps[{step.name}]", step)
        yield from _of_database(f"steps[{step.name}]", step, plan)
    if plan.window and plan.windows:
        yield Problem("windows", "the plan has window too; keep one of them")
    yield from _of_timeout(plan)


def _of_guards(plan: Plan) -> Iterator[Problem]:
    yield from _duplicates("guards", "guard", [guard.name for guard in plan.guards])
    for guard in plan.guards:
        yield from _of_gate(f"guards[{guard.name}]", guard, None)
        if "success_threshold" in guard.model_fields_set:
            yield Problem(f"guards[{guard.name}].successThreshold", _NEVER_PASSES)


def _of_notifications(plan: Plan) -> Iterator[Problem]:
    for name in sorted(_repeated([notification.provider for notification in plan.notifications])):
        yield Problem("notifications", f"provider {name} is listed more than once; put its phases into one list")
    for notification in plan.notifications:
        for phase in sorted(_repeated(list(notification.phases))):
            yield Problem(f"notifications[{notification.provider}].phases", f"{phase} is listed twice; keep one")


def _of_step(place: str, step: Any) -> Iterator[Problem]:
    given = list(step.given())
    if len(given) != 1:
        keys = ", ".join(KIND_KEYS)
        found = f"{' and '.join(given)}; split it into {len(given)} steps" if given else f"none; add one of {keys}"
        yield Problem(place, f"a step must have exactly one kind, and this one has {found}")
        return
    yield from _duplicates(f"{place}.gates", "gate", [gate.name for gate in step.gates])
    if isinstance(step.kind, NeedsGates) and not step.gates:
        yield Problem(f"{place}.gates", f"a {step.kind.key} without gates proves nothing; add a gate")
    yield from _of_undo(place, step)
    for gate in step.gates:
        yield from _of_gate(f"{place}.gates[{gate.name}]", gate, step)


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _duplicates(where: str, what: str, names: list[str]) -> Iterator[Problem]:
    for name in sorted(_repeated(names)):
        yield Problem(where, f"{names.count(name)} {what}s are named {name}; {what} names must be unique")


def _of_undo(place: str, step: Any) -> Iterator[Problem]:
    why_not = step.kind.irreversible_reason() if isinstance(step.kind, MayBeIrreversible) else ""
    if why_not and not step.irreversible:
        yield Problem(f"{place}.{step.kind.key}", why_not)
    elif why_not and step.retries:
        why = "an attempt is undone before the next one, and this step cannot be undone; remove retries"
        yield Problem(f"{place}.retries", why)


def _of_database(place: str, step: Any, plan: Plan) -> Iterator[Problem]:
    for key, kind in step.given().items():
        if isinstance(kind, DatabaseKind) and (why := kind.not_connected(plan.databases)):
            yield Problem(f"{place}.{key}.database", why)
        elif isinstance(kind, DatabaseKind):
            earlier = itertools.takewhile(lambda one: one is not step, plan.steps)
            before = {one.name: found for one in earlier for found in one.given().values()}
            yield from (Problem(f"{place}.{key}{field}", message) for field, message in kind.mistakes(before))


def _of_gate(place: str, gate: Any, step: Any) -> Iterator[Problem]:
    keys = [source.key for source in SOURCES]
    given = [key for key in keys if getattr(gate, key) is not None]
    if len(given) != 1:
        found = f"{' and '.join(given)}; split it" if given else f"none; add one of {', '.join(keys)}"
        yield Problem(place, f"a gate must have exactly one source, and this one has {found}")
        return
    source = gate.source
    yield from _of_bounds(place, gate)
    if source.needs_workload() and (step is None or step.workload() is None):
        why = "a guard belongs to no step" if step is None else f"a {step.kind.key} step rolls out none"
        yield Problem(f"{place}.{source.key}.workload", f"no workload is given, and {why}; set {source.key}.workload")
    if step is not None:
        yield from _of_time_to_pass(place, gate, step)


def _of_time_to_pass(place: str, gate: Any, step: Any) -> Iterator[Problem]:
    """A gate that cannot pass before its stage times out."""
    source, timeout = gate.source, step.rule().timeout
    if timeout is None:
        return
    samples, sustain = (gate.success_threshold - 1) * gate.interval, source.sustain()
    needed = source.settle() + gate.initial_delay + max(samples, sustain)
    to_lower = [
        field
        for field, counts in (
            ("the range of the query", source.settle()),
            ("initialDelay", gate.initial_delay),
            ("successThreshold or interval", samples and samples >= sustain),
            (f"{source.key}.for", sustain and sustain >= samples),
        )
        if counts
    ]
    ends = [stage.dwell + timeout for stage in step.kind.stages()]
    if too_short := next((end for end in ends if needed > end), None):
        yield Problem(
            place,
            f"it needs {show_duration(needed)} to pass, and a stage ends after {show_duration(too_short)}; "
            f"lower {', '.join(to_lower)}, or raise the step's timeout",
        )


def _of_bounds(place: str, gate: Any) -> Iterator[Problem]:
    source, given = gate.source, gate.pass_
    if source.needs_bounds and given is None:
        yield Problem(f"{place}.pass", f"a gate with {source.key} needs a bound; add pass with min or max")
    elif not source.needs_bounds and given is not None:
        yield Problem(f"{place}.pass", f"a gate with {source.key} has its own bound; remove pass")
    elif given is not None and given.ratio is not None and not source.baseline_query():
        hint = f"add {source.key}.baseline" if source.has_baseline else "use min or max; only prometheus has a baseline"
        yield Problem(f"{place}.pass.ratio", f"there is no baseline to compare with; {hint}")
    elif given is not None and given.ratio is None and source.baseline_query():
        yield Problem(
            f"{place}.{source.key}.baseline", "baseline is set but pass has no ratio; add pass.ratio or remove baseline"
        )


def _of_timeout(plan: Plan) -> Iterator[Problem]:
    if not plan.timeout:
        return
    dwell = (
        sum((stage.dwell for step in plan.steps for stage in step.kind.stages()), timedelta())
        if _each_has_a_kind(plan)
        else None
    )
    if dwell is not None and dwell >= plan.timeout:
        yield Problem(
            "timeout",
            f"the steps dwell for {show_duration(dwell)} in all, and the plan fails after "
            f"{show_duration(plan.timeout)}; raise timeout or shorten the dwells",
        )


def _each_has_a_kind(plan: Plan) -> bool:
    return all(step.given() for step in plan.steps)
