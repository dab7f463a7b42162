"""Reads plans from files, and the commands that need no cluster: lint and explain."""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import yaml
from rich.markup import escape

from cutover.cli.base import CHECK, USAGE, Files, app, err, fail, out, print_error
from cutover.errors import PlanError, Problem
from cutover.schema import yaml_file
from cutover.schema.yaml_mistakes import sentence

if TYPE_CHECKING:
    from cutover.field_path import Json

PLAN: Final = "MigrationPlan"


class UnreadableError(Exception):
    """A file cannot be read, or not all of it; the message is for its author."""


def read(files: list[Path]) -> tuple[list[tuple[str, Json]], list[str]]:
    """All plans in the files, each with its place; then why files could not be read, or not to their ends."""
    documents: list[tuple[str, Json]] = []
    unreadable: list[str] = []
    for file in files:
        try:
            documents.extend(_read(file))
        except UnreadableError as error:
            unreadable.append(str(error))
    found = [(where, document) for where, document in documents if _kind_of(document) == PLAN]
    if not found and not unreadable:
        kinds = ", ".join(dict.fromkeys(_kind_of(document) for _, document in documents)) or "nothing"
        verb = "contain" if len(files) > 1 else "contains"
        fail(f"{', '.join(map(file_name, files))} {verb} no {PLAN} (found: {kinds})", USAGE)
    return found, unreadable


def file_name(file: Path) -> str:
    """The name of a file in a sentence."""
    return "standard input" if str(file) == "-" else str(file)


def _kind_of(document: object) -> str:
    kind = document.get("kind") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else "no kind"


def _read(file: Path) -> Iterator[tuple[str, Json]]:
    """Everything in a file, each document or item of a list with its place. Raises UnreadableError where it cannot go on."""
    name = file_name(file)
    try:
        text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode()
    except OSError as error:
        raise UnreadableError(f"{name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UnreadableError(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    try:
        for number, document in enumerate(yaml_file.documents(text), 1):
            where = f"{file}#{number}" if number > 1 else str(file)
            yield from ((f"{where}{at}", item) for at, item in _items_of(document))
    except yaml_file.GivenTwiceError as error:
        field = error.field.removeprefix("spec.")  # as in all messages about a plan
        raise UnreadableError(f"{name}, line {error.line}: {field} is given twice; keep one") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UnreadableError(f"{name} is not valid YAML{where}: {sentence(error, text)}") from None
    except yaml.YAMLError as error:
        problem = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        raise UnreadableError(f"{name} is not valid YAML: {problem}") from None


def _items_of(document: Json) -> Iterator[tuple[str, Json]]:
    """The document, or the items of a list as kubectl prints it, each with its place in the document."""
    if isinstance(document, dict) and document.get("kind") in ("List", f"{PLAN}List"):
        inside = document.get("items")
        yield from ((f".items[{at}]", item) for at, item in enumerate(inside if isinstance(inside, list) else ()))
    elif document is not None:
        yield "", document


def parsed(document: Json) -> Any:
    """The plan. Raises PlanError with every error in the document."""
    from cutover.plan.parsing import parse
    from cutover.ports import PLANS

    problems = []
    if document.get("apiVersion") != PLANS.api_version:
        problems.append(
            Problem("apiVersion", f"{document.get('apiVersion')!r} is not supported; use {PLANS.api_version}")
        )
    if not name_of(document):
        problems.append(Problem("metadata.name", "required field is missing"))
    if not isinstance(document.get("spec"), dict):
        problems.append(Problem("spec", "required field is missing"))
    elif document.get("apiVersion") == PLANS.api_version:
        try:
            plan = parse(document["spec"], namespace_of(document))
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(*problems)
    return plan


def name_of(document: Json) -> str:
    """The name, or the prefix that the server generates one from; empty when it has neither."""
    metadata = document.get("metadata")
    name = (metadata.get("name") or metadata.get("generateName")) if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


def namespace_of(document: Json) -> str:
    """The namespace that the document names; empty when it names none."""
    metadata = document.get("metadata")
    named = metadata.get("namespace") if isinstance(metadata, dict) else None
    return named if isinstance(named, str) else ""


def _print_problems(where: str, problems: Iterable[Problem]) -> int:
    """One line per problem; how many there are."""
    count = 0
    for count, problem in enumerate(problems, 1):  # noqa: B007 -- of the last one
        err.print(f"[bold]{escape(where)}[/]: {escape(str(problem))}")
    return count


def _warn(where: str, message: str) -> None:
    err.print(f"[bold]{escape(where)}[/]: [yellow]warning:[/] {escape(message)}")


def _exit_if(unreadable: list[str], count: int) -> None:
    """End with what is wrong, if anything is: files that could not be read, and the errors that were printed before."""
    for message in unreadable:
        print_error(message)
    if count:
        err.print(f"[red]{count} error{'s' if count > 1 else ''}[/]")
    if unreadable or count:
        raise typer.Exit(USAGE if unreadable else 1)


@app.command(rich_help_panel=CHECK)
def lint(
    files: Files,
    postgresql: Annotated[
        int, typer.Option(metavar="VERSION", min=13, max=18, help="Major version of the PostgreSQL servers.")
    ] = 18,
) -> None:
    """Validate plans offline: report every error, and warn of what is probably not meant.

    Of SQL: what is not valid, what the server is too old for, and hazards that are not allowed, each with what it locks.
    """
    from cutover.cli import sql
    from cutover.plan.warnings import warnings

    count = 0
    found, unreadable = read(files)
    for where, document in found:
        try:
            plan = parsed(document)
        except PlanError as error:
            count += _print_problems(where, error.problems)
            continue
        for warning in warnings(plan):
            _warn(where, str(warning))
        if not sql.has_sql(plan):
            continue
        if sql.has_packages():
            count += _print_problems(where, sql.problems(plan, postgresql))
        else:
            _warn(where, f"its SQL is not checked: {sql.INSTALL}")
    _exit_if(unreadable, count)
    out.print("[green]no errors[/]")


@app.command(rich_help_panel=CHECK)
def explain(files: Files) -> None:
    """Show what plans would do, offline.

    Prints the steps with their stages, writes and gates, the rollback order, the permissions that the service account needs, and a checklist.
    """
    from cutover.cli.explain import explain as lines
    from cutover.report.checklist import checklist
    from cutover.report.checklist import lines as checked

    count = 0
    found, unreadable = read(files)
    for where, document in found:
        try:
            plan = parsed(document)
        except PlanError as error:
            count += _print_problems(where, error.problems)
            continue
        out.print(f"[bold]{escape(name_of(document))}[/]")
        for line in lines(plan):
            out.print(escape(line))
        out.print("checklist:")
        for line in checked(checklist(plan)):
            out.print(escape(line))
    _exit_if(unreadable, count)
