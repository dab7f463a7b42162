"""What a server has not kept of what it was asked to store, told by its dry run. Pure; used by the kinds that write whole patches or templates.

A server drops fields without a word: those whose feature gate is off, and those that it derives from others. So the wish is laid
over the answer once more, and what would still change was dropped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cutover.field_path import ABSENT, Json, Path, names_of, readable
from cutover.objects.quantities import quantity
from cutover.objects.spec_patch import shown

_DIRECTIVE: Final = "$patch"
_WAY_OUT: Final = "write the whole list, with - $patch: replace as its first item"
_KEYS: Final[Mapping[str, Mapping[str, Json]]] = {
    "ports": {"containerPort": None, "protocol": "TCP"},
    "topologySpreadConstraints": {"topologyKey": None, "whenUnsatisfiable": None},
}
"""Lists of a pod whose items differ by several members, each with its default; a strategic merge patch looks at the first one alone."""


class Lost(Enum):
    """What became of a field that is not as asked for."""

    DROPPED = "dropped"  # it is not there
    IGNORED = "ignored"  # it has the value that it had
    CHANGED = "changed"  # it has a third value, of admission
    STAYS = "stays"  # it should go, and may be a default


@dataclass(frozen=True, slots=True)
class Unkept:
    """A field that is not what was asked for.

    Attributes:
        path: the field, from where the wish begins.
        wish: what was asked for; None to remove it.
        found: what it would be, or ABSENT.
        kind: what became of it.
    """

    path: Path
    wish: Json
    found: Json
    kind: Lost

    @property
    def message(self) -> str:
        """The field, the value and what would be there instead."""
        field, wish = readable(self.path), shown(self.wish)
        if self.kind is Lost.STAYS:
            return f"the patch removes {field}, and the server leaves it as it is, {shown(self.found)}"
        if self.kind is Lost.CHANGED:
            return f"the server would make {field} {shown(self.found)}, not {wish}"
        stays = "it would not be there" if self.kind is Lost.DROPPED else f"it would stay {shown(self.found)}"
        why = "a feature gate may be off, or another field decides it"
        return f"the server drops {field} ({wish}) without a word, and {stays}: {why}; leave it out"


def unkept(wish: Json, before: Json, after: Json, at: Path = ()) -> Iterator[Unkept]:
    """The fields of a wish that the answer of a dry run lacks or has otherwise.

    Args:
        wish: a strategic merge patch, or a whole part of an object.
        before: the same part as it was; ABSENT when it is created.
        after: the same part by the dry run.
        at: where it is.
    """
    if wish in (None, []) or (isinstance(wish, Mapping) and wish.get(_DIRECTIVE) == "delete"):
        if after not in (ABSENT, None, []) and after == before:
            yield Unkept(at, None, after, Lost.STAYS)
    elif isinstance(wish, Mapping):
        for key, value in wish.items():
            if not key.startswith("$"):
                yield from unkept(value, _member(before, key), _member(after, key), (*at, key))
    elif isinstance(wish, list):
        yield from _unkept_items(wish, before, after, at)
    elif not _same(wish, after):
        yield Unkept(at, wish, after, _became(before, after, at))


def _unkept_items(wish: list[Json], before: Json, after: Json, at: Path) -> Iterator[Unkept]:
    asked = [item for item in wish if not (isinstance(item, Mapping) and _DIRECTIVE in item)]
    items = after if isinstance(after, list) else []
    if names_of(asked) and names_of(items):
        for item in asked:
            name = item["name"]
            yield from unkept(item, _named(before, name), _named(items, name), (*at, {"name": name}))
        return
    for item in asked:
        if not any(next(unkept(item, ABSENT, one), None) is None for one in items):
            yield Unkept(at, item, after, _became(before, after, at))


def _became(before: Json, after: Json, at: Path) -> Lost:
    if after is ABSENT:
        return Lost.DROPPED
    # An image may be the one that is there because admission makes it of the one asked for, as for a mirror.
    return Lost.IGNORED if after == before and at[-1:] != ("image",) else Lost.CHANGED


def _member(of: Json, key: str) -> Json:
    return of.get(key, ABSENT) if isinstance(of, Mapping) else ABSENT


def _named(items: Json, name: str) -> Json:
    found = [item for item in items if item.get("name") == name] if names_of(items) else []
    return found[0] if found else ABSENT


def _same(wish: Json, value: Json) -> bool:
    """Whether a value is the one wished for: the server omits what is zero anyway, and writes a quantity its own way."""
    if value is ABSENT:
        return wish in (False, 0, "")
    if wish == value:
        return True
    try:
        return quantity(wish) == quantity(value)
    except (ValueError, ArithmeticError):
        return False


# --- items of lists that a strategic merge patch takes for others ---------------------------------------------------------


def mistaken(patch: Json, before: Json, after: Json, at: Path = ()) -> Iterator[str]:
    """Items that the server takes for others than the patch means, each with the value that would be lost, and the way out.

    It finds an item by one member alone, and of several the first. Whoever writes the whole list says so by a directive.
    """
    if isinstance(patch, Mapping):
        for key, value in patch.items():
            old, new, path = _member(before, key), _member(after, key), (*at, key)
            if isinstance(value, list) and not any(item.get(_DIRECTIVE) == "replace" for item in _maps(value)):
                yield from _lost(key, value, old, new, readable(path))
            yield from mistaken(value, old, new, path)
    elif names_of(patch):
        for item in patch:
            name = item["name"]
            yield from mistaken(item, _named(before, name), _named(after, name), (*at, {"name": name}))


def _lost(key: str, patch: list[Json], before: Json, after: Json, where: str) -> Iterator[str]:
    if key == "env":
        yield from _doubled(patch, after, where)
    if key in _KEYS:
        yield from _replaced(key, patch, before, after, where)


def _doubled(patch: list[Json], after: Json, where: str) -> Iterator[str]:
    names = [item.get("name") for item in _maps(after)]
    for name in dict.fromkeys(item.get("name") for item in patch if _DIRECTIVE not in item):
        if names.count(name) > 1:
            yield f"{where} has {names.count(name)} items {name}, of which the patch changes the first and pods get the last; {_WAY_OUT}"


def _replaced(key: str, patch: list[Json], before: Json, after: Json, where: str) -> Iterator[str]:
    removed, kept = [item for item in patch if _DIRECTIVE in item], [_identity(key, item) for item in _maps(after)]
    for item in _maps(before):
        if _identity(key, item) not in kept and not any(_is_about(key, one, item) for one in removed):
            by = next(iter(_KEYS[key]))
            yield f"the server merges {where} by {by} alone, so the patch would replace {shown(item)}; {_WAY_OUT}"


def _maps(items: Json) -> list[Json]:
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _identity(key: str, item: Json) -> list[Json]:
    return [item.get("name"), *(item.get(member, default) for member, default in _KEYS[key].items())]


def _is_about(key: str, removal: Json, item: Json) -> bool:
    return all(removal[member] == item.get(member) for member in ("name", *_KEYS[key]) if member in removal)
