"""Whether the ResourceQuotas and LimitRanges of a namespace admit the pods that a plan creates. Pure; used by `preflight/`.

What cannot be told from the template (scopes that depend on other things, overhead of a runtime class) is left to the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from cutover.field_path import Json
from cutover.objects.limit_ranges import out_of_range
from cutover.objects.quantities import COMPUTE, amounts, quantity, resolved, shown

_MUST_SAY: Final = frozenset(f"{part}.{name}" for part in ("requests", "limits") for name in COMPUTE)
"""What each container must set once a quota counts it."""


@dataclass(frozen=True, slots=True)
class Pods:
    """The pods of one workload before and after one step.

    Attributes:
        before: the pod spec now, of which there are `now` pods.
        after: the pod spec of the new pods.
        must_reach: the numbers of (new, old) pods that the rollout must go through, the final one last.
        may_reach: the numbers of (new, old) pods that it goes to where quotas allow.
        created: whether any pods of the new template are created.
    """

    before: Json
    after: Json
    now: int
    must_reach: tuple[tuple[int, int], ...]
    may_reach: tuple[int, int]
    created: bool


@dataclass(slots=True)
class Room:
    """What the quotas of the namespace allow, and what earlier steps of the plan use of it.

    Attributes:
        quotas: its ResourceQuotas.
        ranges: its LimitRanges.
    """

    quotas: Sequence[Json] = ()
    ranges: Sequence[Json] = ()
    _taken: dict[tuple[str, str], Decimal] = field(default_factory=dict)

    def refuses(self, pods: Pods) -> list[str]:
        """Why the server would refuse these pods: one message each, with numbers; empty when it would not."""
        if not pods.created:
            return []
        reasons = list(out_of_range(pods.after, self.ranges))
        for quota in self._that_count(pods.after):
            reasons += self._unsaid(quota, pods.after)
            reasons += self._short(quota, pods, pods.must_reach)
        return reasons

    def delays(self, pods: Pods, state: tuple[int, int]) -> list[str]:
        """What would be refused of a state that the rollout does not have to reach."""
        quotas = self._that_count(pods.after) if pods.created else ()
        return [message for quota in quotas for message in self._short(quota, pods, (state,))]

    def take(self, pods: Pods) -> None:
        """Count what the pods of a step use for the steps after it."""
        for quota in self._that_count(pods.after):
            for name in quota["spec"].get("hard") or {}:
                key = quota["metadata"]["name"], name
                self._taken[key] = self._taken.get(key, Decimal()) + self._more(name, pods, pods.must_reach[-1])

    def _that_count(self, pod: Json) -> list[Json]:
        return [quota for quota in self.quotas if _counts(quota, pod, self.ranges)]

    def _more(self, name: str, pods: Pods, state: tuple[int, int]) -> Decimal:
        """What this number of pods uses beyond what they use now."""
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
                before = f", earlier steps take {shown(name, taken)}" if taken else ""
                yield (
                    f"ResourceQuota {called}: needs {shown(name, wanted)} more {name}, {shown(name, used)} of "
                    f"{shown(name, quantity(hard))} used{before}; raise the quota or request less"
                )

    def _unsaid(self, quota: Json, pod: Json) -> Iterator[str]:
        counted = {_figure(name) for name in quota["spec"].get("hard") or {}} & _MUST_SAY
        if pod.get("resources"):
            return
        for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
            has = {f"{part}.{name}" for part, named in resolved(container, self.ranges).items() for name in named}
            if missing := sorted(counted - has):
                yield (
                    f"ResourceQuota {quota['metadata']['name']} counts {', '.join(missing)}, "
                    f"and container {container['name']} does not set them; add resources"
                )


def _counts(quota: Json, pod: Json, ranges: Sequence[Json]) -> bool:
    """Whether a quota counts such pods; one whose scope cannot be told from the template is ignored."""
    spec = quota["spec"]
    rules = [{"scopeName": scope, "operator": "Exists"} for scope in spec.get("scopes") or ()]
    rules += (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return all(_in_scope(rule, pod, ranges) for rule in rules)


def _in_scope(rule: Json, pod: Json, ranges: Sequence[Json]) -> bool:
    ends = pod.get("activeDeadlineSeconds") is not None
    message = any(amounts(pod, ranges).get(name) for name in _MUST_SAY)
    match rule["scopeName"]:
        case "Terminating":
            return ends
        case "NotTerminating":
            return not ends
        case "BestEffort":
            return not message
        case "NotBestEffort":
            return message
        case "PriorityClass":
            return meets(rule, pod.get("priorityClassName") or None)
    return False


def meets(rule: Json, has: str | None) -> bool:
    """Whether a value (None where there is none) meets a requirement of a selector or a scope."""
    values = rule.get("values") or ()
    return {
        "In": has in values,
        "NotIn": has not in values,
        "Exists": has is not None,
        "DoesNotExist": has is None,
    }[str(rule["operator"])]


def _figure(name: str) -> str:
    """What a name in a quota counts: ``cpu`` is ``requests.cpu``, ``count/pods`` is ``pods``."""
    if name in (*COMPUTE, "ephemeral-storage"):
        return f"requests.{name}"
    return name.removeprefix("count/") if name == "count/pods" else name
