"""Describes a plan before it runs: steps, stages, gates, every write, the rollback order, the permissions it needs. Pure; for `cutover explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

import yaml

from cutover.gates.base import Source
from cutover.gates.verdict import NoData, Rule
from cutover.plan import permissions
from cutover.plan.spec import Plan
from cutover.plan.warnings import warnings
from cutover.ports import JOBS
from cutover.schema.model import show_duration
from cutover.steps.parts import MakesObjects

_NO_DATA: Final = {
    NoData.WAIT: "does not count",
    NoData.PASS: "counts as passing",
    NoData.FAIL: "counts as failing",
}


def explain(plan: Plan) -> Iterator[str]:
    """Line by line, indented by level."""
    yield f"{len(plan.steps)} step{'s' if len(plan.steps) > 1 else ''}; all writes are made as ServiceAccount {plan.service_account_name}"
    for guard in plan.guards:
        yield from _gate("  guard", guard, guard=True)
    for notification in plan.notifications:
        yield f"  notifies {notification.provider} on {', '.join(notification.phases)}"
    for number, step in enumerate(plan.steps, 1):
        kind, rule = step.kind, step.rule()
        yield f"{number}. {step.name} ({kind.key}){f': {step.description}' if step.description else ''}"
        for target in kind.touches():
            yield f"     writes {target.resource.kind} {target.name}"
        for resource in kind.makes() if isinstance(kind, MakesObjects) else ():
            yield f"     creates {resource.kind}s"
        yield from (f"     stage: {stage.intent}" for stage in rule.stages)
        for gate in step.gates:
            yield from _gate("     gate", gate, max(stage.settle for stage in rule.stages))
        yield (
            f"     timeout: {show_duration(rule.timeout)} per stage, not counting its dwell"
            if rule.timeout
            else "     no timeout"
        )
    yield from (f"warning: {problem}" for problem in warnings(plan))
    yield f"rollback order: {_rollback_order(plan)}"
    yield "permissions the service account needs:"
    yield from (f"  {line}" for line in _rights(plan))


def _rollback_order(plan: Plan) -> str:
    """Undo after undo, and where it stops; an irreversible step that is not done yet is undone as any other."""
    parts: list[list[str]] = [[]]
    stops = []
    for step in reversed(plan.steps):
        if step.irreversible:
            stops.append(f"once {step.name} is done (irreversible) the rollback stops there")
            parts.append([])
        if step.undoes():
            parts[-1].append(f"undo {step.name}")
    first, *rest = (", ".join(part) for part in parts)
    text = [first] if first else []
    for stop, until in zip(stops, rest, strict=True):
        text += [stop, f"until then {until}"] if until else [stop]
    return "; ".join(text) or "nothing to undo"


def _rights(plan: Plan) -> Sequence[str]:
    return [f"- {_flow(rule)}" for rule in permissions.rules(plan)] or ["none"]


def _flow(rule: dict[str, list[str]]) -> str:
    return yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, width=1000).strip()


def _gate(lead: str, gate: Any, settle: timedelta = timedelta(), *, guard: bool = False) -> Iterator[str]:
    rule, source = gate.rule(guard=guard), gate.source
    bound = f"{rule.bound} times the baseline" if rule.compared else rule.bound
    if JOBS in source.makes():
        bound = "exit code 0"
    lasting = f", for {show_duration(rule.sustain)}" if rule.sustain else ""
    yield f"{lead} {rule.name}{' (whole run)' if guard else ''}: {source.key} {bound}{lasting}"
    yield from (f"       {line}" for line in source.details())
    delay = settle + source.settle() + gate.initial_delay
    yield f"       {_sampling(rule, source, delay)}"
    yield f"       {_judging(rule)}"


def _sampling(rule: Rule, source: Source, delay: timedelta) -> str:
    """When samples are taken."""
    since = "the run begins" if rule.guard else "the stage takes effect"
    first = f", the first {show_duration(delay)} after {since}" if delay else ""
    if JOBS in source.makes():
        return f"starts a Job {show_duration(rule.interval)} after the one before has ended{first}"
    often = "all the time" if source.live else f"every {show_duration(rule.interval)}"
    return f"measures {often}{first}"


def _judging(rule: Rule) -> str:
    """What the samples lead to."""
    if rule.patient:
        return "waits until it passes"
    parts, needed, allowed = list[str](), rule.passes_needed, rule.fails_allowed
    if not rule.guard:
        parts.append(
            f"passes after {needed} passing samples in a row" if needed > 1 else "passes with one passing sample"
        )
    row = " in a row" if rule.guard else ""
    parts.append(
        f"fails after {allowed} failing samples{row}" if allowed > 1 else "fails with the first failing sample"
    )
    parts.append(f"a sample without a number {_NO_DATA[rule.no_data]}")
    return ", ".join(parts)
