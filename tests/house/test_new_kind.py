"""What a new kind of step that runs a Job takes: its file, its entry in the registry, a test, a page, and the CRD that is generated.

The kind in `support/new_kind/` is added to a copy of the repository, with exactly these changes. There everything that reads
kinds must accept it.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cluster import ROOT

pytestmark = pytest.mark.exhaustive

NEW = ROOT / "tests" / "support" / "new_kind"
REGISTRY = "operator/cutover/steps/__init__.py"
WRITTEN = {
    "operator/cutover/steps/reindex.py": NEW / "kind.py",
    "tests/steps/test_reindex.py": NEW / "story.py",
    "docs/kinds/reindex.md": NEW / "page.md",
}
GENERATED = {"crds/migrationplans.yaml", "charts/cutover/crds/migrationplans.yaml"}
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "node_modules", "*.egg-info")
_TESTS = ("tests/house/test_house.py", "tests/plan", "tests/steps/test_reindex.py", "tests/engine/test_promises.py")


class Tree:
    """A copy of the repository."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        shutil.copytree(ROOT, self.root, ignore=_LEFT_OUT)
        for name in (".dockerignore", ".github"):
            where = ROOT / name
            if where.is_dir():
                shutil.copytree(where, self.root / name)
            elif where.exists():
                shutil.copy(where, self.root)

    def add_the_kind(self) -> None:
        for path, source in WRITTEN.items():
            shutil.copy(source, self.root / path)
        registry = self.root / REGISTRY
        text = registry.read_text()
        for before, after in (
            ("from cutover.steps.schema", "from cutover.steps.reindex import Reindex\nfrom cutover.steps.schema"),
            ("    Notify,\n", "    Notify,\n    Reindex,\n"),
        ):
            assert text.count(before) == 1
            text = text.replace(before, after)
        registry.write_text(text)

    def run(self, *command: str) -> str:
        """What it prints; it finds the operator of this tree."""
        path = os.pathsep.join(str(self.root / source) for source in ("operator", "tests", "demo"))
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {**os.environ, "PYTHONPATH": path, "PATH": tools, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=self.root, env=given, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-6000:]}\n{done.stderr[-4000:]}"
        return done.stdout

    def python(self, *arguments: str) -> str:
        return self.run(sys.executable, *arguments)

    def cutover(self, *arguments: str) -> str:
        return self.python("-c", "from cutover.cli import main; main()", *arguments)

    def changed(self) -> set[str]:
        """The files that are not as they are in the repository."""
        mine = {str(file.relative_to(self.root)) for file in self.root.rglob("*") if file.is_file()}
        return {
            path
            for path in mine
            if not any(part.startswith(".") or part == "__pycache__" for part in Path(path).parts)
            and not ((ROOT / path).exists() and filecmp.cmp(ROOT / path, self.root / path, shallow=False))
        }


@pytest.mark.timeout(600)
def test_a_kind_that_runs_a_job_is_one_file_and_its_entry_in_the_registry(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    assert tree.changed() == set()
    tree.add_the_kind()
    text = tree.cutover("crd")
    for path in GENERATED:
        (tree.root / path).write_text(text)

    page = (tree.root / "docs/kinds/reindex.md").read_text()
    plan = tree.root / ".plan.yaml"
    plan.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    tree.cutover("lint", str(plan))
    told = tree.cutover("explain", str(plan))
    assert "1. search (reindex)" in told
    assert "stage: run a Job of search-tool:1" in told
    assert "rollback order: undo search" in told
    assert "- {apiGroups: [batch], resources: [jobs], verbs: [create, patch, delete]}" in told

    tree.run("lint-imports", "--no-cache")
    tree.run("ruff", "check", *WRITTEN, REGISTRY)
    tree.python("-m", "pytest", *_TESTS, "-n0", "-q", "-p", "no:cacheprovider", "-m", "not cluster and not long")
    assert tree.changed() == {REGISTRY, *WRITTEN, *GENERATED}
