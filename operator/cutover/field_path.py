"""Addresses of single fields inside a Kubernetes object, and JSON patches that write them only as long as nobody else did.

Pure. A list item is addressed by what identifies it (`{"name": "app"}`), never by its position alone, because people insert
and reorder items. The position is looked up at the moment of writing and tested in the same patch. Used by `targets/`
and by the kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final, TypeAlias

Json: TypeAlias = Any
"""A JSON document: dict, list, str, int, float, bool or None."""

Segment: TypeAlias = str | int | Mapping[str, Json]
"""One part of a path: a key, a position, or the members that single out one item of a list."""

Path: TypeAlias = tuple[Segment, ...]

ABOVE: Final = "^"
"""In the last part of a path: the members of the item before which this one is inserted when it is not there yet."""

Operation: TypeAlias = dict[str, Json]
"""One operation of a JSON patch (RFC 6902)."""


class Missing(Enum):
    """The value of a field that is absent. JSON's null is a value; this is not one."""

    ABSENT = "absent"


ABSENT: Final = Missing.ABSENT


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads in one object.

    Attributes:
        pointer: the JSON pointer (RFC 6901).
        value: the value there, or ABSENT when only its parent exists.
        tests: operations that fail when a list item on the path is no longer the one that was named. A JSON patch cannot test
            that a member is absent; where a name needs that, the version of the whole object is tested.
        parent: the object or list that contains the field, at `parent_pointer`. ABSENT for a map that is not there, because
            the server stores no empty ones: it is created together with its first key.
    """

    pointer: str
    value: Json
    tests: tuple[Operation, ...]
    parent: Json
    parent_pointer: str


@dataclass(frozen=True, slots=True)
class Change:
    """A field to write.

    Attributes:
        path: the field.
        to: the value wanted; ABSENT removes the field.
        was: what it was before the step, as the snapshot says.
        ours: what the last stage of the step sets.
        previous: what earlier stages set, in their order.
        by_key: where it is a map, each key is a field of its own; other writers may have keys beside ours.
    """

    path: Path
    to: Json
    was: Json
    ours: Json
    previous: tuple[Json, ...] = ()
    by_key: bool = False

    @property
    def expects(self) -> tuple[Json, ...]:
        """The values it may have before the write, in the order in which it gets them. Any other was set by another writer."""
        return (self.was, *self.previous, self.ours)

    def forward(self) -> Change:
        """The same field, brought to what the last stage sets."""
        return replace(self, to=self.ours)

    def keys(self) -> dict[str, Change]:
        """A change of each key of the map; none where it is not written by key, or is not always a map."""
        values = (self.to, *self.expects)
        if not self.by_key or not all(value is ABSENT or isinstance(value, Mapping) for value in values):
            return {}
        maps = [{} if value is ABSENT else value for value in values]
        of = {
            key: [each.get(key, ABSENT) for each in maps] for key in dict.fromkeys(key for each in maps for key in each)
        }
        return {
            key: replace(self, path=(*self.path, key), to=to, was=was, ours=ours, previous=tuple(previous))
            for key, (to, was, *previous, ours) in of.items()
        }

    def knows(self, value: Json) -> bool:
        """Whether nothing in a value of the field was set by another writer."""
        if value in self.expects:
            return True
        keys = self.keys()
        if not keys or not isinstance(value, Mapping):
            return False
        return all(key in keys and keys[key].knows(one) for key, one in value.items())

    def stands_in(self, value: Json) -> bool:
        """Whether the field has the value it is to have, no matter what others have beside it."""
        if value == self.to:
            return True
        keys = self.keys()
        if not keys or not isinstance(value, Mapping):
            return False
        return all(change.stands_in(value.get(key, ABSENT)) for key, change in keys.items())


def escape(key: str) -> str:
    """One key as a part of a JSON pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def _is_part(members: Mapping[str, Json], item: Json) -> bool:
    """Whether the item has all these members; nested objects are compared the same way."""
    if not isinstance(item, Mapping):
        return False
    return all(
        _is_part(value, item.get(key)) if isinstance(value, Mapping) else item.get(key) == value
        for key, value in members.items()
    )


def _tests(pointer: str, members: Mapping[str, Json]) -> list[Operation]:
    found: list[Operation] = []
    for key, value in members.items():
        below = f"{pointer}/{escape(key)}"
        if isinstance(value, Mapping):
            found.extend(_tests(below, value))
        elif value is not None:
            found.append({"op": "test", "path": below, "value": value})
    return found


def _absences(document: Json, members: Mapping[str, Json]) -> list[Operation]:
    """The test that an item lacks the members it must not have, as a route without a name."""
    return [same_version(document)] if _needs_absence(members) else []


def _needs_absence(members: Mapping[str, Json]) -> bool:
    return any(_needs_absence(value) if isinstance(value, Mapping) else value is None for value in members.values())


def same_version(document: Json) -> Operation:
    """A test of the whole object: nobody has written it since it was read."""
    version = (document.get("metadata") or {}).get("resourceVersion")
    return {"op": "test", "path": "/metadata/resourceVersion", "value": version}


def find(document: Json, path: Path) -> Found | None:
    """Follow a path through an object.

    Returns:
        Where it leads; None when a part before the last segment is missing, or when more than one item of a list matches.
    """
    found: Found | None = Found("", document, (), document, "")
    for depth, segment in enumerate(path):
        if found is None:
            return None
        rest = path[depth + 1 :]
        if isinstance(segment, Mapping):
            found = _item(document, found, segment, last=not rest)
        elif isinstance(segment, int):
            found = _position(found, segment)
        else:
            found = _key(found, segment)
            if found is not None and found.value is ABSENT and rest:
                return _in_absent_map(document, found, rest)
    return found


def _key(above: Found, key: str) -> Found | None:
    if not isinstance(above.value, Mapping):
        return None
    pointer = f"{above.pointer}/{escape(key)}"
    return Found(pointer, above.value.get(key, ABSENT), above.tests, above.value, above.pointer)


def _position(above: Found, place: int) -> Found | None:
    items = above.value
    if not isinstance(items, Sequence) or isinstance(items, str) or not 0 <= place < len(items):
        return None
    return Found(f"{above.pointer}/{place}", items[place], above.tests, items, above.pointer)


def _item(document: Json, above: Found, segment: Mapping[str, Json], *, last: bool) -> Found | None:
    members = {key: value for key, value in segment.items() if key != ABOVE}
    places = _places(above.value, members)
    if last and not places and ABOVE in segment:
        return _not_in_list(above, segment[ABOVE])
    if len(places) != 1:
        return None
    pointer = f"{above.pointer}/{places[0]}"
    tests = (*above.tests, *_tests(pointer, members))
    tests += tuple(test for test in _absences(document, members) if test not in tests)
    return Found(pointer, above.value[places[0]], tests, above.value, above.pointer)


def _places(items: Json, members: Mapping[str, Json]) -> list[int]:
    """The positions in a list of the items with these members; empty when it is not a list."""
    if not isinstance(items, Sequence) or isinstance(items, str):
        return []
    return [place for place, item in enumerate(items) if _is_part(members, item)]


def _not_in_list(above: Found, next_item: Mapping[str, Json]) -> Found | None:
    """An absent item: where it would be inserted. Its parent, the whole list, is what a write tests."""
    places = _places(above.value, next_item)
    if len(places) != 1:
        return None
    return Found(f"{above.pointer}/{places[0]}", ABSENT, above.tests, above.value, above.pointer)


def _in_absent_map(document: Json, absent: Found, rest: Path) -> Found | None:
    """A key of an absent map. A JSON patch cannot test absence, so the version of the whole object is tested."""
    same = same_version(document)
    if len(rest) != 1 or not isinstance(rest[0], str) or same["value"] is None:
        return None
    return Found(f"{absent.pointer}/{escape(rest[0])}", ABSENT, (*absent.tests, same), ABSENT, absent.pointer)


def in_order(operations: Iterable[Operation]) -> list[Operation]:
    """All tests first, because each is about the object before any of the writes; then values, then items of lists.

    Of the items the last comes first: inserting or removing one moves all items behind it.
    """

    def order(operation: Operation) -> tuple[int, int]:
        place = operation["path"].rpartition("/")[2]
        in_list = place.isdecimal()
        return (0, 0) if operation["op"] == "test" else (1 + in_list, -int(place) if in_list else 0)

    return sorted(operations, key=order)


def stand(document: Json, changes: Iterable[Change]) -> bool:
    """Whether each field has the value it is to have."""
    return all(
        (found := find(document, change.path)) is not None and change.stands_in(found.value) for change in changes
    )


def write(found: Found, to: Json) -> list[Operation]:
    """Operations that write one field only if it still has the value found.

    A JSON patch has no test for "absent": where the field is absent, its whole parent is tested instead.
    """
    operations = list(found.tests)
    if found.parent is ABSENT:
        operations.append({"op": "add", "path": found.parent_pointer, "value": {}})
    elif found.value is ABSENT:
        operations.append({"op": "test", "path": found.parent_pointer, "value": found.parent})
    else:
        operations.append({"op": "test", "path": found.pointer, "value": found.value})
    if to is not ABSENT:  # "add" of an item that is there would insert a second one before it
        known_item = isinstance(found.parent, list) and found.value is not ABSENT
        operations.append({"op": "replace" if known_item else "add", "path": found.pointer, "value": to})
    elif found.value is not ABSENT:
        operations.append({"op": "remove", "path": found.pointer})
    return operations


def differences(before: Json, after: Json, at: Path = ()) -> Iterator[tuple[Path, Json, Json]]:
    """The smallest fields in which two states of one object differ, each with its value before and after (or ABSENT).

    Items of a list are compared one by one where their names are unique and stay as they are; otherwise the whole list is
    one field.
    """
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        yield from _map_differences(before, after, at)
        return
    names = names_of(before)
    if names and names == names_of(after):
        for name, old, new in zip(names, before, after, strict=True):
            yield from differences(old, new, (*at, {"name": name}))
    else:
        yield at, before, after


def _map_differences(before: Json, after: Json, at: Path) -> Iterator[tuple[Path, Json, Json]]:
    for key in sorted(before.keys() | after.keys()):
        if key in before and key in after:
            yield from differences(before[key], after[key], (*at, key))
        else:
            yield (*at, key), before.get(key, ABSENT), after.get(key, ABSENT)


def overlap(one: Path, other: Path) -> bool:
    """Whether one field is the other, or a part of it."""
    shared = min(len(one), len(other))
    return one[:shared] == other[:shared]


def names_of(items: Json) -> list[str]:
    """The names of the items of a list; empty when one has no name, shares it, or has a name that is not a string."""
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        return []
    if not all(isinstance(name := item.get("name"), str) and name for item in items):
        return []
    names = [item["name"] for item in items]
    return names if len(set(names)) == len(names) else []


def readable(path: Path) -> str:
    """The path as people write it: ``spec.template.spec.containers[name=app].image``."""
    text = ""
    for segment in path:
        if isinstance(segment, Mapping):
            text += f"[{_members(segment)}]"
        elif isinstance(segment, int):
            text += f"[{segment}]"
        else:
            text += f".{segment}" if text else segment
    return text


def _members(members: Mapping[str, Json]) -> str:
    return ",".join(
        f"{key}.{_members(value)}" if isinstance(value, Mapping) else f"{key}={value}"
        for key, value in members.items()
        if value is not None and key != ABOVE
    )
