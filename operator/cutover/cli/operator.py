"""Commands for administrators: run the operator, print its CRD."""

# ruff: noqa: PLC0415 -- a command imports what only it needs, so that `lint` starts fast
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cutover.cli.base import OPERATE, USAGE, app, fail
from cutover.errors import PlanError


@app.command(rich_help_panel=OPERATE)
def run(
    settings: Annotated[Path | None, typer.Option(help="Settings file (YAML).")] = None,
    namespace: Annotated[
        list[str] | None, typer.Option("--namespace", "-n", help="Namespace to watch; repeatable. Default: all.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of /livez, /readyz and /metrics; 0 picks a free one.")] = None,
    log_format: Annotated[str | None, typer.Option(help="Log format: json or text.")] = None,
) -> None:
    """Run the operator."""
    from cutover import app as operator
    from cutover.runtime.logs import set_up
    from cutover.settings.settings import load

    try:
        loaded = load(settings, namespaces=tuple(namespace) if namespace else None, port=port, log_format=log_format)
    except (PlanError, OSError) as error:
        fail(f"invalid settings: {error}", USAGE)
    set_up(loaded.log_format)
    operator.run(loaded)


@app.command(rich_help_panel=OPERATE)
def crd() -> None:
    """Print the CustomResourceDefinition of MigrationPlan."""
    from cutover.plan.crd import text

    sys.stdout.write(text())
