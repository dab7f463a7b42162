"""Reads plans from files, and the commands that need no cluster: lint and explain."""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer
import yaml
from rich.markup import escape

from cutover.cli.base import CHECK, USAGE, Files, app, err, fail, out
from cutover.errors import PlanError, Problem
from cutover.schema import yaml_file
from cutover.schema.yaml_mistakes import sentence

if TYPE_CHECKING:
    from cutover.field_path import Json

PLAN: Final = "MigrationPlan"


def read(files: list[Path]) -> list[tuple[str, Json]]:
    """All plans in the files, each with its place."""
    documents = [document for file in files for document in _read(file)]
    found = [(where, document) for where, document in documents if _kind_of(document) == PLAN]
    if not found:
        kinds = ", ".join(dict.fromkeys(_kind_of(document) for _, document in documents)) or "nothing"
        verb = "contain" if len(files) > 1 else "contains"
        fail(f"{', '.join(map(file_name, files))} {verb} no {PLAN} (found: {kinds})", USAGE)
    return found


def file_name(file: Path) -> str:
    """The name of a file in a sentence."""
    return "standard input" if str(file) == "-" else str(file)


def _kind_of(document: object) -> str:
    kind = document.get("kind") if isinstance(document, dict) else None
    return kind if isinstance(kind, str) else "no kind"


def _read(file: Path) -> list[tuple[str, Json]]:
    """Everything in a file, each document or item of a list with its place."""
    found, name = [], file_name(file)
    try:
        text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode()
    except OSError as error:
        fail(f"{name}: {error.strerror}", USAGE)
    except UnicodeDecodeError as error:
        fail(f"{name} is not UTF-8 text: {error.reason} at byte {error.start}", USAGE)
    try:
        for number, document in enumerate(yaml_file.documents(text), 1):
            where = f"{file}#{number}" if number > 1 else str(file)
            found += [(f"{where}{at}", item) for at, item in _items_of(document)]
    except yaml_file.GivenTwiceError as error:
        field = error.field.removeprefix("spec.")  # as in all messages about a plan
        fail(f"{name}, line {error.line}: {field} is given twice; keep one", USAGE)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        fail(f"{name} is not valid YAML{where}: {sentence(error, text)}", USAGE)
    except yaml.YAMLError as error:
        problem = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
        fail(f"{name} is not valid YAML: {problem}", USAGE)
    return found


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
            plan = parse(document["spec"])
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


def _print_problems(where: str, error: PlanError) -> int:
    """One line per problem; how many there are."""
    for problem in error.problems:
        err.print(f"[bold]{escape(where)}[/]: {escape(str(problem))}")
    return len(error.problems)


@app.command(rich_help_panel=CHECK)
def lint(files: Files) -> None:
    """Validate plans offline and report every error."""
    count = 0
    for where, document in read(files):
        try:
            parsed(document)
        except PlanError as error:
            count += _print_problems(where, error)
    if count:
        err.print(f"[red]{count} error{'s' if count > 1 else ''}[/]")
        raise typer.Exit(1)
    out.print("[green]no errors[/]")


@app.command(rich_help_panel=CHECK)
def explain(files: Files) -> None:
    """Show what plans would do, offline.

    Prints the steps with their stages, writes and gates, the rollback order, the permissions that the service account needs, and a checklist.
    """
    from cutover.cli.explain import explain as lines
    from cutover.report.checklist import checklist
    from cutover.report.checklist import lines as checked

    for where, document in read(files):
        try:
            plan = parsed(document)
        except PlanError as error:
            _print_problems(where, error)
            raise typer.Exit(1) from None
        out.print(f"[bold]{escape(name_of(document))}[/]")
        for line in lines(plan):
            out.print(escape(line))
        out.print("checklist:")
        for line in checked(checklist(plan)):
            out.print(escape(line))
