"""Kubernetes quantities, and what one pod counts for after LimitRanges have set defaults. Pure.

Used by `quotas.py` and `limit_ranges.py`. As the API server's own admission counts them (kube-apiserver 1.36:
plugin/pkg/admission/limitranger, pkg/quota/v1/evaluator/core).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final, TypeAlias

from cutover.field_path import Json

Amounts: TypeAlias = dict[str, Decimal]

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]?|[KMGTPE]i))")
_UNITS: Final = {
    unit: Decimal(1000) ** power for power, unit in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
}
_BINARY: Final = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
COMPUTE: Final = ("cpu", "memory")
_BYTES: Final = ("memory", "storage", "hugepages")
_MOST: Final = Decimal(2**63 - 1)
"""The server reads a larger quantity as this one; it also keeps all sums exact in Decimal."""


def quantity(text: str | float) -> Decimal:
    """A Kubernetes quantity, such as ``500m``, ``1Gi`` or ``1e3``. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is not a quantity")
    number, exponent, unit = match.groups()
    return min(Decimal(number + (exponent or "")) * {**_UNITS, **_BINARY}[unit or ""], _MOST)


def shown(name: str, amount: Decimal) -> str:
    """A quantity of a named resource, as text: bytes in their largest whole unit, otherwise the number."""
    for unit, size in reversed(_BINARY.items()):
        if amount and amount % size == 0 and any(word in name for word in _BYTES):
            return f"{amount / size:f}{unit}"
    return f"{amount:.0f}" if amount == int(amount) else f"{amount * 1000:.0f}m"


def or_none(name: str, amount: Decimal | None) -> str:
    """As `shown`, where there may be no quantity."""
    return "none" if amount is None else shown(name, amount)


def amounts(pod: Json, ranges: Sequence[Json]) -> Amounts:
    """What one pod counts for: ``pods``, ``requests.cpu`` and the like."""
    counted = {"pods": Decimal(1)}
    for part in ("requests", "limits"):
        running, largest, beside = Amounts(), Amounts(), Amounts()
        for container in pod.get("initContainers") or ():
            own = resolved(container, ranges)[part]
            if container.get("restartPolicy") == "Always":
                beside = _sum(beside, own)
                running = _sum(running, own)
                own = Amounts()
            largest = _largest(largest, _sum(beside, own))
        for container in pod.get("containers") or ():
            running = _sum(running, resolved(container, ranges)[part])
        total = _largest(running, largest)
        total |= {name: quantity(text) for name, text in ((pod.get("resources") or {}).get(part) or {}).items()}
        counted |= {f"{part}.{name}": amount for name, amount in total.items()}
    return counted


def resolved(container: Json, ranges: Sequence[Json]) -> dict[str, Amounts]:
    """What a container requests after the server has set defaults."""
    given = container.get("resources") or {}
    limits = {name: quantity(text) for name, text in (given.get("limits") or {}).items()}
    requests = limits | {name: quantity(text) for name, text in (given.get("requests") or {}).items()}
    for item in items_of(ranges, "Container"):
        limits = {name: quantity(text) for name, text in (item.get("default") or {}).items()} | limits
        requests = {name: quantity(text) for name, text in (item.get("defaultRequest") or {}).items()} | requests
    return {"requests": requests, "limits": limits}


def items_of(ranges: Sequence[Json], kind: str) -> Iterator[Json]:
    """The limits of LimitRanges for one type, such as `Container`."""
    for limit_range in ranges:
        yield from (item for item in limit_range["spec"].get("limits") or () if item["type"] == kind)


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, Decimal()) + other.get(name, Decimal()) for name in one.keys() | other.keys()}


def _largest(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, Decimal()), other.get(name, Decimal())) for name in one.keys() | other.keys()}
