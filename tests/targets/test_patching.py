"""Addresses of fields: found by name, tested where they are written."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cutover.field_path import ABOVE, ABSENT, Path, find, in_order, readable, write
from cutover.targets.patching import apply

BODY: dict[str, Any] = {
    "metadata": {"resourceVersion": "7"},
    "spec": {
        "a/b~c": 1,
        "http": [
            {
                "name": "one",
                "route": [{"destination": {"host": "a"}, "weight": 100}, {"destination": {"host": "b", "subset": "x"}}],
            },
            {"route": [{"destination": {"host": "a"}}]},
        ],
    },
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
        ("spec", "nothing", "far", "below"),
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


def test_a_name_that_asks_for_absence_is_valid_only_for_the_version_that_was_read() -> None:
    """A patch cannot test that a member is absent, so the position would be all that tells such an item."""
    same = {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    for path in (WEIGHT, ("spec", "http", {"name": None}, "route", {"destination": {"subset": None}}, "weight")):
        found = find(BODY, path)
        assert found is not None
        assert found.tests.count(same) == 1
    for path in (ABSENT_WEIGHT, ("spec", "a/b~c"), ("spec", "http", {"name": "one"}, "timeout")):
        found = find(BODY, path)
        assert found is not None
        assert same not in found.tests, "others may change what has nothing to do with it"


def item(name: str, above: Any = "one") -> Path:
    return ("spec", "http", {"name": name, ABOVE: {"name": above}})


@pytest.mark.parametrize(("above", "names"), [("one", ["new", "one", None]), (None, ["one", "new", None])])
def test_an_item_is_put_right_above_another_and_taken_out_again(above: Any, names: list[Any]) -> None:
    body = copy.deepcopy(BODY)
    for to, wanted in (({"name": "new"}, names), ({"name": "new", "a": 1}, names), (ABSENT, ["one", None])):
        found = find(body, item("new", above))
        assert found is not None
        for operation in write(found, to):
            apply(body, operation)
        routes: Any = body["spec"]["http"]
        assert [route.get("name") for route in routes] == wanted
    assert body == BODY
    assert readable(item("new", above)) == "spec.http[name=new]"


def test_there_is_no_place_for_an_item_above_one_that_is_not_there() -> None:
    assert find(BODY, item("new", "gone")) is None
    assert find(BODY, (*item("new"), "timeout")) is None
    found = find(BODY, item("one", "gone"))
    assert found is not None, "one that is there needs no place"


def test_items_that_come_and_go_move_nothing_that_the_same_patch_writes() -> None:
    body = {"spec": {"http": [{"name": str(number), "weight": 0} for number in range(12)]}}
    changes: list[tuple[Path, Any]] = [
        *((("spec", "http", {"name": name}, "weight"), int(name)) for name in ("2", "10", "11")),
        (item("a", "2"), {"name": "a"}),
        (item("b", "10"), {"name": "b"}),
        (("spec", "http", {"name": "9"}), ABSENT),
    ]
    operations = [one for path, to in changes if (found := find(body, path)) for one in write(found, to)]
    for operation in in_order(operations):
        apply(body, operation)
    names = [route["name"] for route in body["spec"]["http"]]
    assert names == ["0", "1", "a", "2", "3", "4", "5", "6", "7", "8", "b", "10", "11"]
    assert [route["weight"] for route in body["spec"]["http"] if route.get("weight")] == [2, 10, 11]
