"""`cutover database`: a step's work in a database from this machine, without a cluster.

What does it is `cutover.database.local`, imported when it is needed: its packages are an extra of their own.
"""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cutover.cli.base import DATABASE, USAGE, app, err, fail, out, print_error
from cutover.errors import PlanError

if TYPE_CHECKING:
    from cutover.cli.database_tasks import Task
    from cutover.runner_messages.result import Result


@app.command(rich_help_panel=DATABASE)
def database(  # noqa: PLR0913 -- options of the command line
    what: Annotated[
        str, typer.Argument(metavar="KIND|PLAN", help="schema, backfill or validate; or a file with a plan.")
    ],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=VALUE]...",
            help="Of a kind: fields of the step as a plan has them, such as table=users, set.email='lower(email)' or "
            "allow=DropsData,Renames, and of the database, such as database.schema=shop. A script is text, or @FILE.",
        ),
    ] = None,
    *,
    url_env: Annotated[
        list[str] | None,
        typer.Option(
            "--url-env", metavar="[DB=]NAME", help="Environment variable with the URL of the database; repeatable."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="YAML file with the fields of the step; FIELD=VALUE goes first.")
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="Of a plan: only this step; repeatable. Of a kind: its name in the journal. Default: made of its fields."
        ),
    ] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was done.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check whether what was done still stands; reads only.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the SQL, the locks, the hazards and the rows; reads only.")
    ] = False,
) -> None:
    """Change the schema, fill columns or run checks in a database, from this machine: one step, or all that a plan has.

    The same work as that of a step in a plan, with the same journal in the database: it may be interrupted, and run again it
    goes on where it was. Exit codes are those of docs/database.md.
    """
    if undo and verify:
        fail("--undo and --verify are two things; keep one of them", USAGE)
    from cutover.cli.sql import INSTALL, has_packages

    if not has_packages():
        fail(INSTALL)
    from cutover.cli.database_tasks import Given, tasks_of
    from cutover.runner_messages.payload import Direction
    from cutover.runner_messages.reasons import ExitCode

    direction = Direction.DOWN if undo else Direction.VERIFY if verify else Direction.UP
    try:
        tasks = tasks_of(what, Given(fields or (), file, step or (), url_env or (), direction))
    except PlanError as error:
        for problem in error.problems:
            print_error(str(problem))
        raise typer.Exit(int(ExitCode.BAD_INPUT)) from None
    code = _look(tasks, show=dry_run)
    raise typer.Exit(code if code or dry_run else _run(tasks))


# --- doing it -----------------------------------------------------------------------------------------------------------


def _run(tasks: Sequence[Task]) -> int:
    """One after the other; the exit code of the first that does not end well, else 0."""
    from cutover.cli.database_progress import shown
    from cutover.database.local import Local

    for task in tasks:
        with _signals(), shown(task.step) as sink:
            result = Local(task.payload, task.url).run(sink)
        if code := _told(task, result):
            return code
    return 0


def _told(task: Task, result: Result) -> int:
    from cutover.runner_messages.sentences import sentence, summary

    if result.reason.code:
        print_error(f"{task.step}: {result.reason}: {sentence(result)}")
    else:
        out.print(f"{task.step}: {summary(result) or 'done'}, {result.seconds:.1f} s", markup=False)
    return int(result.reason.code)


@contextmanager
def _signals() -> Iterator[None]:
    """The first signal ends the work, and the transaction that runs is rolled back."""
    from cutover.database.outcome import SIGNALS, stop

    before = {one: signal.signal(one, stop) for one in SIGNALS}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


# --- only looking -------------------------------------------------------------------------------------------------------


def _look(tasks: Sequence[Task], *, show: bool) -> int:
    """All that would stop them, before anything is written; the exit code is that of the first problem. Shows what each would do."""
    from cutover.cli.database_outlook import lines
    from cutover.database.engines.base import Made
    from cutover.database.local import Local
    from cutover.runner_messages.sentences import sentence

    made, codes = Made(), list[int]()
    for task in tasks:
        outlook, made = Local(task.payload, task.url).outlook(made)
        for line in lines(task.payload, outlook) if show else ():
            out.print(line, markup=False)
        for problem in outlook.problems:
            print_error(f"{task.step}: {problem.reason}: {sentence(problem)}")
            codes.append(int(problem.reason.code))
    if show or codes:
        err.print("nothing was written")
    return codes[0] if codes else 0
