"""docs/database.md says of hazards and exit codes what the code has."""

from __future__ import annotations

import re

from cutover.runner_messages.hazards import Hazard
from cutover.runner_messages.reasons import FINAL, ExitCode
from harness.cluster import ROOT

PAGE = (ROOT / "docs" / "database.md").read_text()


def rows(title: str) -> list[list[str]]:
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if re.match(r"\| [`\d]", line)
    ]


def test_each_hazard_is_explained() -> None:
    assert {name.strip("`") for name, _ in rows("Hazards")} == set(Hazard)


def test_each_exit_code_is_explained_and_those_that_end_a_job_are_marked() -> None:
    found = {int(code): again for code, _, again in rows("Exit codes")}
    assert set(found) == set(map(int, ExitCode))
    assert {code for code, again in found.items() if again == "no"} == set(map(int, FINAL))
