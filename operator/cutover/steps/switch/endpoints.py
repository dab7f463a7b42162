"""What stands behind a Service that is switched: its selector, whether its endpoints have followed, and what rollback asks for.

Used by the kind `switch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cutover.field_path import Change, Json, Path, find
from cutover.objects.endpoints import Side, wanted
from cutover.objects.serving import addressed, by_port, pods_of
from cutover.ports import Ref
from cutover.saga.turn import Again, Done, Outcome
from cutover.steps.kind import StepContext
from cutover.steps.shared.ready_sides import Load
from cutover.steps.switch.spec import shown

SELECTOR: Final[Path] = ("spec", "selector")


def live(body: Json) -> Json:
    """The selector as it is."""
    found = find(body, SELECTOR)
    return found.value if found else None


async def set_back(context: StepContext, ref: Ref, change: Change) -> bool:
    """Whether the selector is not the new one. A stream may be behind; no plan pauses without a read."""
    return bool(live(await context.cluster.get(ref)) != change.to)


def sides(service: str, *selectors: Mapping[str, str]) -> list[Side]:
    """What the Service is a destination of, with each of these selectors."""
    return [Side(service, labels, subset=True) for labels in selectors]


def needed_back(facts: Mapping[str, Any], new: Mapping[str, int], share: int) -> dict[str, int]:
    """Pods that the old side needs on rollback, by port, after what the snapshot says of it and what the new side has ready.

    At least one where it had any; `share` percent of them as long as the new side answers at any port.
    """
    answers = any(count for port, count in new.items() if port or len(new) == 1)
    had = {port: min(count, facts["stood"].get(port, 0)) for port, count in facts["ready"].items()}
    return {port: max(1, -(-count * share // 100) if answers else 1) if count else 0 for port, count in had.items()}


async def followed(context: StepContext, service: str, body: Json, *, served: bool = True) -> Outcome:
    """Whether the Service's endpoints are those of its selector; until then traffic goes where it went before.

    A side without endpoints before the switch has none to wait for.
    """
    chosen, there = live(body), await addressed(context.cluster, context.namespace, service)
    pods = await pods_of(context.cluster, context.namespace, chosen)
    strays = there - {pod["metadata"]["uid"] for pod in pods}
    if (there or not served) and not strays:
        return Done(ready=str(len(there)))
    context.moved()  # until they follow, the other side gets the requests
    message = f"{len(strays)} of {len(there)} endpoints of Service {service} are still pods without {shown(chosen)}"
    return Again(context.next_look(), message if there else f"Service {service} has no ready endpoints yet")


async def load_in_effect(context: StepContext, side: Side, service: Json, most: Mapping[str, int]) -> Load:
    """What the Service has at the port where it lacks the most of what the switch asked for.

    A port at which it asked for none may be unused.
    """
    pods = await pods_of(context.cluster, context.namespace, side.selector or {}, fresh=True)
    found = [(ready, most[port]) for port, ready in by_port(service, pods).items() if most.get(port)]
    ready, needed = min(found, key=lambda one: one[0].total - one[1])
    if ready.total < needed:
        needed = await _needed_in_effect(context, side, needed)
    return Load(f"Service {side.service}", ready, needed)


async def _needed_in_effect(context: StepContext, side: Side, most: int) -> int:
    """How many ready pods a side needs that had so many: no more than its workloads want, fewer while one rolls out."""
    asked, lacking = await wanted(context.cluster, context.namespace, side)
    return max(1, min(most, asked or most) - lacking)
