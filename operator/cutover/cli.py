"""The command line: arguments to one verb. Installed as ``cutover`` and as ``kubectl-cutover``, so ``kubectl cutover`` works.

Exit codes for scripts, of every verb: 0 done, 1 not done (mistakes in a plan, a request refused, no answer from outside),
64 wrong usage, 124 time-out; of `watch` also how the plan ended: 0 succeeded, 2 rolled back, 4 refused, 5 abandoned, and with
--until-stopped 3 held or stuck. Imports that take long stand inside the verbs that need them.
"""

# ruff: noqa: PLC0415 -- a verb imports what only it needs, so that `lint` starts in a blink
from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
import yaml
from rich.console import Console
from rich.markup import escape
from typer.exceptions import TyperException

from cutover.errors import OutsideError, PlanError, Problem

if TYPE_CHECKING:
    from rich.console import RenderableType

    from cutover.fields import Json
    from cutover.kubeconfig import Plans
    from cutover.status import Status

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Cutover does whole migrations in Kubernetes step by step, and takes them back when a gate fails.",
)
out = Console(highlight=False, soft_wrap=True)
wide = Console(highlight=False)
"""For tables and screens: on a terminal they keep to its width, where the lines of `out` run on and can be copied whole."""
err = Console(stderr=True, highlight=False, soft_wrap=True)

USAGE, TIMED_OUT = 64, 124
ANSWER_WITHIN: Final = 10.0
"""Seconds the operator has to answer a request."""
_OF_A_STEP: Final = frozenset({"approve", "skip"})
EXIT: Final = {"Succeeded": 0, "RolledBack": 2, "Held": 3, "Stuck": 3, "Refused": 4, "Abandoned": 5}

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; default: that of the kubeconfig.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Name = Annotated[str, typer.Argument(help="Name of the plan.")]
Stopped = Annotated[  # not the rule: people mend what is wrong, and want to see the plan go on
    bool,
    typer.Option("--until-stopped", help="End also when the plan is Held or Stuck, with exit code 3; for scripts."),
]
Files = Annotated[list[Path], typer.Argument(help="YAML files with plans; - is standard input.")]


def main() -> None:
    """Entry point of the program: what the outside did wrong is one sentence, only a fault of ours is a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        from typer.rich_utils import rich_format_error

        rich_format_error(error)  # type: ignore[arg-type]  # it names the class by a private path
        sys.exit(USAGE)
    except (OutsideError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}")
        sys.exit(1)


def _fail(message: str, code: int = 1) -> NoReturn:
    err.print(f"[red]error:[/] {escape(message)}")
    raise typer.Exit(code)


# --- the operator -----------------------------------------------------------------------------------------------------


@app.command()
def run(
    settings: Annotated[Path | None, typer.Option(help="Settings file (YAML): providers and the rest.")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Watch only these; default all.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of /livez, /readyz and /metrics; 0 takes a free one.")] = None,
    log_format: Annotated[str | None, typer.Option(help="json or text.")] = None,
) -> None:
    """Run the operator."""
    from cutover import app as operator
    from cutover.runtime.logs import set_up
    from cutover.settings import load

    try:
        loaded = load(settings, namespaces=tuple(namespace) if namespace else None, port=port, log_format=log_format)
    except (PlanError, OSError) as error:
        _fail(f"the settings cannot be used: {error}", USAGE)
    set_up(loaded.log_format)
    operator.run(loaded)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition."""
    from cutover.crd import text

    sys.stdout.write(text())


# --- plans in files ---------------------------------------------------------------------------------------------------


def _read(files: list[Path]) -> list[tuple[str, Json]]:
    """All plans in the files, each with where it stands."""
    found = []
    for file in files:
        try:
            text = (sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()).decode()
            for number, document in enumerate(yaml.safe_load_all(text), 1):
                if isinstance(document, dict) and document.get("kind") == "MigrationPlan":
                    found.append((f"{file}#{number}" if number > 1 else str(file), document))
        except OSError as error:
            _fail(f"{file}: {error.strerror}", USAGE)
        except UnicodeDecodeError as error:
            _fail(f"{file} is not a text in UTF-8: {error.reason} at byte {error.start}", USAGE)
        except yaml.YAMLError as error:
            says = " ".join(str(error).replace('in "<unicode string>", ', "in ").split())
            _fail(f"{file} is not YAML: {says}", USAGE)
    if not found:
        _fail("there is no MigrationPlan in these files", USAGE)
    return found


def _parsed(document: Json) -> Any:
    """The plan. Raises PlanError with every mistake in the document."""
    from cutover.plan import parse
    from cutover.ports import PLANS

    problems = []
    if document.get("apiVersion") != PLANS.api_version:
        problems.append(Problem("apiVersion", f"{document.get('apiVersion')!r} is not known; use {PLANS.api_version}"))
    if not _name(document):
        problems.append(Problem("metadata.name", "is missing; give the plan a name"))
    if not isinstance(document.get("spec"), dict):
        problems.append(Problem("spec", "is missing; add it"))
    elif document.get("apiVersion") == PLANS.api_version:
        try:
            plan = parse(document["spec"])
        except PlanError as error:
            problems += error.problems
    if problems:
        raise PlanError(*problems)
    return plan


def _name(document: Json) -> str:
    """The name, or what the server makes one of; empty when it has neither."""
    metadata = document.get("metadata")
    name = (metadata.get("name") or metadata.get("generateName")) if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else ""


@app.command()
def lint(files: Files) -> None:
    """Say every mistake in plans, without a cluster."""
    wrong = 0
    for where, document in _read(files):
        try:
            _parsed(document)
        except PlanError as error:
            wrong += len(error.problems)
            for problem in error.problems:
                err.print(f"[bold]{escape(where)}[/]: {escape(str(problem))}")
    if wrong:
        err.print(f"[red]{wrong} mistake{'s' if wrong > 1 else ''}[/]")
        raise typer.Exit(1)
    out.print("[green]no mistakes[/]")


@app.command()
def explain(files: Files) -> None:
    """Show what plans would do: steps, stages, every write, the way back, the rights needed."""
    from cutover.explain import explain as lines

    for where, document in _read(files):
        try:
            plan = _parsed(document)
        except PlanError as error:
            _fail(f"{where}: {error}")
        out.print(f"[bold]{escape(_name(document))}[/]")
        for line in lines(plan):
            out.print(escape(line))


# --- plans in a cluster -----------------------------------------------------------------------------------------------


def _plans(context: str | None, namespace: str | None) -> Plans:
    from cutover.kubeconfig import Plans

    try:
        return Plans(context, namespace)
    except ValueError as error:
        _fail(f"there is no usable kubeconfig: {error}", USAGE)


def _status(document: Json) -> Status:
    from cutover.plan import read_status

    return read_status(document.get("status"))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Name of the plan; left out, all of the namespace.")] = None,
    namespace: Namespace = None,
    context: Context = None,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Plans of all namespaces.")] = False,  # noqa: FBT002
    output: Annotated[str, typer.Option("--output", "-o", help="text, json, yaml or name.")] = "text",
) -> None:
    """Show where a plan is, or list plans."""
    plans = _plans(context, namespace)
    documents = [plans.get(name)] if name else plans.list(everywhere=everywhere)
    match output:
        case "json":
            sys.stdout.write(json.dumps(documents[0] if name else documents, indent=2) + "\n")
        case "yaml":
            yaml.safe_dump(documents[0] if name else documents, sys.stdout, sort_keys=False)
        case "name":
            for document in documents:
                sys.stdout.write(f"migrationplan/{document['metadata']['name']}\n")
        case "text" if name:
            from cutover.report.screen import screen

            wide.print(screen(name, _status(documents[0])), soft_wrap=not wide.is_terminal)
        case "text":
            from cutover.report.screen import table

            rows = [(document["metadata"], _status(document)) for document in documents]
            wide.print(table(rows, everywhere=everywhere) if rows else "no plans", soft_wrap=not wide.is_terminal)
        case _:
            _fail(f"-o {output} is not known; use text, json, yaml or name", USAGE)


@app.command()
def impact(
    plan: Annotated[str, typer.Argument(help="Name of a plan, or a YAML file with one; - is standard input.")],
    namespace: Namespace = None,
    context: Context = None,
    output: Annotated[str, typer.Option("--output", "-o", help="text or json.")] = "text",
) -> None:
    """Show what a plan meets in the cluster: who owns its targets, what leads to them, capacity. Reads only, as you."""
    import asyncio
    from dataclasses import asdict

    from cutover.kubeconfig import Objects
    from cutover.survey import lines, survey

    if output not in ("text", "json"):
        _fail(f"-o {output} is not known; use text or json", USAGE)
    document = None
    if plan == "-" or plan.endswith((".yaml", ".yml")):
        ((_, document), *more) = _read([Path(plan)])
        if more:
            _fail(f"{plan} has {1 + len(more)} plans; give one", USAGE)
    plans = _plans(context, namespace or ((document or {}).get("metadata") or {}).get("namespace"))
    document = document or plans.get(plan)
    try:
        parsed = _parsed(document)
    except PlanError as error:
        _fail(f"{plan}: {error}")
    found = asyncio.run(survey(parsed, _name(document), Objects(plans), plans.namespace))
    if output == "json":
        sys.stdout.write(json.dumps(asdict(found), indent=2) + "\n")
        return
    for line in lines(found):
        out.print(escape(line))


@app.command()
def watch(
    name: Name,
    namespace: Namespace = None,
    context: Context = None,
    timeout: Annotated[float | None, typer.Option(help="Give up after so many seconds, with exit code 124.")] = None,
    until_stopped: Stopped = False,  # noqa: FBT002 -- an option of the command line
) -> None:
    """Follow a plan to its end; the exit code says how it ended. On a terminal redrawn in place, else a line a change."""
    from rich.live import Live

    from cutover.report.screen import screen, sentence
    from cutover.status import ENDED, Phase

    ends = ENDED | {Phase.HELD, Phase.STUCK} if until_stopped else ENDED
    plans = _plans(context, namespace)
    seen = _status(plans.get(name))
    deadline = time.monotonic() + timeout if timeout is not None else math.inf

    def left() -> float:
        return min(deadline - time.monotonic(), 300.0)

    def redrawn() -> RenderableType:
        return screen(name, seen)

    last = ""
    with Live(console=wide, get_renderable=redrawn, refresh_per_second=2) if wide.is_terminal else nullcontext():
        for document in plans.watch(name, left):
            if document is None:
                _fail(f"MigrationPlan {name} was deleted")
            seen = _status(document)
            line = sentence(seen)
            if line != last and not wide.is_terminal:
                out.print(escape(line))
            last = line
            if seen.phase in ends:
                raise typer.Exit(EXIT[str(seen.phase)])
            if time.monotonic() > deadline:
                _fail(f"plan {name} is still {seen.phase} after {timeout:g}s", TIMED_OUT)


# --- requests ---------------------------------------------------------------------------------------------------------


def _ask(verb: str, name: str, where: tuple[str | None, str | None], step: str = "", digest: str = "") -> None:
    """Set the annotation, then say what became of it."""
    from cutover.requests import RequestVerb, write

    plans = _plans(*where)
    seen = _status(plans.get(name))
    if verb in _OF_A_STEP and seen.current is not None:
        step, digest = step or seen.current.step, digest or seen.current.digest
    key, value = write(RequestVerb(verb), plans.user() or "unknown", step, digest if verb == "approve" else "")
    plans.annotate(name, {key: value})
    token = dict(part.split("=", 1) for part in value.split())["token"]
    deadline = time.monotonic() + ANSWER_WITHIN
    while time.monotonic() < deadline:
        record = next((found for found in _status(plans.get(name)).requests if found.token == token), None)
        if record is not None:
            if record.answer != "Accepted":
                _fail(f"{verb} was {str(record.answer).lower()}: {record.message}")
            out.print(f"{verb} accepted for plan {name}")
            return
        time.sleep(0.1)
    err.print(f"{verb} is requested, but the operator has not answered within {ANSWER_WITHIN:g}s; is it running?")
    raise typer.Exit(TIMED_OUT)


@app.command()
def approve(
    name: Name,
    step: Annotated[str, typer.Option(help="The step; left out, the one that waits.")] = "",
    digest: Annotated[
        str, typer.Option(help="Of what you have seen, as the status showed it; rejected if it is another by now.")
    ] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Let a step go on that waits for a person."""
    _ask("approve", name, (context, namespace), step, digest)


@app.command()
def skip(
    name: Name,
    step: Annotated[str, typer.Option(help="The step; left out, the one in hand.")] = "",
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Take the gates of a step as passed."""
    _ask("skip", name, (context, namespace), step)


def _asks(verb: str) -> Callable[..., None]:
    def ask(name: Name, namespace: Namespace = None, context: Context = None) -> None:
        _ask(verb, name, (context, namespace))

    return ask


for _verb, _does in (
    ("hold", "Stop where the plan is; nothing is undone, and clocks stand still."),
    ("resume", "Let a held plan go on."),
    ("abort", "Turn back: everything done is undone, last first."),
    ("retry", "Do the failed step of a held plan again, or examine a refused plan anew."),
    ("rollback", "Take back a plan, also one that has succeeded, while its snapshots are kept."),
    ("abandon", "Let go of a plan and leave everything as it is."),
):
    app.command(_verb, help=_does)(_asks(_verb))


if __name__ == "__main__":
    main()
