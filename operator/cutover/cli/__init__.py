"""The command line. Installed as ``cutover`` and as ``kubectl-cutover``, so ``kubectl cutover`` works.

Exit codes of every command: 0 done, 1 failed (errors in a plan, a request rejected, no answer from the cluster), 64 usage error, 124
timeout. `watch` and `report` also say how the plan ended: 0 succeeded, 2 rolled back, 4 refused, 5 abandoned, and 3 for a plan that is
paused or stuck (`watch` only with --until-stopped). `database` ends with the runner's codes (docs/database.md). Slow imports stand inside the commands that need them.
"""

from __future__ import annotations

import sys

from rich.markup import escape
from typer.exceptions import TyperException

from cutover.cli import actions, cluster, database, files, operator
from cutover.cli.base import GROUPS, USAGE, app, err
from cutover.errors import OutsideError

__all__ = ["actions", "app", "cluster", "database", "files", "main", "operator"]

app.registered_commands.sort(key=lambda command: GROUPS.index(str(command.rich_help_panel)))


def main() -> None:
    """Entry point: an error from outside is one sentence, only a bug of ours is a traceback."""
    try:
        sys.exit(app(standalone_mode=False))
    except TyperException as error:
        from typer.rich_utils import rich_format_error  # noqa: PLC0415 -- only when something is wrong

        rich_format_error(error)  # type: ignore[arg-type]  # its annotation names the class by a private path
        sys.exit(USAGE)
    except (OutsideError, OSError) as error:
        err.print(f"[red]error:[/] {escape(str(error))}")
        sys.exit(1)
