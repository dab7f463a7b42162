"""Messages about what another writer changed: both values, and the command that settles it. Pure; used by `fields.py` and `claims.py`."""

from __future__ import annotations

import json
import shlex
from typing import Final

from cutover.field_path import ABSENT, Change, Found, Json, Operation, in_order, readable
from cutover.ports import FENCE_LABEL, Ref

_LONGEST: Final = 160
"""Characters of one value in a message and in a command; longer ones are left to `kubectl edit`."""


def foreign_value(ref: Ref, change: Change, found: Found) -> str:
    """A field has a value that is neither the snapshot's nor one of ours."""
    was, set_by_us = change.was, (*change.previous, change.ours)
    set_to = " or ".join(dict.fromkeys(shown(value) for value in set_by_us if value != was)) or shown(was)
    return (
        f"{readable(change.path)} of {ref} is {shown(found.value)}, was {shown(was)} before, and this plan set {set_to}; "
        f"another writer changed it. To restore it: {restore_command(ref, (found, was))}"
    )


def field_gone(ref: Ref, change: Change) -> str:
    """The list item or map with the field is gone."""
    return (
        f"{ref} no longer has {readable(change.path)}; it was {shown(change.was)} before. To restore it: {_edit(ref)}"
    )


def fenced_by_hand(ref: Ref, fence: int, ours: int) -> str:
    """The fence is higher than any that this plan has written."""
    return (
        f"the label {FENCE_LABEL} of {ref} is {fence}, and this plan set at most {ours}; another writer changed it. To restore "
        f"it: kubectl label {ref.resource.kind.lower()} {ref.name} -n {ref.namespace} --overwrite {FENCE_LABEL}={ours}"
    )


def restore_command(ref: Ref, *fields: tuple[Found, Json]) -> str:
    """The command that restores fields of one object.

    Positions in lists are those of now; the patch tests the names of the items, so it fails where one has moved.
    """
    patch = list[Operation]()
    for found, was in fields:
        names = (test for test in found.tests if not test["path"].startswith("/metadata/"))
        patch += [test for test in names if test not in patch]
        if was is ABSENT:
            patch.append({"op": "remove", "path": found.pointer})
            continue
        patch.append({"op": "add", "path": found.pointer, "value": was})
        if found.parent is ABSENT or len(json.dumps(was)) > _LONGEST:
            return _edit(ref)
    text = shlex.quote(json.dumps(in_order(patch)))
    return f"kubectl patch {ref.resource.kind.lower()} {ref.name} -n {ref.namespace} --type=json -p {text}"


def _edit(ref: Ref) -> str:
    return f"kubectl edit {ref.resource.kind.lower()} {ref.name} -n {ref.namespace}"


def shown(value: Json) -> str:
    """One value as messages show it."""
    text = "absent" if value is ABSENT else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
