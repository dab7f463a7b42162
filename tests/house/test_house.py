"""What holds for the repository as a whole."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cutover.cli import sql
from cutover.cli.explain import explain
from cutover.plan import crd
from cutover.plan.parsing import parse
from cutover.steps import KINDS
from harness.cluster import ROOT
from support.plans.simulated import APPROVED

SOURCES = sorted((ROOT / "operator").rglob("*.py"))
DOCUMENTS = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
_BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every manifest of the examples, the demo and the documents, with where it stands."""
    found = [
        (file, file.read_text())
        for folder in ("examples", "examples/before", "demo")
        for file in sorted((ROOT / folder).glob("*.yaml"))
    ]
    found += [(file, block) for file in DOCUMENTS for block in _BLOCK.findall(file.read_text())]
    return [
        (f"{file.relative_to(ROOT)}:{body['metadata']['name']}", body)
        for file, text in found
        for body in yaml.safe_load_all(text.replace("$(DEMO)", "/demo"))
    ]


MANIFESTS = manifests()
PLANS = [(where, body) for where, body in MANIFESTS if body["kind"] == "MigrationPlan"]


def test_operator_is_a_source_root() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists(), "it would shadow the standard library's operator"


def test_the_crd_files_are_fresh_and_small() -> None:
    text = crd.text()
    assert (ROOT / "crds" / "migrationplans.yaml").read_text() == text, "run make crd"
    (in_chart,) = (ROOT / "charts" / "cutover" / "crds").iterdir()  # Helm would install another one as well
    assert (in_chart.name, in_chart.read_text()) == ("migrationplans.yaml", text), "run make crd"
    assert len(text.encode()) <= 200_000


def test_files_and_functions_are_short() -> None:
    """Bytes and not lines: a file that is too long is split at a seam, and not squeezed. `make check-code` limits complexity."""
    lengths = []
    for file in SOURCES:
        text = file.read_text()
        lengths.append(text.count("\n"))
        assert len(text.encode()) <= 14_000, file
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 60, f"{file}:{node.name}"
    assert sorted(lengths)[len(lengths) // 2] <= 150


ROOMS = {
    "adapters", "cli", "database", "engine", "gates", "objects", "plan", "preflight", "report", "routing", "runner_messages", "runtime", "saga", "schema",
    "settings", "status", "steps", "targets", "testing",
}  # fmt: skip
MODULES_AT_THE_ROOT = {
    "__init__.py",
    "app.py",
    "errors.py",
    "field_path.py",
    "go_json.py",
    "messaging.py",
    "names.py",
    "ports.py",
    "py.typed",
}


def test_every_line_of_code_has_its_room() -> None:
    """The packages are those that docs/architecture.md draws; a loose module would belong to none."""
    found = {entry.name for entry in (ROOT / "operator" / "cutover").iterdir() if entry.name != "__pycache__"}
    assert found == ROOMS | MODULES_AT_THE_ROOT


def test_every_module_says_what_it_is() -> None:
    for file in SOURCES:
        if file.read_text().strip():
            assert ast.get_docstring(ast.parse(file.read_text())), file


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    for file in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *DOCUMENTS]:
        assert not any(re.search(rf"\b{word}\b", file.read_text()) for word in words), file


@pytest.mark.parametrize(("where", "body"), PLANS, ids=[where for where, _ in PLANS])
def test_every_plan_that_is_shown_is_good(where: str, body: dict[str, Any]) -> None:
    assert parse(body["spec"]).steps, where


@pytest.mark.parametrize(("where", "body"), PLANS, ids=[where for where, _ in PLANS])
def test_the_sql_of_every_plan_that_is_shown_is_good(where: str, body: dict[str, Any]) -> None:
    assert list(sql.problems(parse(body["spec"]), sql.NEWEST)) == [], where


@pytest.mark.parametrize(("where", "body"), PLANS, ids=[where for where, _ in PLANS])
def test_no_plan_that_is_shown_compares_with_what_gets_no_requests(where: str, body: dict[str, Any]) -> None:
    """At weight 100 the old version has no numbers of now, so such a gate would wait until the plan is rolled back."""
    for step in body["spec"]["steps"]:
        if 100 in step.get("traffic", {}).get("weights", []):
            baselines = [gate.get("prometheus", {}).get("baseline", "") for gate in step.get("gates", [])]
            assert all("offset" in baseline for baseline in baselines if baseline), f"{where}, {step['name']}"


def test_the_requests_that_are_shown_end_in_the_users_name() -> None:
    """The chart's policy refuses any other, and a command in a document is copied as it stands."""
    shown = [
        (file, value)
        for file in DOCUMENTS
        for value in re.findall(
            r'^kubectl annotate .*request\.cutover\.dev/\w+="([^"]*)"', file.read_text(), re.MULTILINE
        )
    ]
    assert shown
    for file, value in shown:
        assert value.endswith(" by=$ME"), file


@pytest.mark.parametrize("file", EXAMPLES, ids=[file.stem for file in EXAMPLES])
def test_every_example_says_what_must_exist_and_grants_the_permissions_it_needs(file: Path) -> None:
    assert f"\n# Before: before/{file.name}\n" in file.read_text()
    lines = list(explain(parse(yaml.safe_load(file.read_text())["spec"])))
    needed = [yaml.safe_load(line)[0] for line in lines[lines.index("permissions the service account needs:") + 1 :]]
    before = yaml.safe_load_all((file.parent / "before" / file.name).read_text())
    assert next(body["rules"] for body in before if body["kind"] == "Role") == needed


def test_there_are_plans_to_look_at() -> None:
    assert len(PLANS) >= 8


def test_the_walk_that_is_described_is_the_golden_trace() -> None:
    """docs/architecture.md quotes lines of a trace, and its plan; the trace is what the engine does."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    quoted = "".join(re.findall(r"^```trace\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).splitlines()
    lines = iter((ROOT / "tests" / "engine" / "traces" / "approved.txt").read_text().splitlines())
    assert [line for line in quoted if line not in lines] == [], "not in this order in approved.txt"
    assert len(quoted) > 15
    (walked,) = [body for where, body in PLANS if where == "docs/architecture.md:shop-v2"]
    assert walked["spec"]["steps"] == yaml.safe_load(APPROVED)["steps"]


def test_links_lead_somewhere() -> None:
    for file in [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", file.read_text()):
            if not target.startswith("http"):
                assert (file.parent / target).exists(), f"{file}: {target}"


def test_readme_has_no_blanks() -> None:
    """Figures that were still to be measured are written like this when it is drafted: FIRST_TIME."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"`[^`]*`", "", prose)
    assert re.findall(r"\b[A-Z]+_[A-Z_]+\b", prose) == []


def test_names_become_addresses_in_one_place() -> None:
    """Whoever puts a name into a path or a selector by himself would let it lead to another object, or to another namespace.

    The types of `names.py` refuse other text; here nobody makes one of them, and no text begins as a path of the API server does.
    """
    homes = {"names.py": ("ApiPath", "Selector", "metadata.name="), "adapters/prometheus.py": ("/api/v1/query",)}
    found = []
    for file in SOURCES:
        name = str(file.relative_to(ROOT / "operator" / "cutover"))
        for node in ast.walk(ast.parse(file.read_text())):
            text = ""
            if isinstance(node, ast.Constant) and re.match(r"/?(apis?|namespaces)/|metadata\.name=", str(node.value)):
                text = str(node.value)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                text = called if called in ("ApiPath", "Selector") else ""
            if text and text not in homes.get(name, ()):
                found.append(f"{name}:{node.lineno}: {text}")  # type: ignore[attr-defined]  # both kinds of node have one
    assert found == []


def test_only_one_file_knows_kopf() -> None:
    """The contract in pyproject.toml covers every module, those to come included."""
    for package, home in (("kopf", "app.py"), ("kubernetes", "cli/kubeconfig.py")):
        users = [
            str(file.relative_to(ROOT / "operator" / "cutover"))
            for file in SOURCES
            if re.search(rf"^\s*(import|from) {package}\b", file.read_text(), re.MULTILINE)
        ]
        assert users == [home]
        contract = next(
            contract
            for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
            if contract.get("forbidden_modules") == [package]
        )
        assert contract["source_modules"] == ["cutover"]
        assert contract["ignore_imports"] == [f"cutover.{home.removesuffix('.py').replace('/', '.')} -> {package}"]


def test_every_kind_is_kept_apart_from_the_others() -> None:
    """The contract in pyproject.toml covers every module and package of `steps`, those to come included."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = (contract for contract in contracts if contract["name"] == "Kinds do not know each other")
    assert contract["modules"] == ["cutover.steps.*"]
    homes = {".".join(kind.__module__.split(".")[:3]) for kind in KINDS}
    assert len(homes) == len(KINDS)
    allowed = {entry.partition(" -> ")[2].removesuffix(".**") for entry in contract["ignore_imports"]}
    assert homes & allowed == set()


def test_every_kind_has_its_page_with_a_plan_that_uses_it() -> None:
    pages = {page.stem: page.read_text() for page in (ROOT / "docs" / "kinds").glob("*.md") if page.stem != "README"}
    assert set(pages) == {kind.key for kind in KINDS}
    for key, page in pages.items():
        assert page.startswith(f"# {key}\n")
        plans = [yaml.safe_load(block) for block in _BLOCK.findall(page)]
        assert any(key in step for plan in plans for step in plan["spec"]["steps"]), key


def test_only_one_file_makes_text_for_a_terminal_of_what_comes_from_outside() -> None:
    """A console or a text of rich's own would let control characters through; it names what may be used instead."""
    makers = re.compile(r"^\s*(?:from rich\.text import|import rich\.text$|from rich import)|\bConsole\(", re.MULTILINE)
    users = {
        str(file.relative_to(ROOT / "operator" / "cutover")) for file in SOURCES if makers.search(file.read_text())
    }
    assert users == {"report/texts.py", "cli/base.py"}


def test_the_builder_of_the_image_is_sent_what_it_copies_and_no_more() -> None:
    copied = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            copied |= {source.removeprefix("./") for source in line.split()[1:-1]}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignore
    assert {line[1:] for line in ignore if line.startswith("!")} == copied
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_image_runs_the_operator_as_the_user_that_the_chart_asks_for() -> None:
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].splitlines()
    (user,) = (line.removeprefix("USER ") for line in last if line.startswith("USER "))
    (entry,) = (json.loads(line.removeprefix("ENTRYPOINT ")) for line in last if line.startswith("ENTRYPOINT "))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"][entry[0]] == "cutover.app:main"
    chart = (ROOT / "charts" / "cutover" / "templates" / "deployment.yaml").read_text()
    assert ":".join(re.findall(r"runAs(?:User|Group): (\d+)", chart)) == user


def test_the_image_needs_no_package_of_the_command_line() -> None:
    """The operator starts without typer, rich and kubernetes; with the last, Kopf would log in through it."""
    script = (
        "import sys\nfor name in ('typer', 'rich', 'kubernetes', 'click'): sys.modules[name] = None\n"
        "import cutover.app\nsys.argv = ['cutover-operator', '--help']\ncutover.app.main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--settings" in done.stdout


def test_the_operator_knows_nothing_of_the_test_equipment() -> None:
    for file in SOURCES:
        assert not re.search(r"harness|kwok|127\.0\.0\.1|localhost", file.read_text(), re.IGNORECASE), file


def test_the_runner_of_database_jobs_stays_out_of_the_operator() -> None:
    """Import contracts say so too; here nobody names it in a text that would be imported at run time. Two commands of the CLI use it."""
    for file in SOURCES:
        place = file.relative_to(ROOT / "operator" / "cutover")
        if "database" not in place.parts and not (place.match("cli/database*.py") or place.match("cli/sql.py")):
            assert "cutover.database." not in file.read_text(), file


def test_the_project_speaks_of_itself_alone() -> None:
    """No path of anybody's machine stands in what is published."""
    for file in [*SOURCES, *DOCUMENTS, *(ROOT / "demo").glob("*"), *(ROOT / "charts").rglob("*")]:
        if file.is_file() and file.suffix != ".pyc":
            assert not re.search(r"/(root|work|home)/", file.read_text()), file
    assert Path(ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")


def test_every_test_that_the_documents_name_exists(root: Path) -> None:
    named = 0
    for page in [
        root / "docs" / "engine.md",
        root / "docs" / "security.md",
        *sorted((root / "docs" / "engine").glob("*.md")),
    ]:
        file = ""
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        for mark in re.findall(r"`([^`\n]+)`", prose):
            path, _, test = mark.partition("::")
            if path.endswith(".py") and (root / "tests" / path.partition("/")[0]).is_dir():
                file = path
                assert (root / "tests" / path).exists(), f"{page}: {path}"
            name = test or (mark if mark.startswith("test_") else "")
            if name:
                named += 1
                assert f"def {name}(" in (root / "tests" / file).read_text(), f"{page}: {file}::{name}"
    assert named >= 230


def test_every_promise_has_its_test_and_every_page_is_in_the_index(root: Path) -> None:
    index = (root / "docs" / "engine.md").read_text()
    for page in sorted((root / "docs" / "engine").glob("*.md")):
        promises = re.split(r"^- ", page.read_text(), flags=re.MULTILINE)[1:]
        assert f"(engine/{page.name}) | {len(promises)} |" in index, page
        for promise in promises:
            assert re.search(r"^  Test: [^`]*`[^`]+`", promise, re.MULTILINE), f"{page}: {promise}"
