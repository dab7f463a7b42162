"""The workflow of the public repository, as far as it can be judged without running it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from harness.cluster import ROOT

FILE = ROOT / ".github" / "workflows" / "ci.yaml"
JOBS: dict[str, Any] = yaml.safe_load(FILE.read_text())["jobs"]
STEPS = [step for job in JOBS.values() for step in job["steps"]]


def check(file: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_is_what_github_takes(tmp_path: Path) -> None:
    done = check(FILE)
    assert done.returncode == 0, done.stdout
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(FILE.read_text().replace("runs-on:", "runs_on:"))
    assert check(wrong).returncode == 1


def test_its_actions_are_pinned() -> None:
    actions = [step["uses"] for step in STEPS if "uses" in step]
    assert actions
    for action in actions:
        assert re.fullmatch(r"actions/[a-z-]+@v\d+\.\d+\.\d+", action), action


def test_its_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = "\n".join(step["run"] for step in STEPS if "run" in step) + (ROOT / ".ci" / "run").read_text()
    called = set(re.findall(r"^make ([a-z-]+)", commands, re.MULTILINE))
    assert called == {"test", "demo", "test-kind"}
    assert called <= targets
    assert ".ci/run" in commands


@pytest.mark.parametrize("name", JOBS)
def test_its_python_is_one_that_is_allowed(name: str) -> None:
    allowed = SpecifierSet(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"])
    (version,) = (
        step["with"]["python-version"] for step in JOBS[name]["steps"] if "python-version" in step.get("with", {})
    )
    assert version in allowed
    assert JOBS[name]["env"]["UV_PYTHON"] == version, "or uv takes another"


def test_the_python_of_the_kind_way_is_that_of_the_image() -> None:
    (version,) = set(re.findall(r"^ARG BASE=python:(\d\.\d+)-slim", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert JOBS["kind"]["env"]["UV_PYTHON"] == version


def test_the_files_that_it_hashes_are_there() -> None:
    patterns = [pattern for call in re.findall(r"hashFiles\((.*)\)", FILE.read_text()) for pattern in call.split(", ")]
    assert patterns
    for pattern in patterns:
        assert list(ROOT.glob(pattern.strip("'"))), pattern
    for step in STEPS:
        file = step.get("with", {}).get("go-version-file")
        assert file is None or (ROOT / file).exists()
