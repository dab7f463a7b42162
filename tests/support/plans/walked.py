"""The plans that random walks go through, each over its shop, and what of the traffic each side of them has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

from cutover.ports import HTTP_ROUTES, PODS, STREAMED, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.field_owners import applied_by
from support.fakes.shop import (
    CANARY,
    FRONT,
    ROUTES,
    RULES,
    V1,
    V2,
    plan,
    shop,
    shop_with_an_http_route,
    shop_without_a_mesh,
)
from support.fakes.simulation import Simulation, specs_of
from support.plans.simulated import APPROVED, BACK_AND_FORTH, FLAGGED, GUARDED, WALLED, WIDE

RETIRED = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic:
      httpRoute: {name: shop}
      from: {host: shop-v1}
      to: {host: shop-v2}
      match: [{headers: {canary: {exact: "true"}}}]
      weights: [10, 100]
      dwell: 5s
    gates: [{name: errors, interval: 1s, prometheus: {query: errors}, pass: {max: "0.5"}}]
  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}
  - {name: soak, check: {for: 1m}, gates: [{name: errors, interval: 10s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
"""
SWITCHED = """
steps:
  - {name: green, deploy: {workload: {name: shop-v2}, images: [{container: app, image: "shop:2"}], replicas: 3}}
  - {name: turn, switch: {service: front, selector: {app: shop-v2}}}
  - {name: soak, check: {for: 10s}, gates: [{name: errors, interval: 5s, prometheus: {query: errors}, pass: {max: "0.5"}}]}
  - {name: retire, deploy: {workload: {name: shop-v1}, replicas: 0}}
  - {name: ok, approve: {message: go on}}
"""
EARLY = """
steps:
  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [20], drain: 0s}
  - {name: retire, timeout: 2m, deploy: {workload: {name: shop-v1}, replicas: 1}}
"""
"""Its last step would take pods that still get requests; it waits, and fails."""


@dataclass(frozen=True)
class Walked:
    """A plan over a shop.

    Attributes:
        moves: the object by which it moves traffic; None where it moves none.
        succeeds: it ends so when nothing disturbs it.
    """

    spec: str
    put: Callable[[MemoryCluster], None] = shop
    moves: Ref | None = ROUTES
    succeeds: bool = True


WALKED = {
    "canary": Walked(CANARY),
    "guarded": Walked(GUARDED),
    "approved": Walked(APPROVED),
    "there and back": Walked(BACK_AND_FORTH),
    "walled": Walked(WALLED),
    "wide": Walked(WIDE),
    "retired": Walked(RETIRED, shop_with_an_http_route, RULES),
    "switched": Walked(SWITCHED, shop_without_a_mesh, FRONT),
    "flagged": Walked(FLAGGED, moves=None),
    "early": Walked(EARLY, succeeds=False),
}


def entries(body: Any) -> Any:
    """The two destinations of the pair, each with its weight, of an object that splits traffic."""
    if "http" in body["spec"]:
        return next(route for route in body["spec"]["http"] if route.get("name") == "primary")["route"]
    return body["spec"]["rules"][-1]["backendRefs"]


def shares(ref: Ref, body: Any) -> dict[Ref, int]:
    """Percent of the requests that the pods of each workload get."""
    if ref.resource in (VIRTUAL_SERVICES, HTTP_ROUTES):
        old, new = (entry.get("weight", 0) for entry in entries(body))
    else:
        old, new = (100 * (body["spec"]["selector"]["app"] == side.name) for side in (V1, V2))
    return {V1: old, V2: new}


def pods_of(objects: dict[Ref, Any], workload: Ref) -> int:
    """How many pods of a workload are ready."""
    return sum(
        ref.resource == PODS and (body["metadata"].get("labels") or {}).get("app") == workload.name
        for ref, body in objects.items()
    )


@cache
def the_shop(name: str) -> MemoryCluster:
    """What is there before the plan, all applied by a release tool; bodies are never changed in place."""
    cluster = MemoryCluster()
    WALKED[name].put(cluster)
    for ref, body in cluster.objects.items():
        if ref.resource in STREAMED:
            body["metadata"]["managedFields"] = [applied_by("helm", body)]
    return cluster


def the_plan(name: str) -> dict[str, Any]:
    return deepcopy(_plan(name))


@cache
def _plan(name: str) -> dict[str, Any]:
    return plan(WALKED[name].spec)


@cache
def at_the_end_of(name: str) -> dict[Ref, Any]:
    """Spec and data of all objects after the plan has Succeeded undisturbed."""
    run = Simulation(plan(WALKED[name].spec), put=WALKED[name].put)

    async def play() -> Phase:
        for _ in range(20):
            await run.until(lambda: run.over or run.phase is Phase.WAITING)
            if run.over:
                break
            assert run.status.current is not None
            run.request(RequestVerb.APPROVE, run.status.current.step)
            await run.turn()
        return await run.run()

    assert asyncio.run(play()) is (Phase.SUCCEEDED if WALKED[name].succeeds else Phase.ROLLED_BACK)
    return contents(run.cluster.objects)


def contents(objects: dict[Ref, Any]) -> dict[Ref, Any]:
    """Spec and data of all objects; which run has restarted a workload does not count."""
    return {ref: (_anonymous(spec), data) for ref, (spec, data, *_) in specs_of(objects).items()}


def _anonymous(spec: Any) -> Any:
    """A workload's spec without the values of annotations, which name the run that has restarted it."""
    if not (spec or {}).get("template", {}).get("metadata", {}).get("annotations"):
        return spec
    copied = deepcopy(spec)
    copied["template"]["metadata"]["annotations"] = sorted(copied["template"]["metadata"]["annotations"])
    return copied
