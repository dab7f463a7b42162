"""What all verbs share: the program itself, its screens, its exit codes, the options that several verbs have."""

# ruff: noqa: PLC0415 -- a verb imports what only it needs, so that `lint` starts in a blink
from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from cutover.report.texts import CONTROL_CHARS, escape_controls

if TYPE_CHECKING:
    import rich.text

    from cutover.cli.kubeconfig import Plans
    from cutover.field_path import Json
    from cutover.status.status import Status

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Cutover does whole migrations in Kubernetes step by step, and takes them back when a gate fails.",
)


class Screen(Console):
    """Prints what it is given: no character that steers the terminal, no word between colons made a picture, nothing coloured by guess."""

    def __init__(self, **how: Any) -> None:
        super().__init__(emoji=False, highlight=False, **how)

    def render_str(self, text: str, **how: Any) -> rich.text.Text:
        """A string as rich takes it: a whole line, a cell of a table."""
        return super().render_str(escape_controls(text), **how)


out = Screen(soft_wrap=True)
wide = Screen()
"""For tables and screens: on a terminal they keep to its width, where the lines of `out` run on and can be copied whole."""
err = Screen(stderr=True, soft_wrap=True)

USAGE, TIMED_OUT = 64, 124
EXIT: Final = {"Succeeded": 0, "RolledBack": 2, "Paused": 3, "Stuck": 3, "Refused": 4, "Abandoned": 5}

Namespace = Annotated[str | None, typer.Option("--namespace", "-n", help="Namespace; default: that of the kubeconfig.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.")]
Name = Annotated[str, typer.Argument(help="Name of the plan.")]
Stopped = Annotated[  # not the rule: people mend what is wrong, and want to see the plan go on
    bool,
    typer.Option("--until-stopped", help="End also when the plan is Paused or Stuck, with exit code 3; for scripts."),
]
Files = Annotated[list[Path], typer.Argument(help="YAML files with plans; - is standard input.")]


def fail(message: str, code: int = 1) -> NoReturn:
    """End with a sentence and an exit code."""
    err.print(f"[red]error:[/] {escape(message)}")
    raise typer.Exit(code)


def known(output: str, *forms: str) -> None:
    """Refuse a form of output that the verb does not have, before anybody is asked for anything."""
    if output not in forms:
        fail(f"-o {output} is not known; use {', '.join(forms[:-1])} or {forms[-1]}", USAGE)


def as_json(value: Any) -> str:
    """For programs; on a terminal it does not steer that either. Control characters stand inside strings only."""
    escaped = {code: f"\\u{code:04x}" for code in CONTROL_CHARS}
    return json.dumps(value, indent=2, ensure_ascii=False).translate(escaped) + "\n"


def plans_of(context: str | None, namespace: str | None) -> Plans:
    """The plans of a cluster, as the kubeconfig says."""
    from cutover.cli.kubeconfig import Plans

    try:
        return Plans(context, namespace)
    except ValueError as error:
        fail(f"there is no usable kubeconfig: {error}", USAGE)


def status_of(document: Json) -> Status:
    """What stands in `.status` of a plan."""
    from cutover.plan.plan import read_status

    return read_status(document.get("status"))
