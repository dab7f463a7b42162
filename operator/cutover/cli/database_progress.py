"""Progress of work in a database: a bar on a terminal, else one line per change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from cutover.cli.base import err
from cutover.runner_messages.progress import Activity
from cutover.runner_messages.progress import Progress as Figures

_TENTHS = 10


@contextmanager
def shown(step: str) -> Iterator[Callable[[Figures], None]]:
    """Shows what it is given until the block ends."""
    if not err.is_terminal:
        yield _Lines(step)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(step, total=None, figures="")

        def show(figures: Figures) -> None:
            total = figures.total or None
            bar.update(
                task,
                description=f"{step}: {figures.activity}",
                total=total,
                completed=min(figures.rows, figures.total),
                figures=_figures(figures),
            )

        yield show


class _Lines:
    """One line when what it does, what slows it, or the tenth that is done is another one."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._last: tuple[object, ...] = ()

    def __call__(self, figures: Figures) -> None:
        now = (figures.activity, figures.slow, figures.percent // _TENTHS)
        if now != self._last and figures.activity is not Activity.STARTING:
            self._last = now
            text = _figures(figures)
            err.print(f"{self._step}: {figures.activity}{f', {text}' if text else ''}", markup=False)


def _figures(figures: Figures) -> str:
    """Rows, rate, the time that is left, and why it is slow."""
    parts = []
    if figures.rows or figures.total:
        total = f" of about {figures.total:,} rows ({figures.percent}%)" if figures.total else " rows"
        parts.append(f"{figures.rows:,}{total}")
    if figures.rate:
        parts.append(f"{figures.rate:,.0f} a second")
    if figures.eta_seconds is not None:
        parts.append(f"{figures.eta_seconds:,.0f} s left")
    if figures.slow:
        parts.append(f"slowed by {figures.slow}")
    return ", ".join(parts)
