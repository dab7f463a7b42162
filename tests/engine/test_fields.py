"""Addresses of fields: found by name, tested where they are written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.fields import ABSENT, Path, find, readable, write
from cutover.patching import apply

BODY = {
    "spec": {
        "a/b~c": 1,
        "http": [
            {
                "name": "one",
                "route": [{"destination": {"host": "a"}, "weight": 100}, {"destination": {"host": "b", "subset": "x"}}],
            },
            {"route": [{"destination": {"host": "a"}}]},
        ],
    }
}
WEIGHT: Path = ("spec", "http", {"name": "one"}, "route", {"destination": {"host": "a", "subset": None}}, "weight")
ABSENT_WEIGHT: Path = (
    "spec",
    "http",
    {"name": "one"},
    "route",
    {"destination": {"host": "b", "subset": "x"}},
    "weight",
)


@pytest.mark.parametrize(
    ("path", "pointer", "value"),
    [
        (("spec", "a/b~c"), "/spec/a~1b~0c", 1),
        (WEIGHT, "/spec/http/0/route/0/weight", 100),
        (ABSENT_WEIGHT, "/spec/http/0/route/1/weight", ABSENT),
        (
            ("spec", "http", {"name": None}, "route", 0, "destination", "host"),
            "/spec/http/1/route/0/destination/host",
            "a",
        ),
    ],
)
def test_find(path: Path, pointer: str, value: Any) -> None:
    found = find(BODY, path)
    assert found is not None
    assert (found.pointer, found.value) == (pointer, value)


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "nothing", "below"),
        ("spec", "http", {"name": "two"}, "route"),
        ("spec", "http", {}, "route"),
        ("spec", "http", 7, "route"),
        ("spec", {"name": "x"}),
        ("spec", "http", "route"),
    ],
)
def test_leads_nowhere(path: Path) -> None:
    assert find(BODY, path) is None


@pytest.mark.parametrize(("path", "to"), [(WEIGHT, 50), (WEIGHT, ABSENT), (ABSENT_WEIGHT, 0), (ABSENT_WEIGHT, ABSENT)])
def test_what_is_written_is_found(path: Path, to: Any) -> None:

    body = copy.deepcopy(BODY)
    found = find(body, path)
    assert found is not None
    for operation in write(found, to):
        apply(body, operation)
    again = find(body, path)
    assert again is not None
    assert again.value == to


def test_readable() -> None:
    assert readable(WEIGHT) == "spec.http[name=one].route[destination.host=a].weight"


def test_a_key_of_a_map_that_is_not_there_is_written_with_it() -> None:
    """The version of the object stands for the absence of the map, which no patch can test."""
    body = {"metadata": {"name": "x", "resourceVersion": "7"}}
    found = find(body, ("data", "KEY"))
    assert found is not None
    assert found.value is ABSENT
    operations = write(found, "value")
    assert operations == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/data", "value": {}},
        {"op": "add", "path": "/data/KEY", "value": "value"},
    ]
    for operation in operations:
        apply(body, operation)
    assert body["data"] == {"KEY": "value"}
    assert find(body, ("spec", "data", "KEY")) is None, "only one level is made"
