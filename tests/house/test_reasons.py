"""Every reason that a plan can have is explained in one place, with its way out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from cutover.errors import Denied, Rejected
from cutover.runner_messages.reasons import ExitCode, RunnerReason
from cutover.status.reasons import Reason
from harness.cluster import ROOT

_PAGE = ROOT / "docs" / "reasons.md"
_MADE_OF = {"Failed", "Wait", "Pause", "Differs", "Failing", "Foreign", "_attempt_over"}
"""What is called with a reason: outcomes, standings, and the errors that become one."""
_CAMEL = re.compile(r"(?:[A-Z][a-z]+|CRD)+")


def in_code() -> set[str]:
    """The reasons of the saga, of all that a kind, the engine or a runner answers, and the errors that are named as they are."""
    found = {*map(str, Reason), Denied.__name__, Rejected.__name__}
    found |= {str(reason) for reason in RunnerReason if reason.code is not ExitCode.OK}
    for file in sorted((ROOT / "operator").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in _MADE_OF:
                given = [*node.args[:2], *(one.value for one in node.keywords if one.arg == "reason")]
                values = [one.value for one in given if isinstance(one, ast.Constant)]
                found |= {str(value) for value in values if _CAMEL.fullmatch(str(value))}
    return found


def rows() -> Iterator[list[str]]:
    """The cells of each row of each table of the page."""
    for line in _PAGE.read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def test_every_reason_is_explained_and_none_that_does_not_exist() -> None:
    known = in_code()
    assert {"SideNotReady", "TargetGone", "OutdatedCRD", "Unresolved"} <= known
    explained = {mark for row in rows() for cell in row for mark in re.findall(r"`([^`]+)`", cell)}
    assert sorted(known - explained) == []
    named = {mark for row in rows() for mark in re.findall(r"`([^`]+)`", row[0])}
    assert sorted(named - known) == []


def test_every_explanation_has_a_cause_and_a_way_out() -> None:
    assert all(len(row) == 3 and all(row) for row in rows())
