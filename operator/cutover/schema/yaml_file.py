"""Reads YAML of other people: plain data only, and no larger or deeper than what was written. Used by the command line and the settings.

PyYAML's safe loader makes no objects, but it does follow aliases: twenty short lines can stand for a million items, and an alias inside
what it names for endlessly many. Whoever copies, compares or prints such a document pays for all of them, so it is refused while it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from cutover.field_path import Json

_DEEPEST: Final = 100
"""Levels of one document. Objects of Kubernetes have about twenty; Python's own limit would end the reading without a sentence."""
_MERGE: Final = "tag:yaml.org,2002:merge"
_MOST_ITEMS: Final = 100_000
"""Items that aliases may add to one document."""


class GivenTwiceError(yaml.MarkedYAMLError):
    """A mapping has a key twice, of which YAML readers silently keep the last one.

    Attributes:
        field: which one, with its path.
        line: where it stands again, from 1.
    """

    def __init__(self, field: str, mark: yaml.Mark) -> None:
        super().__init__(None, None, f"{field} is given twice; keep one", mark)
        self.field, self.line = field, mark.line + 1


class _Loader(yaml.SafeLoader):
    """A safe loader that counts what aliases stand for, and takes no key twice."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._level = self._added = self._items = 0
        self._sizes: dict[int, int] = {}

    def compose_document(self) -> Any:
        self._added = self._items = 0
        self._sizes.clear()
        root = super().compose_document()
        for where, mark in _given_twice(root, "", set()) if root else ():
            raise GivenTwiceError(where, mark)
        return root

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        alias, before = self.check_event(yaml.AliasEvent), self._items
        if self._level >= _DEEPEST:
            raise ComposerError(None, None, f"it is nested more than {_DEEPEST} levels deep", mark)
        self._level += 1
        node = super().compose_node(parent, index)
        self._level -= 1
        self._items += 1
        if not alias:
            self._sizes[id(node)] = self._items - before
            return node
        size = self._sizes.get(id(node))  # none yet: the node is still being read
        if size is None:
            raise ComposerError(None, None, "an alias stands inside what it names; write the values out", mark)
        self._items += size
        self._added += size
        if self._added > _MOST_ITEMS:
            raise ComposerError(None, None, f"its aliases stand for more than {_MOST_ITEMS} items", mark)
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 -- the library's signature
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # an impossible date, such as 2026-02-30
            raise ConstructorError(None, None, str(error), node.start_mark) from error


def _given_twice(node: yaml.Node, at: str, seen: set[int]) -> Iterator[tuple[str, yaml.Mark]]:
    """Each field that stands twice in one mapping, and where it does so again. What aliases share is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield from _twice_in(node, at)
    for where, child in _children(node, at):
        yield from _given_twice(child, where, seen)


def _twice_in(mapping: yaml.MappingNode, at: str) -> Iterator[tuple[str, yaml.Mark]]:
    keys = set()
    for key, _ in mapping.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if key.value in keys:
                yield _below(at, key), key.start_mark
            keys.add(key.value)


def _children(node: yaml.Node, at: str) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.SequenceNode):
        yield from ((f"{at}[{_item_name(item) or position}]", item) for position, item in enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        yield from ((_below(at, key), value) for key, value in node.value)


def _below(at: str, key: yaml.Node) -> str:
    return f"{at}.{key.value}" if at else str(key.value)


def _item_name(item: yaml.Node) -> str:
    """As the author knows it."""
    fields: Mapping[str, str] = {}
    if isinstance(item, yaml.MappingNode):
        fields = {key.value: value.value for key, value in item.value if isinstance(value, yaml.ScalarNode)}
    return fields.get("name", fields.get("container", ""))


def documents(text: str) -> Iterator[Json]:
    """The documents in a text, one after the other.

    Raises:
        yaml.YAMLError: it is not YAML, or it stands for too much; a MarkedYAMLError says where.
    """
    loader = _Loader(text)
    try:
        while loader.check_data():  # type: ignore[no-untyped-call]
            yield loader.get_data()
    finally:
        loader.dispose()


def document(text: str) -> Json:
    """The one document in a text; None when there is none. Raises as `documents`."""
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
