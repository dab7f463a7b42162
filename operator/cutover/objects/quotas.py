"""What ResourceQuotas and LimitRanges of a namespace say to pods that are to be made. Pure; used by `preflight/impact.py`.

As the API server's own admission counts them (kube-apiserver 1.36: plugin/pkg/admission/limitranger, pkg/quota/v1/evaluator/core).
What cannot be told from the template (scopes that depend on other things, overhead of a runtime class) is left to the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, TypeAlias

from cutover.field_path import Json

Amounts: TypeAlias = dict[str, Decimal]

_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]?|[KMGTPE]i))")
_UNITS: Final = {
    unit: Decimal(1000) ** power for power, unit in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
}
_BINARY: Final = {unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)}
_BYTES: Final = ("memory", "storage", "hugepages")
_COMPUTE: Final = ("cpu", "memory")
_MUST_SAY: Final = frozenset(f"{part}.{name}" for part in ("requests", "limits") for name in _COMPUTE)
"""What each container must say for itself once a quota counts it."""
_MOST: Final = Decimal(2**63 - 1)
"""The server takes a larger quantity for this one; it also keeps all sums within what a Decimal reckons exactly."""


def quantity(text: str | float) -> Decimal:
    """A Kubernetes quantity, such as ``500m``, ``1Gi`` or ``1e3``. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, unit = match.groups()
    return min(Decimal(number + (exponent or "")) * {**_UNITS, **_BINARY}[unit or ""], _MOST)


def shown(name: str, amount: Decimal) -> str:
    """A quantity of what is called so, for people: bytes in their largest whole unit, of all else the number."""
    for unit, size in reversed(_BINARY.items()):
        if amount and amount % size == 0 and any(word in name for word in _BYTES):
            return f"{amount / size:f}{unit}"
    return f"{amount:.0f}" if amount == int(amount) else f"{amount * 1000:.0f}m"


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods of one workload as one step changes them.

    Attributes:
        before: the pod template's spec, and `now` how many of them there are.
        after: the one of the new pods.
        passes: through how many (new, old) pods the rollout must come, its end last.
        wishes: to how many (new, old) it goes where there is room.
        created: pods of the new template are made at all.
    """

    before: Json
    after: Json
    now: int
    passes: tuple[tuple[int, int], ...]
    wishes: tuple[int, int]
    created: bool


@dataclass(slots=True)
class Room:
    """What the namespace lets in, and what earlier steps of the plan have taken of it.

    Attributes:
        quotas: its ResourceQuotas.
        ranges: its LimitRanges.
    """

    quotas: Sequence[Json] = ()
    ranges: Sequence[Json] = ()
    _taken: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def refuses(self, pods: Pods) -> list[str]:
        """Why the server would not let these pods be made: a sentence each, with the figures; empty when it would."""
        if not pods.created:
            return []
        says = list(_out_of_range(pods.after, self.ranges))
        for quota in self._that_count(pods.after):
            says += self._unsaid(quota, pods.after)
            says += self._short(quota, pods, pods.passes)
        return says

    def delays(self, pods: Pods, state: tuple[int, int]) -> list[str]:
        """What would not fit of a state that the rollout need not pass."""
        quotas = self._that_count(pods.after) if pods.created else ()
        return [says for quota in quotas for says in self._short(quota, pods, (state,))]

    def take(self, pods: Pods) -> None:
        """The step is done: what its pods hold counts for those after it."""
        for quota in self._that_count(pods.after):
            for name in quota["spec"].get("hard") or {}:
                key = quota["metadata"]["name"], name
                self._taken[key] = self._taken.get(key, Decimal()) + self._more(name, pods, pods.passes[-1])

    def _that_count(self, pod: Json) -> list[Json]:
        return [quota for quota in self.quotas if _counts(quota, pod, self.ranges)]

    def _more(self, name: str, pods: Pods, state: tuple[int, int]) -> Decimal:
        """What pods in this number hold beyond what they hold now."""
        new, old = (amounts(pod, self.ranges).get(_figure(name), Decimal()) for pod in (pods.after, pods.before))
        return state[0] * new + (state[1] - pods.now) * old

    def _short(self, quota: Json, pods: Pods, states: Sequence[tuple[int, int]]) -> Iterator[str]:
        status, called = quota.get("status") or {}, quota["metadata"]["name"]
        for name, hard in (status.get("hard") or quota["spec"].get("hard") or {}).items():
            if not amounts(pods.after, self.ranges).get(_figure(name)):
                continue
            used, taken = (
                quantity((status.get("used") or {}).get(name, 0)),
                self._taken.get((called, name), Decimal()),
            )
            wanted = max(self._more(name, pods, state) for state in states)
            if used + taken + wanted > quantity(hard):
                before = f", by earlier steps {shown(name, taken)}" if taken else ""
                yield f"ResourceQuota {called}: {name} wanted {shown(name, wanted)} more, used {shown(name, used)}{before}, hard {shown(name, quantity(hard))}; raise it, or ask for less"

    def _unsaid(self, quota: Json, pod: Json) -> Iterator[str]:
        counted = {_figure(name) for name in quota["spec"].get("hard") or {}} & _MUST_SAY
        if pod.get("resources"):
            return
        for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
            has = {f"{part}.{name}" for part, named in _resolved(container, self.ranges).items() for name in named}
            if missing := sorted(counted - has):
                yield (
                    f"ResourceQuota {quota['metadata']['name']} counts {', '.join(missing)}, "
                    f"and container {container['name']} does not say how much; give it resources"
                )


def amounts(pod: Json, ranges: Sequence[Json]) -> Amounts:
    """What one pod counts for: ``pods``, ``requests.cpu`` and the like."""
    counted = {"pods": Decimal(1)}
    for part in ("requests", "limits"):
        running, largest, beside = Amounts(), Amounts(), Amounts()
        for container in pod.get("initContainers") or ():
            own = _resolved(container, ranges)[part]
            if container.get("restartPolicy") == "Always":
                beside = _sum(beside, own)
                running = _sum(running, own)
                own = Amounts()
            largest = _largest(largest, _sum(beside, own))
        for container in pod.get("containers") or ():
            running = _sum(running, _resolved(container, ranges)[part])
        total = _largest(running, largest)
        total |= {name: quantity(text) for name, text in ((pod.get("resources") or {}).get(part) or {}).items()}
        counted |= {f"{part}.{name}": amount for name, amount in total.items()}
    return counted


def _resolved(container: Json, ranges: Sequence[Json]) -> dict[str, Amounts]:
    """What a container asks for once the server has filled in what it leaves out."""
    said = container.get("resources") or {}
    limits = {name: quantity(text) for name, text in (said.get("limits") or {}).items()}
    requests = limits | {name: quantity(text) for name, text in (said.get("requests") or {}).items()}
    for item in _items(ranges, "Container"):
        limits = {name: quantity(text) for name, text in (item.get("default") or {}).items()} | limits
        requests = {name: quantity(text) for name, text in (item.get("defaultRequest") or {}).items()} | requests
    return {"requests": requests, "limits": limits}


def _out_of_range(pod: Json, ranges: Sequence[Json]) -> Iterator[str]:
    """What LimitRanges refuse of a pod and of its containers."""
    containers = (*(pod.get("initContainers") or ()), *(pod.get("containers") or ()))
    whole = amounts(pod, ranges)
    for limit_range in ranges:
        where = f"LimitRange {limit_range['metadata']['name']}"
        for item in limit_range["spec"].get("limits") or ():
            if item["type"] == "Container":
                for container in containers:
                    asked = _resolved(container, ranges)
                    yield from _out_of(where, f"container {container['name']}", asked, item)
            elif item["type"] == "Pod":
                parts = {
                    part: {
                        name.removeprefix(f"{part}."): amount
                        for name, amount in whole.items()
                        if name.startswith(f"{part}.")
                    }
                    for part in ("requests", "limits")
                }
                yield from _out_of(where, "its pod", parts, item)


def _out_of(where: str, who: str, asked: Mapping[str, Amounts], item: Json) -> Iterator[str]:
    requests, limits = asked["requests"], asked["limits"]
    for name, text in (item.get("min") or {}).items():
        least = quantity(text)
        has = requests.get(name)
        if has is None or has < least or limits.get(name, least) < least:
            has = has if has is None or has < least else limits[name]
            yield f"{where}: {who} must have {name} of at least {text}, and has {_or_none(name, has)}; change one of them"
    for name, text in (item.get("max") or {}).items():
        most, has = quantity(text), limits.get(name)
        if has is None or has > most:
            yield f"{where}: {who} may have a limit of {name} of at most {text}, and has {_or_none(name, has)}; change one of them"
    for name, text in (item.get("maxLimitRequestRatio") or {}).items():
        request, limit = requests.get(name), limits.get(name)
        if not request or limit is None or limit / request > quantity(text):
            yield (
                f"{where}: of {who} the limit of {name} may be at most {text} times its request, "
                f"and they are {_or_none(name, limit)} and {_or_none(name, request)}; change one of them"
            )


def _counts(quota: Json, pod: Json, ranges: Sequence[Json]) -> bool:
    """Whether a quota counts such pods; one whose scope cannot be told from the template does not, for us."""
    spec = quota["spec"]
    rules = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    rules += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_in_scope(rule, pod, ranges) for rule in rules)


def _in_scope(rule: Json, pod: Json, ranges: Sequence[Json]) -> bool:
    ends = pod.get("activeDeadlineSeconds") is not None
    says = any(amounts(pod, ranges).get(name) for name in _MUST_SAY)
    match rule["scopeName"]:
        case "Terminating":
            return ends
        case "NotTerminating":
            return not ends
        case "BestEffort":
            return not says
        case "NotBestEffort":
            return says
        case "PriorityClass":
            return meets(rule, pod.get("priorityClassName") or None)
    return False


def meets(rule: Json, has: str | None) -> bool:
    """Whether a value, None where there is none, is as a requirement of a selector or a scope says."""
    values = rule.get("values") or ()
    return {
        "In": has in values,
        "NotIn": has not in values,
        "Exists": has is not None,
        "DoesNotExist": has is None,
    }[str(rule["operator"])]


def _figure(name: str) -> str:
    """What a name in a quota counts: ``cpu`` is ``requests.cpu``, ``count/pods`` is ``pods``."""
    if name in (*_COMPUTE, "ephemeral-storage"):
        return f"requests.{name}"
    return name.removeprefix("count/") if name == "count/pods" else name


def _items(ranges: Sequence[Json], kind: str) -> Iterator[Json]:
    for limit_range in ranges:
        yield from (item for item in limit_range["spec"].get("limits") or () if item["type"] == kind)


def _sum(one: Amounts, other: Amounts) -> Amounts:
    return {name: one.get(name, Decimal()) + other.get(name, Decimal()) for name in one.keys() | other.keys()}


def _largest(one: Amounts, other: Amounts) -> Amounts:
    return {name: max(one.get(name, Decimal()), other.get(name, Decimal())) for name in one.keys() | other.keys()}


def _or_none(name: str, amount: Decimal | None) -> str:
    return "none" if amount is None else shown(name, amount)
