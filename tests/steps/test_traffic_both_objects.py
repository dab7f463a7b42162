"""What `traffic` does the same way with a VirtualService and with an HTTPRoute: each story is told once, and run with both."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from cutover.ports import Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import ROUTES, RULES, SOAK, plan, shop, shop_with_an_http_route
from support.fakes.simulation import Simulation

HEADER = "{headers: {canary: {exact: 'true'}}}"


@dataclass(frozen=True)
class Routed:
    """An object that splits the traffic of the shop.

    Attributes:
        field: the key of a step that names it.
        put: the shop with it.
        listed: the key of its spec that lists its routes; the route of the pair is the last one.
        destinations: the key of a route that lists its destinations.
        header: position of the header route, and how a message names its path.
        timeout: what somebody changes of a route.
    """

    ref: Ref
    field: str
    put: Callable[[MemoryCluster], None]
    listed: str
    destinations: str
    header: int
    header_path: str
    timeout: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.ref.resource.kind} {self.ref.name}"

    def spec(self, more: str = "dwell: 0s", after: str = "") -> dict[str, Any]:
        sides = "from: {host: shop-v1}, to: {host: shop-v2}"
        return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - {{name: shift, traffic: {{{self.field}: {{name: shop}}, {sides}, weights: [10, 50, 100], {more}}}}}{after}
""")

    def start(self, more: str = "dwell: 0s", after: str = "") -> Simulation:
        return Simulation(self.spec(more, after), put=self.put)

    def routes(self, run: Simulation) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = run.cluster.objects[self.ref]["spec"][self.listed]
        return found

    def weights(self, run: Simulation) -> list[int]:
        return [entry.get("weight", 0) for entry in self.routes(run)[-1][self.destinations]]

    def written(self, run: Simulation) -> list[list[int]]:
        """Every state of the weights, as it comes about."""
        seen = [self.weights(run)]

        def changed(ref: Any, *_: Any) -> None:
            if ref == self.ref and self.weights(run) != seen[-1]:
                seen.append(self.weights(run))

        run.cluster.changed = changed
        return seen

    def edit(self, run: Simulation, change: Callable[[list[Any]], object]) -> None:
        """What a person does to its routes."""
        body = copy.deepcopy(run.cluster.objects[self.ref])
        change(body["spec"][self.listed])
        run.cluster.put(self.ref.resource, body)


VIRTUAL_SERVICE = Routed(
    ROUTES, "virtualService", shop, "http", "route", 0, "spec.http[name=cutover-shift-primary]", {"timeout": "3s"}
)
HTTP_ROUTE = Routed(
    RULES,
    "httpRoute",
    shop_with_an_http_route,
    "rules",
    "backendRefs",
    1,
    "spec.rules[",
    {"timeouts": {"request": "3s"}},
)


@pytest.fixture(params=[VIRTUAL_SERVICE, HTTP_ROUTE], ids=lambda routed: routed.field)
def routed(request: pytest.FixtureRequest) -> Routed:
    found: Routed = request.param
    return found


async def test_every_weight_in_order_and_back_at_once(routed: Routed) -> None:
    run = routed.start(after=SOAK)
    seen = routed.written(run)
    assert await run.run() is Phase.ROLLED_BACK
    assert seen == [[100, 0], [90, 10], [50, 50], [0, 100], [100, 0]]
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []


async def test_no_host_no_gateway_and_no_destination_comes_in_that_was_not_there(routed: Routed) -> None:
    """At every moment of a run and of its rollback: weights differ, a header route is a copy, and all else is as it was."""
    run = routed.start(f"dwell: 0s, match: [{HEADER}]", after=SOAK)
    states: list[dict[str, Any]] = []

    def parts(spec: dict[str, Any]) -> tuple[dict[str, Any], set[str], list[str]]:
        routes = spec[routed.listed]
        sides = {
            json.dumps({**side, "weight": 0}, sort_keys=True) for route in routes for side in route[routed.destinations]
        }
        rest = [json.dumps({**route, routed.destinations: 0}, sort_keys=True) for route in routes]
        return {key: value for key, value in spec.items() if key != routed.listed}, sides, rest

    def changed(ref: Any, *_: Any) -> None:
        if ref == routed.ref:
            states.append(copy.deepcopy(run.cluster.objects[ref]["spec"]))

    around, sides, routes = parts(run.cluster.objects[routed.ref]["spec"])
    run.cluster.changed = changed
    assert await run.run() is Phase.ROLLED_BACK
    assert len(states) > 4
    assert any(len(state[routed.listed]) > len(routes) for state in states), "there was a header route"
    for state in states:
        around_now, sides_now, routes_now = parts(state)
        assert around_now == around
        assert sides_now == sides
        assert [route for route in routes_now if route in routes] == routes
        assert len(routes_now) <= len(routes) + 1


async def test_a_lowered_weight_is_a_request_to_stop(routed: Routed) -> None:
    run = routed.start("dwell: 1m")
    await run.until(lambda: routed.weights(run) == [50, 50])
    await run.turn()
    routed.edit(
        run, lambda routes: [entry.update(weight=at) for at, entry in enumerate(routes[-1][routed.destinations])]
    )
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "LoweredByHand"
    assert f"another writer has lowered shop-v2 to weight 1 in {routed}, where this plan has 50" in run.status.message


async def test_a_removed_header_route_is_a_request_to_stop_and_resume_sets_it_again(routed: Routed) -> None:
    run = routed.start(f"match: [{HEADER}], dwell: 1m")
    before = copy.deepcopy(routed.routes(run))
    await run.until(lambda: routed.weights(run) == [90, 10])
    await run.turn()
    assert len(routed.routes(run)) == len(before) + 1
    routed.edit(run, lambda routes: routes.pop(routed.header))
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "TakenAway"
    assert f"another writer has removed {routed.header_path}" in run.status.message
    assert f" from {routed}, which this plan had set" in run.status.message
    assert len(routed.routes(run)) == len(before)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: len(routed.routes(run)) == len(before) + 1)
    assert await run.run() is Phase.SUCCEEDED
    assert [route.get("name") for route in routed.routes(run)] == [route.get("name") for route in before]


async def test_a_changed_header_route_stays_and_the_traffic_goes_back(routed: Routed) -> None:
    run = routed.start(f"match: [{HEADER}], dwell: 1m")
    await run.until(lambda: routed.weights(run) == [90, 10])
    await run.turn()
    routed.edit(run, lambda routes: routes[routed.header].update(routed.timeout))
    await run.until(lambda: run.phase is Phase.STUCK)
    assert routed.weights(run) == [100, 0]
    assert run.status.reason == "ForeignChange"
    assert "--type=json" in run.status.message
    assert routed.routes(run)[routed.header].items() >= routed.timeout.items()
    routed.edit(run, lambda routes: routes.pop(routed.header))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()
    assert run.leftovers() == []
