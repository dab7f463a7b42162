"""What the parents of an HTTPRoute (gateways, Services of a mesh) report in its status. Pure.

Each controller writes conditions for each parent in its own time, with the generation that it observed; some write
none. So a missing condition, or one for an older generation, is not an answer.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator
from dataclasses import dataclass
from typing import Final

from cutover.field_path import Json

_ACCEPTED: Final = "Accepted"
_BAD: Final = {(_ACCEPTED, "False"), ("ResolvedRefs", "False"), ("PartiallyInvalid", "True")}
"""A controller that reports PartiallyInvalid serves a part of it, or continues with what it had before."""
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class Refusal:
    """One condition against it.

    Attributes:
        who: the parent and its controller, as messages show them.
        condition: its type.
        message: the condition as a sentence.
        current: it is for the current generation, not for one that may be fixed by now.
    """

    who: str
    condition: str
    message: str
    current: bool

    @property
    def what(self) -> str:
        """What identifies it, without the reason, which may change."""
        return _what(self.who, self.condition)


def refusals(body: Json) -> Iterator[Refusal]:
    """Everything that is reported against it, for any generation."""
    name, generation = body["metadata"]["name"], body["metadata"].get("generation", 0)
    for parent in _heard(body):
        for condition in parent.get("conditions") or ():
            if (condition["type"], condition["status"]) in _BAD:
                who, why = _who(parent), f"{condition.get('reason', '')}: {condition.get('message', '')}"
                message = f"{who} says {condition['type']}={condition['status']} of HTTPRoute {name}: {why[:_LONGEST]}"
                current = condition.get("observedGeneration", generation) >= generation
                yield Refusal(who, condition["type"], message, current)


def unserved(body: Json) -> Iterator[str]:
    """What is reported against it before anything is written."""
    if not _heard(body):
        name = body["metadata"]["name"]
        yield f"no gateway serves HTTPRoute {name} (status.parents is empty), so its weights have no effect; fix its parentRefs"
    yield from (one.message for one in refusals(body) if one.current)


def refused(body: Json, before: Container[str]) -> str:
    """What is reported against it now and was not before; empty when nothing is.

    A parent that had not accepted it before is not considered: it has never carried this traffic.
    """
    fresh = (
        one.message
        for one in refusals(body)
        if one.current and one.what not in before and _what(one.who, _ACCEPTED) not in before
    )
    return next(fresh, "")


def behind(body: Json) -> bool:
    """Whether a parent that has accepted it before has yet to report on the current generation."""
    return any(
        condition["type"] == _ACCEPTED
        and condition.get("observedGeneration", math.inf) < body["metadata"]["generation"]
        for parent in _heard(body)
        for condition in parent.get("conditions") or ()
    )


def _heard(body: Json) -> list[Json]:
    return (body.get("status") or {}).get("parents") or []


def _what(who: str, condition: str) -> str:
    return f"{who}: {condition}"


def _who(parent: Json) -> str:
    """One object may be a parent once per listener, and each may have several controllers."""
    ref = parent.get("parentRef") or {}
    namespace = f"{ref['namespace']}/" if ref.get("namespace") else ""
    listener = "".join(
        f" {word} {ref[key]}" for word, key in (("listener", "sectionName"), ("port", "port")) if ref.get(key)
    )
    controller = f" ({parent['controllerName']})" if parent.get("controllerName") else ""
    return f"{ref.get('kind', 'Gateway')} {namespace}{ref.get('name', '')}{listener}{controller}"
