"""Verbs of the operator: run it, print its CRD."""

# ruff: noqa: PLC0415 -- a verb imports what only it needs, so that `lint` starts in a blink
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cutover.cli.base import USAGE, app, fail
from cutover.errors import PlanError


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
    from cutover.settings.settings import load

    try:
        loaded = load(settings, namespaces=tuple(namespace) if namespace else None, port=port, log_format=log_format)
    except (PlanError, OSError) as error:
        fail(f"the settings cannot be used: {error}", USAGE)
    set_up(loaded.log_format)
    operator.run(loaded)


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition."""
    from cutover.plan.crd import text

    sys.stdout.write(text())
