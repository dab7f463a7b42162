"""Scripts of the payload: read, proven to be what the plan's run began with, split, and checked before the first statement runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cutover.database.engines.base import Engine, Statement
from cutover.database.outcome import Ended
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.payload import LONGEST_SCRIPT, Script
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.result import Result


def text_of(script: Script, field: str) -> str:
    """The text. Raises Ended: it cannot be read, or is another one than when the run began."""
    text = script.text if script.text is not None else _from_file(str(script.file), field)
    if script.sha256 is not None and Script.digest(text) != script.sha256:
        raise Ended(Result(RunnerReason.SCRIPT_CHANGED, field))
    return text


def _from_file(name: str, field: str) -> str:
    try:
        with Path(name).open(encoding="utf-8") as file:
            text = file.read(LONGEST_SCRIPT + 1)
    except (OSError, UnicodeDecodeError):
        raise Ended(Result(RunnerReason.SCRIPT_EMPTY, f"{field}.file")) from None
    if len(text) > LONGEST_SCRIPT:
        raise Ended(Result(RunnerReason.SCRIPT_SYNTAX, f"{field}.file", number=LONGEST_SCRIPT))
    return text


def problems_of(
    engine: Engine, statements: Sequence[Statement], field: str, allow: Sequence[Hazard], version: int
) -> list[Result]:
    """Everything that keeps a script from being run: statements that cannot be, and hazards that are not allowed."""
    problems = list(engine.refusals(statements, field, version))
    impacts = engine.impacts(statements)
    found = [finding for impact in impacts for finding in impact.findings() if finding.hazard not in allow]
    if found:
        problems.append(Result(RunnerReason.HAZARD, field, found[0].statement, found[0].line, findings=tuple(found)))
    return problems
