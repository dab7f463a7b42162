"""The report for a terminal: criteria, checklist, timeline, earlier runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table

from cutover.report.checklist import State
from cutover.report.screen import MARKS, PHASES
from cutover.report.summary import TITLES, Account, Bar, took
from cutover.report.texts import Text
from cutover.saga.draft import moment
from cutover.status.status import Result, Status

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


def report(told: Account) -> RenderableType:
    """All of it."""
    return Group(
        *_head(told),
        *_criteria(told),
        *_checklist(told),
        *_timeline(told),
        *_history(told.status),
    )


def _head(told: Account) -> Iterator[RenderableType]:
    status = told.status
    style = PHASES.get(status.phase, "red") if status.phase else "dim"
    yield Text.assemble(
        (told.name, "bold"),
        "  ",
        (str(status.phase or "not seen yet by the operator"), f"bold {style}"),
        f"  run {status.run.number}" if status.run else "",
    )
    if any(step.started_at for step in status.steps):
        begin, end = told.span
        yield Text(f"{moment(begin)} to {moment(end)}, {took(end - begin)}", style="dim")
    if status.message:
        yield Text(status.message)


def _section(title: str) -> Text:
    return Text(f"\n{title}", style="bold")


def _criteria(told: Account) -> Iterator[RenderableType]:
    yield _section("Success criteria")
    if told.no_report:
        yield Text(f"  {told.no_report}", style="dim")
        return
    for line in told.status.report:
        mark, style = _RESULTS[line.result]
        yield _hanging(
            Text(mark, style=style), 14, Text.assemble((f"{TITLES[line.criterion]}: ", "bold"), line.evidence)
        )


def _checklist(told: Account) -> Iterator[RenderableType]:
    yield _section("Checklist")
    if told.unknown:
        yield Text(f"  {told.unknown}", style="dim")
    part = ""
    for line in told.checklist:
        if line.part != part:
            part = line.part
            yield Text(f"  {part.lower()} the migration", style="dim")
        mark, style = _STATES[line.state]
        yield _hanging(Text(mark, style=style), 1, Text.assemble((f"{line.line}: ", "bold"), line.proof))
    if told.checklist:
        yield Text("  ✓ proven   · planned   - missing", style="dim")


def _hanging(mark: Text, width: int, text: RenderableType) -> Padding:
    """A mark, and beside it a text whose lines stand below each other."""
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(width=width)
    table.add_column(overflow="fold")
    table.add_row(mark, text)
    return Padding(table, (0, 0, 0, 2), expand=False)


def _timeline(told: Account) -> Iterator[RenderableType]:
    if not (bars := told.bars):
        return
    yield _section("Timeline")
    table = Table.grid(padding=(0, 0, 0, 2))
    for bar in bars:
        mark, style = MARKS[bar.step.state]
        name = bar.step.name if len(bar.step.name) <= _NAME else f"{bar.step.name[: _NAME - 1]}…"
        table.add_row(Text(mark, style=style), Text(name), _drawn(bar, style), Text(took(bar.took), style="dim"))
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
        says = f"run {past.number} {moment(past.started_at)}: {past.phase}"
        yield _hanging(Text(), 0, Text(f"{says}{f', {past.message}' if past.message else ''}"))
