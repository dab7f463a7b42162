"""YAML in a string: what it means, what is refused, and where the author finds the mistake."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.errors import PlanError
from cutover.schema.yaml_text import DEEPEST, LONGEST, MOST, Room, parse

# JSON writes what is not printable, or not in the basic plane, as YAML does not.
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | WORDS
TREES = st.recursive(SCALARS, lambda below: st.lists(below) | st.dictionaries(WORDS, below), max_leaves=20)


def nested(levels: int) -> str:
    """Mappings and lists in turn, this many levels of them."""
    text = "0"
    for level in range(levels, 0, -1):
        text = f"{{a: {text}}}" if level % 2 else f"[{text}]"
    return text


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a: 5", {"a": 5}),
        ("a: {b: [x, null, ~, true, no]}", {"a": {"b": ["x", None, None, True, False]}}),
        ("a:\n  - b: |\n      line\n      line\n", {"a": [{"b": "line\nline\n"}]}),
        ('{"a": {"b": [1, 1.5, "x", null, false]}}', {"a": {"b": [1, 1.5, "x", None, False]}}),
        ("a: '5'\nb: \"true\"\nc: ''", {"a": "5", "b": "true", "c": ""}),
        ("a:", {"a": None}),
        ("'on': x\n'': y", {"on": "x", "": "y"}),
        ("%YAML 1.2\n---\na: 5\n...\n", {"a": 5}),
        ("# words\na: 5 # words\n", {"a": 5}),
        ("a: '<<'\nb: <<", {"a": "<<", "b": "<<"}),
    ],
)
def test_what_a_text_means(text: str, meaning: dict[str, Any]) -> None:
    assert parse(text) == meaning


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        # As kubectl reads a manifest: neither a time of day, nor a date, nor what only looks like a number is one.
        ("12:30", "12:30"),
        ("2026-01-01", "2026-01-01"),
        ("0644", 420),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b101", 5),
        ("-7", -7),
        ("1_000", 1000),
        ("_1", "_1"),
        ("1.5", 1.5),
        ("1e3", 1000),
        ("2.0", 2),
        ("9e999999", "9e999999"),
        (".nan", ".nan"),
        (".inf", ".inf"),
        ("1.2.3", "1.2.3"),
        ("3000m", "3000m"),
        ("y", "y"),
        ("=", "="),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_what_a_scalar_means(scalar: str, value: object) -> None:
    read = parse(f"a: {scalar}")["a"]
    assert (read, type(read)) == (value, type(value))


@given(tree=st.dictionaries(WORDS, TREES, max_size=4))
def test_json_means_what_json_means(tree: dict[str, Any]) -> None:
    assert parse(json.dumps(tree, ensure_ascii=False)) == tree


def test_as_deep_as_may_be_and_one_deeper() -> None:
    assert parse(nested(DEEPEST))
    with pytest.raises(
        ValueError, match=r"^line 1, column \d+ of the text: more than 32 levels deep, the maximum; check the ind"
    ):
        parse(nested(DEEPEST + 1))


def test_as_long_as_may_be_and_one_longer() -> None:
    assert parse("a: " + "x" * (LONGEST - 3)) == {"a": "x" * (LONGEST - 3)}
    with pytest.raises(ValueError, match=r"^has 16385 characters, and the maximum is 16384; comments count too"):
        parse("a: " + "x" * (LONGEST - 2))


def test_as_many_keys_and_values_as_may_be_and_one_more() -> None:
    """The outer mapping, its key and its list count too; short items make many of them in few characters."""
    assert len(parse(f"a: [{'0,' * (MOST - 3)}]")["a"]) == MOST - 3
    with pytest.raises(
        ValueError,
        match=r"^line 1, column \d+ of the text: more than 2000 keys and values, the maximum; long lists belong",
    ):
        parse(f"a: [{'0,' * (MOST - 2)}]")


def test_what_is_refused_takes_room_too() -> None:
    room = Room(30)
    with pytest.raises(ValueError, match="is not supported"):
        parse(f"a: [{'0,' * 10} !secret x]", room=room)
    assert room.left == 30 - 14
    assert parse(f"a: [{'0,' * 13}]", room=room)
    assert room.left == 0
    with pytest.raises(PlanError, match="keys and values together, the maximum; split the plan"):
        parse("a: 1", room=room)


def test_many_levels_side_by_side_are_not_deep() -> None:
    """Levels that have ended do not count."""
    assert len(parse("".join(f"k{at}: [[[]]]\n" for at in range(200)))) == 200


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x [1]\nb: *x", "line 1, column 4 of the text: anchors and aliases such as &x are not supported"),
        ("? {a: b}\n: c", "line 1, column 3 of the text: a mapping cannot be a key; if this is a template"),
        ("[a]: b", "line 1, column 1 of the text: the key a list is not a string for YAML"),
        ("a:\n  b: 1\n\tc: 2", "line 3, column 1 of the text: not valid YAML: a tab is used for indentation; use spaces"),
        ("1: a", "line 1, column 1 of the text: the key 1 is not a string for YAML"),
        ("a: 1\na: 2", "line 2, column 1 of the text: a is given twice in one mapping; keep one"),
        ('a: {b: 1, "b": 2}', "line 1, column 11 of the text: b is given twice"),
        ("a: !secret x", "line 1, column 4 of the text: the tag !secret is not supported"),
        ("--- {}\n--- {}", "line 2, column 1 of the text: a second document begins"),
        ("--- {}\n---\n", "line 2, column 1 of the text: a second document begins"),
        ("5", "is a number, and not a mapping"),
        ("# words", 'is empty; indent the lines below "text: \\|"'),
        ("a: \ud800", "contains a control character"),
        ('a: "\\ud800"', "line 1, column 7 of the text: not valid YAML"),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="^" + says.replace("*", r"\*")):
        parse(text)


def test_the_same_key_in_two_mappings_is_none_twice() -> None:
    assert parse("a: {n: 1}\nb: [{n: 1}, {n: 2}]") == {"a": {"n": 1}, "b": [{"n": 1}, {"n": 2}]}
