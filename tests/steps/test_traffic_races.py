"""`traffic` and somebody who edits the same VirtualService: between a read and a write, and in the stages without a weight."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cutover.ports import Ref
from cutover.requests import RequestVerb
from cutover.status import Phase
from cutover.testing import MemoryCluster
from steps.test_traffic_beside import edit, only, put_with, share, spec
from support.shop import ROUTES, shop
from support.simulation import Simulation

# --- routes that are told by what they do not have ----------------------------------------------------------------------


def listed(run: Simulation, protocol: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.cluster.objects[ROUTES]["spec"][protocol]
    return found


def weigh(run: Simulation, place: int, *weights: int) -> None:
    """Somebody sets the weights of an http route."""
    edit(
        run,
        lambda body: [
            entry.update(weight=weight) for entry, weight in zip(body["http"][place]["route"], weights, strict=True)
        ],
    )


def insert_before_a_write(run: Simulation, protocol: str, weight: int) -> dict[str, Any]:
    """Somebody puts a route above ours just before the write of that weight, with the same destinations."""
    match: dict[str, Any] = {"headers": {"vip": {"exact": "1"}}} if protocol == "http" else {"port": 1}
    other = {"match": [match], "route": copy.deepcopy(listed(run, protocol)[0]["route"])}
    real = run.cluster.patch

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        writes = any(
            one["op"] == "add" and one["path"].endswith("/weight") and one["value"] == weight for one in operations
        )
        if ref == ROUTES and writes and len(listed(run, protocol)) == 1:
            edit(run, lambda body: body[protocol].insert(0, other))
        return await real(ref, operations, account)

    run.cluster.patch = patch  # type: ignore[method-assign]
    return other


UNNAMED = [
    ("http", put_with(lambda body: body["http"][0].pop("name"))),
    ("tcp", only("tcp", None)),
]


@pytest.mark.parametrize(("protocol", "put"), UNNAMED)
async def test_a_route_inserted_above_an_unnamed_one_gets_none_of_its_weights(
    protocol: str, put: Callable[[MemoryCluster], None]
) -> None:
    run = Simulation(spec("dwell: 1m", weights="[10, 50]"), put=put)
    await run.until(lambda: listed(run, protocol)[0]["route"][1].get("weight") == 10)
    other = insert_before_a_write(run, protocol, 50)
    await run.until(lambda: 50 in [route["route"][1].get("weight") for route in listed(run, protocol)])
    assert listed(run, protocol)[0] == other
    assert [entry["weight"] for entry in listed(run, protocol)[1]["route"]] == [50, 50]


@pytest.mark.parametrize(("protocol", "put"), UNNAMED)
async def test_neither_does_it_when_the_traffic_goes_back(protocol: str, put: Callable[[MemoryCluster], None]) -> None:
    run = Simulation(spec("dwell: 1m", weights="[10, 50]"), put=put)
    await run.until(lambda: listed(run, protocol)[0]["route"][1].get("weight") == 10)
    other = insert_before_a_write(run, protocol, 100)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: 100 in [route["route"][0].get("weight") for route in listed(run, protocol)])
    assert listed(run, protocol)[0] == other
    assert [entry["weight"] for entry in listed(run, protocol)[1]["route"]] == [100, 0]


async def test_what_is_brought_back_is_read_again() -> None:
    """A write that something else takes back at once brings nobody's traffic back."""
    run = Simulation(spec("dwell: 1m"), put=shop)
    await run.until(lambda: share(run) == 10)
    real = run.cluster.patch

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        body = await real(ref, operations, account)
        if ref == ROUTES and share(run) == 0:
            weigh(run, 0, 90, 10)
        return body

    run.cluster.patch = patch  # type: ignore[method-assign]
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert "VirtualService shop does not keep what was written to it" in run.status.message
