"""Commands that show plans in a cluster. They read only, with the user's credentials; what they print is made in report/."""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
import yaml
from rich.markup import escape

from cutover.cli.base import (
    CHECK,
    EXIT,
    FOLLOW,
    TIMED_OUT,
    USAGE,
    Context,
    Name,
    Namespace,
    Screen,
    Stopped,
    app,
    as_json,
    check_output,
    err,
    fail,
    out,
    plans_of,
    status_of,
    wide,
)
from cutover.cli.files import file_name, name_of, parsed, read
from cutover.errors import PlanError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cutover.field_path import Json


_UNWRAPPED: Final = 10_000
"""Columns when output is not a terminal: nothing wraps, so each line can be searched."""


@app.command(rich_help_panel=FOLLOW)
def status(
    name: Annotated[
        str | None, typer.Argument(help="Name of the plan. Default: list all plans in the namespace.")
    ] = None,
    namespace: Namespace = None,
    context: Context = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="List plans in all namespaces.")] = False,  # noqa: FBT002
    output: Annotated[str, typer.Option("--output", "-o", help="Output format: text, json, yaml or name.")] = "text",
) -> None:
    """Show the status of a plan, or list plans."""
    check_output(output, "text", "json", "yaml", "name")
    plans = plans_of(context, namespace)
    documents = [plans.get(name)] if name else plans.list(everywhere=everywhere)
    match output:
        case "json":
            sys.stdout.write(as_json(documents[0] if name else documents))
        case "yaml":
            yaml.safe_dump(documents[0] if name else documents, sys.stdout, sort_keys=False)
        case "name":
            for document in documents:
                sys.stdout.write(f"migrationplan/{document['metadata']['name']}\n")
        case "text" if name:
            from cutover.report.screen import screen

            wide.print(screen(name, status_of(documents[0])), soft_wrap=not wide.is_terminal)
        case "text":
            from cutover.report.screen import table

            rows = [(document["metadata"], status_of(document)) for document in documents]
            wide.print(table(rows, everywhere=everywhere) if rows else "no plans found", soft_wrap=not wide.is_terminal)


OnePlan = Annotated[str, typer.Argument(help="Name of a plan, or a YAML file with one; - reads standard input.")]


@app.command(rich_help_panel=CHECK)
def role(plan: OnePlan, namespace: Namespace = None, context: Context = None) -> None:
    """Print the Role and RoleBinding that a plan needs, to pipe into kubectl apply.

    It has everything that the plan writes and undoes, and is the plan's own: it takes nothing away from other plans.
    """
    from cutover.plan import permissions
    from cutover.ports import PLANS, Ref

    document = _in_file(plan)
    known = _namespace_of(plan, document, namespace)
    if document is None or not known:  # with both it needs no cluster, as in a pipeline that has no kubeconfig
        plans = plans_of(context, known)
        document, known = document or plans.get(plan), plans.namespace
    spec = _readable(plan, document)
    sys.stdout.write(permissions.role(Ref(PLANS, known, name_of(document)), spec))


@app.command(rich_help_panel=CHECK)
def impact(
    plan: OnePlan,
    namespace: Namespace = None,
    context: Context = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Output format: text or json.")] = "text",
) -> None:
    """Show what a plan affects in the cluster.

    Lists the owners of its targets, the routes to them and the capacity it needs. Read-only, with your credentials.
    """
    import asyncio
    from dataclasses import asdict

    from cutover.cli.kubeconfig import Objects
    from cutover.preflight.impact import impact_of, lines

    check_output(output, "text", "json")
    document = _in_file(plan)
    plans = plans_of(context, _namespace_of(plan, document, namespace))
    document = document or plans.get(plan)
    spec = _readable(plan, document)
    found = asyncio.run(impact_of(spec, name_of(document), Objects(plans), plans.namespace))
    if output == "json":
        sys.stdout.write(as_json(asdict(found)))
        return
    for line in lines(found):
        out.print(escape(line))


def _in_file(plan: str) -> Json:
    """The plan of a file; None for the name of one in the cluster."""
    if plan != "-" and not plan.endswith((".yaml", ".yml")):
        return None
    found, unreadable = read([Path(plan)])
    if unreadable:
        fail(unreadable[0], USAGE)
    ((_, document), *more) = found
    if more:
        fail(f"{file_name(Path(plan))} contains {1 + len(more)} plans; give a file with one", USAGE)
    return document


def _namespace_of(plan: str, document: Json, asked: str | None) -> str | None:
    """The namespace that is asked for or that a file names; None when neither says."""
    metadata = (document or {}).get("metadata")
    written = metadata.get("namespace") if isinstance(metadata, dict) else None
    if asked and written and asked != written:
        fail(f"{plan}: the plan is in namespace {written}, not {asked}; drop -n", USAGE)
    return asked or written


def _readable(plan: str, document: Json) -> Any:
    try:
        return parsed(document)
    except PlanError as error:
        fail(f"{plan}: {error}")


@app.command(rich_help_panel=FOLLOW)
def report(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Output format: text, json or yaml.")] = "text",
    html: Annotated[
        Path | None, typer.Option(help="Write the report to this HTML file, with a timeline and events.")
    ] = None,
) -> None:
    """Show the report of a run: success criteria, checklist, timeline.

    The exit code says how the plan ended: 0 succeeded or still running, 2 rolled back, 3 paused or stuck, 4 refused, 5 abandoned.
    """
    from datetime import UTC, datetime

    from cutover.report.summary import summarize, to_document

    check_output(output, "text", "json", "yaml")
    plans = plans_of(context, namespace)
    body = plans.get(name)
    summary = summarize(body, plans.events(body["metadata"]["uid"]), datetime.now(UTC))
    if html is not None:
        from cutover.report.page import page

        html.write_text(page(summary), encoding="utf-8")
        err.print(f"report written to {html}", markup=False)
    if output == "json":
        sys.stdout.write(as_json(to_document(summary)))
    elif output == "yaml":
        yaml.safe_dump(to_document(summary), sys.stdout, sort_keys=False, allow_unicode=True)
    elif html is None:
        from cutover.report.terminal import report as shown

        console = wide if wide.is_terminal else Screen(width=_UNWRAPPED)
        console.print(shown(summary))
    raise typer.Exit(EXIT.get(str(summary.status.phase), 0))


@app.command(rich_help_panel=FOLLOW)
def watch(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for the end; then exit with code 124.")] = None,
    until_stopped: Stopped = False,  # noqa: FBT002 -- an option of the command line
) -> None:
    """Follow a plan until it ends.

    The exit code says how it ended: 0 succeeded, 2 rolled back, 4 refused, 5 abandoned.
    """
    from rich.live import Live

    from cutover.report.screen import screen, sentence
    from cutover.status.status import ENDED, Phase

    ends = ENDED | {Phase.PAUSED, Phase.STUCK} if until_stopped else ENDED
    plans = plans_of(context, namespace)
    seen = status_of(plans.get(name))
    deadline = time.monotonic() + timeout if timeout is not None else math.inf

    def left() -> float:
        return min(deadline - time.monotonic(), 300.0)

    def redrawn() -> RenderableType:
        return screen(name, seen)

    last = ""
    with Live(console=wide, get_renderable=redrawn, refresh_per_second=2) if wide.is_terminal else nullcontext():
        for document in plans.watch(name, left):
            if document is None:
                fail(f"MigrationPlan {name} was deleted")
            seen = status_of(document)
            line = sentence(seen)
            if line != last and not wide.is_terminal:
                out.print(escape(line))
            last = line
            if seen.phase in ends:
                raise typer.Exit(EXIT[str(seen.phase)])
            if time.monotonic() > deadline:
                fail(f"plan {name} is still {seen.phase} after {timeout:g}s", TIMED_OUT)
