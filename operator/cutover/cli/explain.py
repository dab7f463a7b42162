"""Describes a plan before it runs: steps, stages, gates, every write, the rollback order, the permissions it needs. Pure; for `cutover explain`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from cutover.plan import permissions
from cutover.plan.spec import Plan
from cutover.schema.model import show_duration
from cutover.steps.parts import MakesObjects


def explain(plan: Plan) -> Iterator[str]:
    """Line by line, indented by level."""
    yield f"{len(plan.steps)} step{'s' if len(plan.steps) > 1 else ''}; all writes are made as ServiceAccount {plan.service_account_name}"
    for guard in plan.guards:
        yield from _gate("  guard", guard, " (whole run)")
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
            yield from _gate("     gate", gate)
        yield (
            f"     timeout: {show_duration(rule.timeout)} per stage, not counting its dwell"
            if rule.timeout
            else "     no timeout"
        )
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


def _gate(lead: str, gate: Any, scope: str = "") -> Iterator[str]:
    rule, source = gate.rule(), gate.source
    parts = [f"{lead} {rule.name}{scope}: {source.key} {rule.bound}"]
    if rule.sustain:
        parts.append(f"for {show_duration(rule.sustain)}")
    if rule.passes_needed > 1:
        parts.append(f"{rule.passes_needed} consecutive samples, every {show_duration(rule.interval)}")
    yield ", ".join(parts)
    yield from (f"       queries {source.provider()}: {' '.join(question.split())}" for question in source.queries())
