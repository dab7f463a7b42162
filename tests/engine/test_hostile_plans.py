"""Whatever an author writes at any place of a plan: no request leaves the plan's namespace, and a name is one segment of a path."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest

from cutover.adapters.transport import Request
from cutover.names import ApiPath
from cutover.objects import job_templates, spec_patch
from cutover.ports import (
    ACCESS_REVIEWS,
    DESTINATION_RULES,
    GATEWAYS,
    HTTP_ROUTES,
    ISTIO_GATEWAYS,
    PLANS,
    SERVICES,
    VIRTUAL_SERVICES,
)
from cutover.status.status import ENDED
from cutover.testing import MemoryCluster, react
from support.fakes.memory_api_server import DISCOVERY
from support.fakes.shop import NAMESPACE, PLAN, shop_of_many_routes
from support.faults.fault_injection import World
from support.plans.every_leaf import HOSTILE, MARKER, Leaf, leaves

_SEGMENT = r"(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._-]|%(?!2F|2E|25)[0-9A-F]{2})+"
_INSIDE = re.compile(
    rf"/(api/v1|apis/{_SEGMENT}/v[a-z0-9]+)/namespaces/{NAMESPACE}/[a-z]+(/{_SEGMENT}(/status)?)?|/api/v1/namespaces/{NAMESPACE}"
)
_OF_ALL_NAMESPACES = {
    one.path("") for one in (VIRTUAL_SERVICES, HTTP_ROUTES, GATEWAYS, ISTIO_GATEWAYS, DESTINATION_RULES, SERVICES)
}
"""What the operator lists for all plans together, no matter what any of them says."""
_PATHS = 6
"""How many of the hostile values are to lead elsewhere in a path."""
_PREFLIGHT, _RUN = 3, 40
"""Turns until all is read that is read before the first step, and until a plan has ended or waits for more than time."""


async def requests_of(spec: dict[str, Any], turns: int) -> list[Request]:
    """All requests that the operator makes for a plan in so many turns, or until it has ended."""
    cluster = MemoryCluster()
    shop_of_many_routes(cluster)
    cluster.exits = lambda _: 0
    ref = cluster.put(PLANS, {"metadata": {"name": PLAN.name, "namespace": NAMESPACE}, "spec": spec})
    cluster.report(ref, {"observedGeneration": -1})
    world = World(cluster, ref, cluster.objects[ref]["metadata"]["uid"])
    cluster.changed = world.happened
    world.start()
    (process,) = world.processes
    send, made = process.transport.send, list[Request]()

    async def record(request: Request) -> Any:
        made.append(request)
        return await send(request)

    process.transport.send = record  # type: ignore[method-assign]
    for _ in range(turns):
        await world.turn(0)
        status = cluster.objects[ref]["status"]
        if status.get("phase") in ENDED and not cluster.objects[ref]["metadata"].get("finalizers"):
            break
        if not react(cluster) and not process.woken:
            due = process.due or cluster.clock.now() + timedelta(minutes=1)
            cluster.clock.pass_time(max(due - cluster.clock.now(), timedelta(0)))
    assert world.wrong == []
    return made


def outside(request: Request) -> bool:
    """Whether a request leaves the namespace of the plan, or its path has another form than those of objects and lists."""
    if request.path in DISCOVERY or (request.method == "GET" and request.path in _OF_ALL_NAMESPACES):
        return False
    if request.path == ACCESS_REVIEWS.path(""):
        return bool(json.loads(request.body or b"")["spec"]["resourceAttributes"]["namespace"] != NAMESPACE)
    return _INSIDE.fullmatch(request.path) is None


async def leave(chosen: Iterable[tuple[Leaf, Any]], turns: int = _RUN) -> list[str]:
    """The requests of these plans that leave their namespace."""
    return [
        f"{leaf}: {value!r}: {request.method} {request.path}"
        for leaf, value in chosen
        for request in await requests_of(leaf.put(value), turns)
        if outside(request)
    ]


def of_the_schema() -> list[tuple[Leaf, Any]]:
    """Each value that a plan may have at a field; of those that it may not have a few, for nothing is asked for them."""
    places = [leaf for leaf in leaves() if not leaf.below]
    found = [(leaf, value) for leaf in places for value in leaf.values(HOSTILE)]
    allowed = [one for one in found if one[0].allows(one[1])]
    assert len(places) > 110
    assert len(allowed) > 300
    return [*allowed, *[one for one in found if one not in allowed][::50]]


def of_templates(shift: int) -> list[tuple[Leaf, Any]]:
    """One value at each place in a template or patch, another than at the place before."""
    places = [leaf for leaf in leaves() if leaf.below]
    assert len(places) > 600
    return [(leaf, HOSTILE[(at + shift) % len(HOSTILE)]) for at, leaf in enumerate(places)]


async def test_no_value_leads_out_of_the_namespace() -> None:
    assert await leave([*of_the_schema()[::4], *of_templates(0)[::6]]) == []


@pytest.mark.exhaustive
@pytest.mark.parametrize("shift", [1, 5, 10, 15])
async def test_no_value_at_any_place_leads_out_of_the_namespace(shift: int) -> None:
    assert await leave([*(of_the_schema() if shift == 1 else ()), *of_templates(shift)]) == []


async def test_a_name_in_a_template_is_one_segment_even_where_it_is_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What refuses it with the plan is one thing; that it cannot lead elsewhere is another."""
    for module in (job_templates, spec_patch):
        monkeypatch.setattr(module, "wrong_names", lambda *_: ())
    places = [leaf for leaf in leaves() if leaf.below and leaf.path[-1] in ("name", "serviceAccountName")]
    read = [leaf for leaf in places if "deploy" in leaf.path or leaf.path[-1] == "serviceAccountName"]
    assert len(read) > 30
    assert await leave([(leaf, value) for leaf in read[::2] for value in HOSTILE[:_PATHS]], _PREFLIGHT) == []


@pytest.mark.parametrize("path", ["", "/status", "/x/y/z", "/../secrets", "/%2e%2e", f"?{MARKER}"])
def test_what_is_outside_is_seen(path: str) -> None:
    inside = f"/api/v1/namespaces/{NAMESPACE}/configmaps/flags"
    assert not outside(Request("GET", ApiPath(inside)))
    assert outside(Request("GET", ApiPath(f"{inside.replace(NAMESPACE, 'other')}{path}")))
    assert outside(Request("GET", ApiPath(f"{inside}{path}"))) == (path not in ("", "/status"))
