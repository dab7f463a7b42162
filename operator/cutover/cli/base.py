"""What all commands share: the program, its output, its exit codes, and the options that several commands have.

Nothing here talks to a cluster but through kubeconfig.py, which is imported when it is needed.
"""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cutover.runtime.printable import CONTROL_CHARS, escape_controls

if TYPE_CHECKING:
    import rich.text

    from cutover.cli.kubeconfig import Plans
    from cutover.field_path import Json
    from cutover.status.status import Status

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run whole migrations in Kubernetes step by step, and roll them back when a gate fails.",
)


class Screen(Console):
    """A console that prints text as it is: control characters escaped, no emoji codes, no automatic highlighting."""

    def __init__(self, **how: Any) -> None:
        super().__init__(emoji=False, highlight=False, **how)

    def render_str(self, text: str, **how: Any) -> rich.text.Text:
        """Every plain string passes through here: a line, a cell of a table."""
        return super().render_str(escape_controls(text), **how)


out = Screen(soft_wrap=True)
wide = Screen()
"""For tables and screens, which wrap at the width of the terminal. Lines of `out` do not wrap, so they can be copied whole."""
err = Screen(stderr=True, soft_wrap=True)

GROUPS = CHECK, FOLLOW, ACT, DATABASE, OPERATE = (
    "Check a plan",
    "Follow a plan",
    "Act on a plan",
    "Work in a database",
    "Operate",
)
"""Groups of commands in the help, in this order."""
USAGE, TIMED_OUT = 64, 124
EXIT: Final = {"Succeeded": 0, "RolledBack": 2, "Paused": 3, "Stuck": 3, "Refused": 4, "Abandoned": 5}

Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace. Default: from the kubeconfig context.")
]
Context = Annotated[str | None, typer.Option(help="Kubeconfig context to use.")]
Name = Annotated[str, typer.Argument(help="Name of the plan.")]
Stopped = Annotated[  # off by default: users fix the problem and want to see the plan continue
    bool,
    typer.Option("--until-stopped", help="Also exit when the plan is Paused or Stuck, with code 3."),
]
Files = Annotated[list[Path], typer.Argument(help="YAML files with plans; - reads standard input.")]


def fail(message: str, code: int = 1) -> NoReturn:
    """Exit with a message and an exit code."""
    print_error(message)
    raise typer.Exit(code)


def print_error(message: str) -> None:
    """A message on standard error."""
    err.print(f"[red]error:[/] {escape(message)}")


def check_output(output: str, *formats: str) -> None:
    """Reject an output format that the command does not have, before anything is read."""
    if output not in formats:
        fail(f"unknown output format {output}; use {', '.join(formats[:-1])} or {formats[-1]}", USAGE)


def as_json(value: Any) -> str:
    """JSON for programs, safe on a terminal too: control characters occur only inside strings, so all are escaped."""
    escaped = {code: f"\\u{code:04x}" for code in CONTROL_CHARS}
    return json.dumps(value, indent=2, ensure_ascii=False).translate(escaped) + "\n"


def plans_of(context: str | None, namespace: str | None) -> Plans:
    """The plans of the cluster in the kubeconfig."""
    from cutover.cli.kubeconfig import Plans

    try:
        return Plans(context, namespace)
    except ValueError as error:
        fail(f"no usable kubeconfig: {str(error).rstrip('.')}; set KUBECONFIG or pass --context", USAGE)


def status_of(document: Json) -> Status:
    """The `.status` of a plan."""
    from cutover.plan.status_document import read_status

    return read_status(document.get("status"))
