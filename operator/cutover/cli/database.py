"""`cutover database`: a step's work in a database from this machine, without a cluster.

What does it is `cutover.database.local`, imported when it is needed: its packages are an extra of their own.
"""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer
from rich.markup import escape

from cutover.cli.base import DATABASE, USAGE, app, err, fail, out, print_error
from cutover.errors import PlanError

if TYPE_CHECKING:
    from cutover.runner_messages.payload import Payload
    from cutover.runner_messages.result import Result

_INSTALL: Final = (
    "the packages for databases are not installed; install them with the extra database: "
    "uv tool install '.[cli,database]'"
)
_WHO: Final = "local"
"""Namespace, name and uid in the journal of what no plan did."""


@dataclass(frozen=True)
class Task:
    """One step, and the URL of its database."""

    payload: Payload
    url: str

    @property
    def step(self) -> str:
        """Its name."""
        return self.payload.step


@app.command(rich_help_panel=DATABASE)
def database(  # noqa: PLR0913 -- options of the command line
    what: Annotated[str, typer.Argument(metavar="KIND", help="schema, backfill or validate.")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=VALUE]...",
            help="Fields of the step as a plan has them, such as table=users, set.email='lower(email)' or "
            "allow=DropsData,Renames, and of the database, such as database.schema=shop. A script is text, or @FILE.",
        ),
    ] = None,
    *,
    url_env: Annotated[
        list[str] | None,
        typer.Option("--url-env", metavar="NAME", help="Environment variable with the URL of the database."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="YAML file with the fields of the step; FIELD=VALUE goes first.")
    ] = None,
    step: Annotated[str, typer.Option(help="Name in the journal of the database. Default: made of the fields.")] = "",
    undo: Annotated[bool, typer.Option("--undo", help="Take back what was done.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Only check whether what was done still stands; reads only.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the SQL, the locks, the hazards and the rows; reads only.")
    ] = False,
) -> None:
    """Change the schema, fill columns or run checks in a database, from this machine.

    The same work as that of a step in a plan, with the same journal in the database: it may be interrupted, and run again it
    goes on where it was. Exit codes are those of docs/database.md.
    """
    if undo and verify:
        fail("--undo and --verify are two things; keep one of them", USAGE)
    direction = "down" if undo else "verify" if verify else "up"
    url = _url(url_env or [])
    _needs_packages()
    try:
        task = _task(what, (file, fields or []), (direction, step), url)
    except PlanError as error:
        for problem in error.problems:
            print_error(str(problem))
        raise typer.Exit(USAGE) from None
    tasks = [task]
    if dry_run:
        raise typer.Exit(_look(tasks))
    raise typer.Exit(_run(tasks))


def _needs_packages() -> None:
    try:
        import cutover.database.local  # noqa: F401 -- whether it can be had
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("cutover"):
            raise
        fail(_INSTALL)


def _task(kind: str, given: tuple[Path | None, Sequence[str]], how: tuple[str, str], url: str) -> Task:
    from cutover.cli.database_fields import KINDS, settings_of, work_of
    from cutover.runner_messages.payload import Owner, Payload

    if kind not in KINDS:
        fail(f"{kind} is not a kind of step in a database; use {', '.join(KINDS)}", USAGE)
    file, fields = given
    settings, work = settings_of(fields), work_of(kind, file, fields)
    direction, step = how
    text = work.model_dump_json(by_alias=True, exclude_defaults=True)
    document = {
        "plan": Owner(namespace=_WHO, name=_WHO, uid=_WHO),
        "run": 1,
        "step": step or f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:8]}",
        "attempt": 1,
        "fence": 0,
        "direction": direction,
        "database": settings,
        kind: work,
    }
    return Task(Payload.model_validate(document), url)


def _url(names: Sequence[str]) -> str:
    """The URL in a variable. It is never an argument: everybody on the machine can see those."""
    if len(names) != 1:
        _no_url("give --url-env once" if names else "--url-env is missing; give it")
    if "://" in names[0]:
        _no_url("--url-env takes the name of a variable, since others can see the arguments of a program; give it")
    url = os.environ.get(names[0], "")
    if not url:
        _no_url(f"the environment variable {names[0]} is not set; set it, and give --url-env")
    return url


def _no_url(message: str) -> NoReturn:
    fail(f"{message} with the name of a variable that has postgresql://user:password@host:port/database", USAGE)


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
    from cutover.runner_messages.sentences import sentence

    for answer in result.answers:
        before = "" if answer.before is None else f", {answer.before} before"
        out.print(f"  {escape(answer.name)}: {answer.problem or f'{answer.failures} failures'}{before}")
    if result.reason.code:
        print_error(f"{task.step}: {result.reason}: {sentence(result)}")
    else:
        rows = f", {result.rows:,} rows in {result.batches:,} batches" if result.batches else ""
        out.print(f"{escape(task.step)}: {escape(sentence(result))}{rows}, {result.seconds:.1f} s")
    return int(result.reason.code)


@contextmanager
def _signals() -> Iterator[None]:
    """The first signal ends the work, and the transaction that runs is rolled back."""
    from cutover.database.outcome import Stopped

    def stop(number: int, frame: object) -> None:
        del number, frame
        for one in (signal.SIGTERM, signal.SIGINT):
            signal.signal(one, signal.SIG_IGN)
        raise Stopped

    before = {one: signal.signal(one, stop) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


# --- only looking -------------------------------------------------------------------------------------------------------


def _look(tasks: Sequence[Task]) -> int:
    """What each would do; the exit code is that of the first problem."""
    from cutover.cli.database_outlook import lines
    from cutover.database.engines.base import Made
    from cutover.database.local import Local
    from cutover.runner_messages.sentences import sentence

    made, codes = Made(), list[int]()
    for task in tasks:
        outlook, made = Local(task.payload, task.url).outlook(made)
        for line in lines(task.payload, outlook):
            out.print(escape(line))
        for problem in outlook.problems:
            print_error(f"{task.step}: {problem.reason}: {sentence(problem)}")
            codes.append(int(problem.reason.code))
    err.print("nothing was written")
    return codes[0] if codes else 0
