"""What docs/security.md says of the chart, the CRD and the code, and that it says it of every part."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

import yaml

from cutover.plan import crd
from harness.cluster import ROOT

PAGE: Final = (ROOT / "docs" / "security.md").read_text()
FILES: Final = ROOT / "charts" / "cutover" / "files"
RULES: Final = yaml.safe_load((FILES / "rules.yaml").read_text())
LEASE: Final = yaml.safe_load((FILES / "lease-rules.yaml").read_text())
SOURCES: Final = {
    file.relative_to(ROOT / "operator" / "cutover"): ast.parse(file.read_text())
    for file in sorted((ROOT / "operator").rglob("*.py"))
}


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


# --- the page ---------------------------------------------------------------------------------------------------------


def test_each_attack_has_its_test_or_says_why_not() -> None:
    found = re.split(r"^### (\d+)\. .*\n", section("Attacks"), flags=re.MULTILINE)[1:]
    attacks = dict(zip(map(int, found[::2]), found[1::2], strict=True))
    assert list(attacks) == list(range(1, 29))
    for number, text in attacks.items():
        answers = re.findall(r"^(Test|Answered elsewhere|Not yet): (.+)", text, re.MULTILINE)
        assert answers, number
        assert all("`" in said for how, said in answers if how == "Test"), number
        assert len(text) < 1600, f"{number}: a defence takes a sentence or two"


def test_every_rule_of_the_operator_has_its_reason() -> None:
    """One line for each, so that none comes in unseen; the lines are the rules, and the same words stand nowhere else."""
    rows = re.findall(
        r"^\| `([^`]*)` \| `([^`]+)` \| `([^`]+)` \| (.+) \|$", section("What the operator may do"), re.MULTILINE
    )
    said = [(group, resources, verbs) for group, resources, verbs, _ in rows]
    ruled = [
        (group or "core", ", ".join(rule["resources"]), ", ".join(rule["verbs"]))
        for rule in (*RULES, *LEASE)
        for group in rule["apiGroups"]
    ]
    assert said == ruled
    assert all(len(why) > 20 for *_, why in rows)


# --- the chart --------------------------------------------------------------------------------------------------------


def test_the_operator_has_no_secret_no_wildcard_and_no_write_to_a_target() -> None:
    writes: dict[str, set[str]] = {}
    for rule in RULES:
        for resource in rule["resources"]:
            writes.setdefault(resource, set()).update({*rule["verbs"]} - {"get", "list", "watch"})
    assert "secrets" not in writes
    assert not [rule for rule in (*RULES, *LEASE) if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]
    assert {resource: verbs for resource, verbs in writes.items() if verbs} == {
        "migrationplans": {"patch"},
        "migrationplans/status": {"update"},
        "controllerrevisions": {"create", "patch", "delete", "deletecollection"},
        "jobs": {"deletecollection"},
        "serviceaccounts": {"impersonate"},
        "subjectaccessreviews": {"create"},
        "events": {"create"},
    }


# --- the CRD ----------------------------------------------------------------------------------------------------------


def _fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in (schema.get("properties") or {}).items():
        yield name, field
        yield from _fields(field)
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(inner, dict):
            yield from _fields(inner)


def test_a_plan_names_no_namespace_no_address_no_user_and_no_secret() -> None:
    """Except of its databases, which only pods of the plan's own account connect to; there a Secret is named, and never read here."""
    (version,) = yaml.safe_load(crd.text())["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    databases = spec["properties"].pop("databases")
    fields = dict(_fields(spec))
    assert len(fields) > 60
    words = re.compile(r"namespace|url|address|secret|token|password|credential|user|group|impersonate", re.IGNORECASE)
    assert [name for name in fields if words.search(name)] == []
    named = {name: field for name, field in _fields(databases) if words.search(name)}
    assert named.pop("user")["type"] == "string"
    assert {name for name, field in named.items() if field["type"] != "object"} == {"imagePullSecrets"}
    references = [field for name, field in _fields(databases) if name == "secretKeyRef"]
    assert len(references) > 5
    assert all(set(field["properties"]) == {"name", "key"} for field in references)


# --- the code ---------------------------------------------------------------------------------------------------------

_RUNS_TEXT: Final = {"eval", "exec", "compile", "__import__"}
_RUNS_PROGRAMS: Final = {"subprocess", "pickle", "marshal", "shelve", "jinja2", "mako", "sqlite3", "ctypes", "pty"}


def test_no_text_of_a_plan_is_run() -> None:
    """No template engine, no shell, no database, no evaluation; `format` only on texts of our own; one reader of YAML."""
    for file, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [name.name for name in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.partition(".")[0] for name in names} & _RUNS_PROGRAMS, file
            if not isinstance(node, ast.Call):
                continue
            called = node.func
            if isinstance(called, ast.Name):
                assert called.id not in _RUNS_TEXT, f"{file}:{node.lineno}"
            if isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
                assert (called.value.id, called.attr) not in {("os", "system"), ("os", "popen")}, file
                assert called.value.id != "yaml" or "load" not in called.attr, f"{file}: use schema/yaml_file.py"
            if isinstance(called, ast.Attribute) and called.attr in ("format", "format_map"):
                of = called.value.value if isinstance(called.value, ast.Subscript) else called.value
                ours = isinstance(of, ast.Constant) or (isinstance(of, ast.Name) and of.id.upper() == of.id)
                assert ours or ast.unparse(of) == "super()", f"{file}:{node.lineno}"


def test_kopf_keeps_nothing_on_an_object_and_reads_nothing_back() -> None:
    """Only handlers of raw events: the annotations in which Kopf keeps progress and former states are never consulted."""
    used = {
        decorator.func.attr
        for node in ast.walk(SOURCES[next(file for file in SOURCES if file.name == "app.py")])
        if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)
    }
    assert used == {"login", "startup", "event"}


# --- the image --------------------------------------------------------------------------------------------------------


def test_every_package_of_the_image_is_locked_by_its_hash() -> None:
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    fetched = [package for package in packages if "registry" in package["source"]]
    assert len(fetched) == len(packages) - 1, "all but this project come from the registry"
    for package in fetched:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files, package["name"]
        assert all(file["hash"].startswith("sha256:") for file in files), package["name"]
    text = (ROOT / "Dockerfile").read_text()
    assert all("--frozen" in line for line in text.splitlines() if "uv sync" in line)
    assert re.findall(r"pip install .*", text) == re.findall(r"pip install --no-cache-dir uv==[\d.]+", text)
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${BASE}"}
