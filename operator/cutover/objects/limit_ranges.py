"""What the LimitRanges of a namespace refuse of a pod and of its containers. Pure; used by `quotas.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cutover.field_path import Json
from cutover.objects.quantities import Amounts, amounts, or_none, quantity, resolved


def out_of_range(pod: Json, ranges: Sequence[Json]) -> Iterator[str]:
    """What LimitRanges refuse of a pod and of its containers."""
    containers = (*(pod.get("initContainers") or ()), *(pod.get("containers") or ()))
    whole = amounts(pod, ranges)
    asked = [(f"container {container['name']}", resolved(container, ranges)) for container in containers]
    of_pod = {part: _part(whole, part) for part in ("requests", "limits")}
    by_type = {"Container": asked, "Pod": [("its pod", of_pod)]}
    for limit_range in ranges:
        where = f"LimitRange {limit_range['metadata']['name']}"
        for item in limit_range["spec"].get("limits") or ():
            for who, amounts_of in by_type.get(item["type"], ()):
                yield from _out_of(where, who, amounts_of, item)


def _part(whole: Amounts, part: str) -> Amounts:
    """The amounts of one part, such as ``requests.cpu``, by their plain name."""
    lead = f"{part}."
    return {name.removeprefix(lead): amount for name, amount in whole.items() if name.startswith(lead)}


def _out_of(where: str, who: str, asked: Mapping[str, Amounts], item: Json) -> Iterator[str]:
    yield from _below(where, who, asked, item)
    requests, limits = asked["requests"], asked["limits"]
    for name, text in (item.get("max") or {}).items():
        most, has = quantity(text), limits.get(name)
        if has is None or has > most:
            yield f"{where}: {who} has {name} limit {or_none(name, has)}, which must be at most {text}; change one of them"
    for name, text in (item.get("maxLimitRequestRatio") or {}).items():
        request, limit = requests.get(name), limits.get(name)
        if not request or limit is None or limit / request > quantity(text):
            yield (
                f"{where}: {who} has {name} limit {or_none(name, limit)} and request {or_none(name, request)}, "
                f"and the limit must be at most {text} times the request; change one of them"
            )


def _below(where: str, who: str, asked: Mapping[str, Amounts], item: Json) -> Iterator[str]:
    requests, limits = asked["requests"], asked["limits"]
    for name, text in (item.get("min") or {}).items():
        least = quantity(text)
        has = requests.get(name)
        if has is None or has < least or limits.get(name, least) < least:
            has = has if has is None or has < least else limits[name]
            yield f"{where}: {who} has {name} {or_none(name, has)}, which must be at least {text}; change one of them"
