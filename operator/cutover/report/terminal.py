"""The report in a terminal: success criteria, checklist, timeline, earlier runs. Called by `cutover report`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from cutover.report.evidence import State
from cutover.report.screen import MARKS, PHASES
from cutover.report.summary import TITLES, Bar, PlanSummary, human_duration
from cutover.report.texts import Text
from cutover.saga.draft import moment
from cutover.status.report import Result
from cutover.status.status import Status

_RESULTS: Final = {
    Result.MET: ("✓ met", "green"),
    Result.NOT_MET: ("✗ not met", "red"),
    Result.NOT_MEASURED: ("? not measured", "yellow"),
}
_STATES: Final = {
    State.PROVEN: ("✓", "green"),
    State.PLANNED: ("·", "cyan"),
    State.MISSING: ("-", "yellow"),
}
_BAR: Final = 24
_NAME: Final = 28


def report(summary: PlanSummary) -> RenderableType:
    """The whole report."""
    return Group(
        *_head(summary),
        *_criteria(summary),
        *_checklist(summary),
        *_timeline(summary),
        *_history(summary.status),
    )


def _head(summary: PlanSummary) -> Iterator[RenderableType]:
    status = summary.status
    style = PHASES.get(status.phase, "red") if status.phase else "dim"
    yield Text.assemble(
        (summary.name, "bold"),
        "  ",
        (str(status.phase or "not seen yet by the operator"), f"bold {style}"),
        f"  run {status.run.number}" if status.run else "",
    )
    if any(step.started_at for step in status.steps):
        begin, end = summary.span
        yield Text(f"{moment(begin)} to {moment(end)}, {human_duration(end - begin)}", style="dim")
    if status.message:
        yield Text(status.message)


def _section(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


def _criteria(summary: PlanSummary) -> Iterator[RenderableType]:
    yield _section("Success criteria")
    if summary.no_report:
        yield Text(f"  {summary.no_report}", style="dim")
        return
    for line in summary.status.report:
        mark, style = _RESULTS[line.result]
        yield _hanging(
            Text(mark, style=style), 14, Text.assemble((f"{TITLES[line.criterion]}: ", "bold"), line.evidence)
        )


def _checklist(summary: PlanSummary) -> Iterator[RenderableType]:
    yield _section("Checklist")
    if summary.no_checklist:
        yield Text(f"  {summary.no_checklist}", style="dim")
    part = ""
    for line in summary.checklist:
        if line.part != part:
            part = line.part
            yield Text(f"  {part.lower()} the migration", style="dim")
        mark, style = _STATES[line.state]
        yield _hanging(Text(mark, style=style), 1, Text.assemble((f"{line.line}: ", "bold"), line.proof))
    if summary.checklist:
        yield Text("  ✓ proven   · planned   - missing", style="dim")


def _hanging(mark: Text, width: int, text: RenderableType) -> Padding:
    """A mark, and a text beside it that wraps with a hanging indent."""
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(width=width)
    table.add_column(overflow="fold")
    table.add_row(mark, text)
    return Padding(table, (0, 0, 0, 2), expand=False)


def _timeline(summary: PlanSummary) -> Iterator[RenderableType]:
    if not (bars := summary.bars):
        return
    yield _section("Timeline")
    table = Table.grid(padding=(0, 0, 0, 2))
    for bar in bars:
        mark, style = MARKS[bar.step.state]
        name = bar.step.name if len(bar.step.name) <= _NAME else f"{bar.step.name[: _NAME - 1]}…"
        table.add_row(
            Text(mark, style=style), Text(name), _drawn(bar, style), Text(human_duration(bar.duration), style="dim")
        )
    yield Padding(table, (0, 0, 0, 2), expand=False)


def _drawn(bar: Bar, style: str) -> RenderableType:
    begin = min(round(bar.begin * _BAR), _BAR - 1)
    length = min(max(round(bar.length * _BAR), 1), _BAR - begin)
    return Text.assemble(("░" * begin, "dim"), ("█" * length, style), ("░" * (_BAR - begin - length), "dim"))


def _history(status: Status) -> Iterator[RenderableType]:
    if not status.history:
        return
    yield _section("Earlier runs")
    for past in status.history:
        text = f"run {past.number}, {moment(past.started_at)}: {past.phase}"
        yield _hanging(Text(), 0, Text(f"{text}{f', {past.message}' if past.message else ''}"))
