"""``make bench``: how fast the operator is, and how large, on a real control plane with simulated pods.

Milliseconds depend on the machine; the ratio to a bare loop in the same run does not. Writes the tables in
docs/performance.md. ``peers.py`` says whom the environment may name to be measured beside it. ``PARTS="alone many crowd beside size database"`` picks parts; ``MANY="100 500"`` says how many plans go at once.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import beside_others
import crowd
import many_plans
import memory
import one_plan
from environment import environment

import database
from harness.cluster import ROOT

DOC = ROOT / "docs" / "performance.md"


def _write(part: str, text: str) -> None:
    """Put what was measured in its place in the page."""
    sys.stdout.write(text)
    begin, end = f"<!-- bench: {part} -->\n", f"<!-- end of bench: {part} -->\n"
    head, found, rest = DOC.read_text().partition(begin)
    assert found, f"{DOC} has no place for {part}"
    DOC.write_text(head + begin + text + end + rest.partition(end)[2])


def main() -> int:
    parts = os.environ.get("PARTS", "alone many crowd beside size database").split()
    numbers = [int(word) for word in os.environ.get("MANY", "100 500").split()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if "alone" in parts or "many" in parts:
            with environment(folder / "speed") as (cluster, _, prometheus):
                text, bare = one_plan.measure(cluster, prometheus)
                _write("alone", text)
                if "many" in parts:
                    _write("many", many_plans.measure(cluster, numbers, bare))
        if "crowd" in parts:
            _write("crowd", crowd.measure(folder / "crowd", numbers))
        if "beside" in parts:
            with environment(folder / "beside") as (cluster, _, _):
                _write("beside", beside_others.measure(cluster))
        if "database" in parts:
            _write("database", database.measure(folder / "database"))
        if "size" in parts:
            with environment(folder / "size") as (cluster, operator, _):
                _write("size", memory.measure(cluster, operator))
    return 0


if __name__ == "__main__":
    sys.exit(main())
