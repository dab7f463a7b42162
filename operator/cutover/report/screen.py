"""A plan on one screen of a terminal: steps, weights, gates with value and bound, what it waits for; and the list of plans.

Called by `cutover status` and `cutover watch`, and by the demo. Everything shown comes from the status.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table

from cutover.field_path import Json
from cutover.report.summary import human_duration
from cutover.report.texts import Text
from cutover.status.reasons import Reason
from cutover.status.report import Result
from cutover.status.state import State
from cutover.status.status import OUTDATED_CRD, RISKS, Current, Phase, Status, StepState, Verdict

PHASES: Final = {
    Phase.SUCCEEDED: "green",
    Phase.RUNNING: "cyan",
    Phase.WAITING: "yellow",
    Phase.PENDING: "yellow",
    Phase.PAUSED: "yellow",
    Phase.ROLLING_BACK: "magenta",
    Phase.ROLLED_BACK: "magenta",
}
MARKS: Final = {
    StepState.PENDING: ("·", "dim"),
    StepState.DOING: ("▸", "cyan"),
    StepState.WAITING: ("?", "yellow"),
    StepState.DONE: ("✓", "green"),
    StepState.UNDOING: ("◂", "magenta"),
    StepState.UNDONE: ("↺", "magenta"),
    StepState.FAILED: ("✗", "red"),
}
_FAILURES: Final = {Phase.ROLLING_BACK: "rolling back", Phase.ROLLED_BACK: "rolled back"}
_VERDICTS: Final = {Verdict.PASS: "green", Verdict.FAIL: "red", Verdict.WAIT: "yellow"}
_BAR: Final = 24
_BY_REASON: Final[dict[str, str]] = {
    Reason.PREFLIGHT: "checking what the plan needs",
    Reason.CLAIMING: "claiming the targets",
    Reason.RECLAIMING: "claiming the targets again",
    Reason.RELEASING: "releasing the targets",
}
"""What is shown of a plan whose status has no message of its own."""


def _message(status: Status) -> str:
    return status.message or _BY_REASON.get(status.reason, "")


def sentence(status: Status) -> str:
    """One line, for output that is not redrawn."""
    head = " ".join(part for part in (str(status.phase or "not seen yet"), status.progress) if part)
    text = _message(status) or status.reason
    return f"{head}: {text}" if text else head


def table(plans: Sequence[tuple[Json, Status]], *, everywhere: bool) -> Table:
    """Plans, one per line; each given by its metadata and its status."""
    made = Table(box=None, pad_edge=False)
    for head in (*(("NAMESPACE",) if everywhere else ()), "NAME", "PHASE", "STEP", "WEIGHT", "MESSAGE"):
        made.add_column(head)
    for metadata, seen in plans:
        weight = seen.current.weight if seen.current else None
        place = (metadata["namespace"],) if everywhere else ()
        cells = (metadata["name"], str(seen.phase or ""), seen.progress, "" if weight is None else str(weight))
        made.add_row(*place, *cells, Text(_message(seen)))
    return made


def screen(name: str, status: Status, now: datetime | None = None) -> RenderableType:
    """Everything there is to see of one plan."""
    return Group(
        _head(name, status),
        *([Text(text)] if (text := _message(status)) else ()),
        _steps(status, now or datetime.now(UTC)),
        *([_gates(status.current)] if status.current is not None and status.current.gates else ()),
        *_failure(status),
        *_report(name, status),
        *_risks(name, status),
        *_approval(name, status),
    )


def _head(name: str, status: Status) -> RenderableType:
    phase = status.phase
    return Text.assemble(
        (name, "bold"),
        "  ",
        (str(phase or "not seen yet by the operator"), f"bold {PHASES.get(phase, 'red') if phase else 'dim'}"),
        f"  step {status.progress}" if status.progress else "",
        f"  run {status.run.number}" if status.run else "",
    )


def _failure(status: Status) -> Iterator[Text]:
    if (failure := status.failure) is not None:
        where = f"step {failure.step} {failure.stage}: " if failure.step else ""
        why = "" if failure.message in status.message else f": {failure.message}"
        lead = _FAILURES.get(status.phase, "failed") if status.phase else "failed"
        yield Text(f"{lead}: {where}{failure.reason}{why}", style="red")


def _report(name: str, status: Status) -> Iterator[Text]:
    if status.report:
        met = sum(line.result is Result.MET for line in status.report)
        failed = sum(line.result is Result.NOT_MET for line in status.report)
        criteria = f"criteria: {met} of {len(status.report)} met{f', {failed} not met' if failed else ''}"
        yield Text(f"{criteria}; for the evidence: kubectl cutover report {name}", style="dim")


def _risks(name: str, status: Status) -> Iterator[Text]:
    for risk in (found for found in status.conditions if found.type in (*RISKS, OUTDATED_CRD)):
        first, more, _ = risk.message.partition("\n")
        rest = f" (for the rest: kubectl cutover impact {name})" if more else ""
        yield Text(f"{risk.type}: {first}{rest}", style="yellow")


def _approval(name: str, status: Status) -> Iterator[Text]:
    if status.state is State.WAITING and status.current is not None:
        yield Text(f"to approve: kubectl cutover approve {name} --step {status.current.step}", style="yellow")


def _steps(status: Status, now: datetime) -> Table:
    table = Table.grid(padding=(0, 2))
    end = (status.run and status.run.finished_at) or now  # an abandoned step has no end of its own
    for step in status.steps:
        mark, style = MARKS[step.state]
        current = status.current if status.current is not None and status.current.step == step.name else None
        taken = (step.finished_at or end) - step.started_at if step.started_at else None
        table.add_row(
            Text(mark, style=style),
            Text(step.name, style="bold" if current else ""),
            Text(step.kind, style="dim"),
            Text(str(step.state), style=style),
            Text(human_duration(taken) if taken is not None else "", style="dim"),
            _progress(current) if current else Text(step.message),
        )
    return table


def _progress(current: Current) -> RenderableType:
    if current.weight is None:
        return Text(f"{current.intent}  {current.ready}")
    filled = round(_BAR * current.weight / 100)
    return Text.assemble(
        ("█" * filled, "cyan"), ("░" * (_BAR - filled), "dim"), f" {current.weight}% ({current.stage})"
    )


def _gates(current: Current) -> Table:
    table = Table.grid(padding=(0, 2))
    for gate in current.gates:
        table.add_row(
            "   guard" if gate.guard else "   gate",
            Text(gate.name, style="bold"),
            Text(str(gate.verdict), style=_VERDICTS[gate.verdict]),
            Text(f"{gate.value or '-'}  {gate.bound}"),
            Text("" if gate.guard else f"{gate.passes}/{gate.needed}", style="dim"),
            Text(gate.message, style="dim"),
        )
    return table
