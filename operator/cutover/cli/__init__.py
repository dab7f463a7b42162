"""The command line: arguments to one verb. Installed as ``cutover`` and as ``kubectl-cutover``, so ``kubectl cutover`` works.

Exit codes for scripts, of every verb: 0 done, 1 not done (mistakes in a plan, a request refused, no answer from outside),
64 wrong usage, 124 time-out; of `watch` and `report` also how the plan ended: 0 succeeded, 2 rolled back, 4 refused, 5 abandoned, and
3 paused or stuck (of `watch` with --until-stopped only). Imports that take long stand inside the verbs that need them.
"""

from __future__ import annotations

import sys

from rich.markup import escape
from typer.exceptions import TyperException

from cutover.cli import actions, cluster, files, operator
from cutover.cli.base import USAGE, app, err
from cutover.errors import OutsideError

__all__ = ["actions", "app", "cluster", "files", "main", "operator"]


def main() -> None:
    """Entry point of the program: what the outside did wrong is one sentence, only a fault of ours is a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        from typer.rich_utils import rich_format_error  # noqa: PLC0415 -- only when something is wrong

        rich_format_error(error)  # type: ignore[arg-type]  # it names the class by a private path
        sys.exit(USAGE)
    except (OutsideError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}")
        sys.exit(1)
