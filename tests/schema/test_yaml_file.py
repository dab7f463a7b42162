"""YAML of other people stands for no more than what is written in it, and makes nothing but plain data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cutover.errors import PlanError
from cutover.schema.yaml_file import GivenTwiceError, document, documents
from cutover.settings.settings import load

# Eight lines of four aliases each: 87,000 items a copy. Harmless where nobody copies it, and more than the limit from the ninth on.
NESTED = "a0: &a0 [x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 9)
)
TOO_MUCH = {
    "its aliases stand for more than 100000 items": NESTED,
    "an alias stands inside what it names": "a: &a {b: [*a]}\n",
    "nested more than 100 levels deep": f"a: {'[' * 150}{']' * 150}\n",
    "could not determine a constructor for the tag": "a: !!python/name:os.getcwd\n",
    "day is out of range for month": "a: 2026-02-30\n",
    "invalid literal for int": "a: 0x_\n",
}


@pytest.mark.parametrize("says", TOO_MUCH)
def test_what_stands_for_too_much_is_refused_with_its_place(says: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError, match=says) as caught:
        document(TOO_MUCH[says])
    assert caught.value.problem_mark is not None


def test_the_documents_of_a_file_have_the_limit_each() -> None:
    few = NESTED.partition("a7:")[0]
    assert [max(one) for one in documents("---\n".join([few] * 20))] == ["a6"] * 20


def test_common_aliases_and_merges_are_fine() -> None:
    text = "base: &base {a: 1, b: &b [1, 2]}\nother: {<<: *base, a: 2}\nagain: *b\n"
    assert (
        document(text)
        == yaml.safe_load(text)
        == {
            "base": {"a": 1, "b": [1, 2]},
            "other": {"a": 2, "b": [1, 2]},
            "again": [1, 2],
        }
    )
    assert document("") is None
    assert list(documents("a: 1\n---\n- x\n")) == [{"a": 1}, ["x"]]


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        ("a: 1\nb: 2\na: 3\n", "a", 3),
        ("a: {b: 1, 'b': 2}\n", "a.b", 1),
        ("a:\n  - x: [{n: 1}]\n    name: one\n    x: []\n", "a[one].x", 4),
        ("a: [1, {b: 1, b: 2}]\n", "a[1].b", 1),
        ("a: &a {b: 1, b: 2}\nc: *a\n", "a.b", 1),
        ("a: 1\n---\nb: 1\nb: 2\n", "b", 4),
    ],
)
def test_a_key_given_twice_is_refused_with_its_field_and_line(text: str, field: str, line: int) -> None:
    with pytest.raises(GivenTwiceError) as caught:
        list(documents(text))
    assert (caught.value.field, caught.value.line) == (field, line)


def test_a_key_that_overrides_a_merged_one_is_given_once() -> None:
    assert document("a: &a {b: 1}\nc: {b: 2, <<: *a}\n") == {"a": {"b": 1}, "c": {"b": 2}}


@pytest.mark.parametrize("says", TOO_MUCH)
def test_the_command_line_and_the_settings_say_so_in_a_sentence(says: str, tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(TOO_MUCH[says])
    done = subprocess.run(
        [sys.executable, "-m", "cutover.cli", "lint", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 64
    assert done.stderr.startswith(f"error: {file} is not valid YAML at line ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    with pytest.raises(PlanError, match=r"plan\.yaml is not valid YAML at line \d+, column \d+$"):
        load(file)
