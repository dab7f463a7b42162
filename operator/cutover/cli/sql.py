"""The SQL of a plan's steps, checked without a server: for `cutover lint`. Its packages are an extra of their own."""

# ruff: noqa: PLC0415 -- imported when there is SQL to check, and only if they are installed
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cutover.errors import Problem
from cutover.runner_messages.reasons import RunnerReason
from cutover.runner_messages.sentences import RIGHT_FORMS, finding_text, sentence
from cutover.steps.shared.database_kind import DatabaseKind

if TYPE_CHECKING:
    from cutover.plan.spec import Plan
    from cutover.runner_messages.result import Result

INSTALL: Final = (
    "the packages for databases are not installed; install them with the extra database: "
    "uv tool install '.[cli,database]'"
)
NEWEST: Final = 18


def has_packages() -> bool:
    """Whether the extra is installed."""
    try:
        import cutover.database.local  # noqa: F401 -- whether it can be had
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("cutover"):
            raise
        return False
    return True


def has_sql(plan: Plan) -> bool:
    """Whether any step works in a database."""
    return any(isinstance(step.kind, DatabaseKind) for step in plan.steps)


def problems(plan: Plan, version: int) -> Iterator[Problem]:
    """All that would stop the steps on servers of this major version, as far as their texts say it; one line per hazard."""
    from cutover.database.texts import problems_of

    for step in plan.steps:
        if isinstance(step.kind, DatabaseKind):
            for result in problems_of(step.kind.work(), version):
                yield from _told(f"steps[{step.name}].{result.field}", result)


def _told(place: str, result: Result) -> Iterator[Problem]:
    if result.reason is not RunnerReason.HAZARD:
        yield Problem(place, sentence(replace(result, field="")))
    for one in result.findings:
        yield Problem(place, f"{finding_text(one)}; {RIGHT_FORMS[one.hazard]}, or add {one.hazard} to allow")
