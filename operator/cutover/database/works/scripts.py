"""Scripts of the payload: read, proven to be what the plan's run began with, split, and checked before the first statement runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cutover.database.engines.base import Statement, Texts
from cutover.database.outcome import Ended
from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.payload import LONGEST_SCRIPT, SchemaWork, Script
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
    engine: Texts, statements: Sequence[Statement], field: str, allow: Sequence[Hazard], version: int
) -> list[Result]:
    """Everything that keeps a script from being run: statements that cannot be, and hazards that are not allowed."""
    problems = list(engine.refusals(statements, field, version))
    impacts = engine.impacts(statements)
    found = [finding for impact in impacts for finding in impact.findings() if finding.hazard not in allow]
    if found:
        problems.append(Result(RunnerReason.HAZARD, field, found[0].statement, found[0].line, findings=tuple(found)))
    return problems


UP, DOWN, VALIDATE = "schema.up", "schema.down", "schema.validate"
"""The scripts of a `schema` step, as results name them."""


def problems_of_schema(work: SchemaWork, engine: Texts, version: int) -> list[Result]:
    """What would stop `up` or `down`, as far as the texts say it."""
    scripts = ((work.up, UP), (work.down, DOWN), (work.validate_, VALIDATE))
    return [one for script, field in scripts for one in problems_of_script(script, field, work.allow, engine, version)]


def problems_of_script(
    script: Script | None, field: str, allow: Sequence[Hazard], engine: Texts, version: int
) -> Sequence[Result]:
    """Of one of them; only `up` has hazards that must be allowed."""
    if script is None:
        return ()
    try:
        statements = engine.split(text_of(script, field), field)
    except Ended as ended:
        return [ended.result]
    if field == UP:
        return problems_of(engine, statements, field, allow, version)
    return engine.refusals(statements, field, version)
