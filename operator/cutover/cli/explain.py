"""A plan for people, before it runs: its steps and stages, every write, the rollback, the rights it needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from cutover.plan.plan import Plan
from cutover.plan.rights import rules
from cutover.schema.model import show_duration


def explain(plan: Plan) -> Iterator[str]:
    """Line by line, indented with two blanks a level."""
    yield f"{len(plan.steps)} step{'s' if len(plan.steps) > 1 else ''}, every write made as ServiceAccount {plan.service_account_name}"
    for guard in plan.guards:
        yield from _gate("  all along: guard", guard)
    for notification in plan.notifications:
        yield f"  all along: tells {notification.provider} when it is {', '.join(notification.phases)}"
    for number, step in enumerate(plan.steps, 1):
        kind, rule = step.kind, step.rule()
        yield f"{number}. {step.name} ({kind.key}){f': {step.description}' if step.description else ''}"
        for target in kind.touches():
            yield f"     writes {target.resource.kind} {target.name}"
        for resource in kind.makes():
            yield f"     makes {resource.kind}s"
        yield from (f"     does {stage.intent}" for stage in rule.stages)
        for gate in step.gates:
            yield from _gate("     until gate", gate)
        yield (
            f"     a stage may take {show_duration(rule.timeout)} beyond its dwell"
            if rule.timeout
            else "     without a time limit"
        )
    back = [step.name for step in reversed(plan.steps) if step.kind.undoes]
    yield f"the rollback: {', '.join(f'undo {name}' for name in back) or 'nothing to undo'}"
    yield "rights the account needs:"
    yield from (f"  {line}" for line in _rights(plan))


def _rights(plan: Plan) -> Sequence[str]:
    targets = ((target.resource, target.name) for step in plan.steps for target in step.kind.touches())
    needed = rules(targets, plan.makes(), plan.pod_accounts())
    return [f"- {_flow(rule)}" for rule in needed] or ["none"]


def _flow(rule: dict[str, list[str]]) -> str:
    return yaml.safe_dump(rule, default_flow_style=True, sort_keys=False, width=1000).strip()


def _gate(lead: str, gate: Any) -> Iterator[str]:
    rule, source = gate.rule(), gate.source
    parts = [f"{lead} {rule.name}: {source.key} {rule.bound}"]
    if rule.sustain:
        parts.append(f"for {show_duration(rule.sustain)}")
    if rule.passes_needed > 1:
        parts.append(f"{rule.passes_needed} times in a row, every {show_duration(rule.interval)}")
    yield ", ".join(parts)
    yield from (f"       asks {source.provider()}: {' '.join(question.split())}" for question in source.queries())
