"""`traffic` and somebody who edits the same VirtualService: between a read and a write, and in the stages without a weight."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from cutover.ports import ENDPOINT_SLICES, VIRTUAL_SERVICES, Ref, Sample
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from steps.test_traffic_headers_and_mirrors import HEADER, OURS, edit, names, only, primary, put_with, share, spec
from support.fakes.shop import ROUTES, V2, shop, shop_of_many_routes
from support.fakes.simulation import Simulation

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


def before_the_write_of(run: Simulation, weight: int, somebody: Callable[[], None]) -> list[Ref]:
    """What somebody does, once, just before that weight is written; where, once it is done."""
    real, done = run.cluster.patch, list[Ref]()

    async def patch(ref: Ref, operations: Any, account: str = "") -> Any:
        writes = any(
            one["op"] == "add" and one["path"].endswith("/weight") and one["value"] == weight for one in operations
        )
        if ref == ROUTES and writes and not done:
            done.append(ref)
            somebody()
        return await real(ref, operations, account)

    run.cluster.patch = patch  # type: ignore[method-assign]
    return done


def insert_before_a_write(run: Simulation, protocol: str, weight: int) -> dict[str, Any]:
    """Somebody puts a route above ours just before the write of that weight, with the same destinations."""
    match: dict[str, Any] = {"headers": {"vip": {"exact": "1"}}} if protocol == "http" else {"port": 1}
    other = {"match": [match], "route": copy.deepcopy(listed(run, protocol)[0]["route"])}
    before_the_write_of(run, weight, lambda: edit(run, lambda body: body[protocol].insert(0, other)))
    return other


UNNAMED = [
    ("http", put_with(lambda body: body["http"][0].pop("name"))),
    ("tcp", only("tcp", None)),
]


@pytest.mark.parametrize(("protocol", "put"), [*UNNAMED, ("http", shop)])
async def test_a_route_inserted_above_gets_none_of_its_weights(
    protocol: str, put: Callable[[MemoryCluster], None]
) -> None:
    run = Simulation(spec("dwell: 1m", weights="[10, 50]"), put=put)
    await run.until(lambda: listed(run, protocol)[0]["route"][1].get("weight") == 10)
    other = insert_before_a_write(run, protocol, 50)
    await run.until(lambda: 50 in [route["route"][1].get("weight") for route in listed(run, protocol)])
    assert listed(run, protocol)[0] == other
    assert [entry["weight"] for entry in listed(run, protocol)[1]["route"]] == [50, 50]


@pytest.mark.parametrize(("protocol", "put"), [*UNNAMED, ("http", shop)])
async def test_neither_does_it_when_the_traffic_goes_back(protocol: str, put: Callable[[MemoryCluster], None]) -> None:
    run = Simulation(spec("dwell: 1m", weights="[10, 50]"), put=put)
    await run.until(lambda: listed(run, protocol)[0]["route"][1].get("weight") == 10)
    other = insert_before_a_write(run, protocol, 100)
    run.request(RequestVerb.ABORT)
    await run.until(lambda: 100 in [route["route"][0].get("weight") for route in listed(run, protocol)])
    assert listed(run, protocol)[0] == other
    assert [entry["weight"] for entry in listed(run, protocol)[1]["route"]] == [100, 0]


async def test_destinations_that_change_places_before_a_write_keep_their_weights() -> None:
    """At 50/50 only the destination that stands beside a weight tells one from the other."""
    run = Simulation(spec("dwell: 1m", weights="[50, 100]"), put=shop)
    await run.until(lambda: share(run) == 50)
    meddled = before_the_write_of(run, 100, lambda: edit(run, lambda body: body["http"][0]["route"].reverse()))
    await run.until(lambda: bool(meddled) and share(run) != 50)
    assert {entry["destination"]["host"]: entry["weight"] for entry in primary(run)["route"]} == {
        "shop-v1": 0,
        "shop-v2": 100,
    }


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


async def test_an_undo_that_gives_no_weight_back_waits_for_no_endpoints() -> None:
    run = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=shop)
    await run.until(lambda: len(listed(run, "http")) == 2)
    del run.cluster.objects[Ref(ENDPOINT_SLICES, "shop", "shop-v1")]
    run.request(RequestVerb.ABORT)
    for _ in range(4):
        await run.turn()
    assert len(listed(run, "http")) == 1
    await run.until(lambda: run.phase is Phase.ROLLED_BACK)


async def test_one_header_route_that_another_writer_changed_keeps_no_other() -> None:
    body = spec(f"match: [{HEADER}], dwell: 1m", service="{name: shop, routes: [primary, api]}")
    run = Simulation(body, put=shop_of_many_routes)
    await run.until(lambda: share(run) == 10)
    await run.turn()
    edit(run, lambda body: body["http"][0].update(timeout="3s"))
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.status.reason == "ForeignChange"
    assert names(run) == ["cutover-shift-api", "api", "primary"]
    edit(run, lambda body: body["http"].pop(0))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


# --- before the first weight, and after the last ------------------------------------------------------------------------


@pytest.mark.parametrize("more", ["mirror: {percent: 100, dwell: 1h}", f"match: [{HEADER}], dwell: 1h"])
async def test_a_weight_raised_before_the_first_one_is_put_back_at_once(more: str) -> None:
    """Also when the new side has lost its endpoints: what takes traffic from it waits for nothing."""
    run = Simulation(spec(more), put=shop)
    await run.until(lambda: "mirror" in primary(run) or OURS in names(run))
    await run.turn()
    lose_endpoints(run)
    weigh(run, -1, 50, 50)
    for _ in range(4):
        await run.turn()
    assert share(run) == 0
    assert run.phase is Phase.RUNNING


@pytest.mark.parametrize("more", ["mirror: {percent: 100, dwell: 1h}", f"match: [{HEADER}], dwell: 1h"])
async def test_a_weight_lowered_before_the_first_one_is_a_request_to_stop(more: str) -> None:
    some = put_with(lambda body: [e.update(weight=w) for e, w in zip(body["http"][0]["route"], (80, 20), strict=True)])
    run = Simulation(spec(more, weights="[50, 100]"), put=some)
    await run.until(lambda: "mirror" in primary(run) or OURS in names(run))
    await run.turn()
    weigh(run, -1, 100, 0)
    for _ in range(4):
        await run.turn()
    assert run.phase is Phase.PAUSED
    assert run.status.reason == "LoweredByHand"
    assert "weight 0 in VirtualService shop, where this plan has 20" in run.status.message
    run.request(RequestVerb.RESUME)
    await run.until(lambda: share(run) == 20)


async def test_a_weight_that_was_absent_may_be_written_out() -> None:
    """It is the same weight, so nobody has changed anything."""
    run = Simulation(
        spec("mirror: {percent: 100, dwell: 1m}"),
        put=put_with(lambda body: body["http"][0]["route"][1].pop("weight", 0)),
    )
    await run.until(lambda: "mirror" in primary(run))
    await run.turn()
    weigh(run, 0, 100, 0)
    assert await run.run() is Phase.SUCCEEDED, run.status


def lose_endpoints(run: Simulation) -> None:
    """No pod of the new version is ready any more."""
    run.cluster.rollouts = False
    run.cluster.report(V2, run.cluster.objects[V2]["status"] | {"readyReplicas": 0, "availableReplicas": 0})
    for ref, body in list(run.cluster.objects.items()):
        if ref.resource == ENDPOINT_SLICES and ref.name.startswith("shop-v2"):
            changed = copy.deepcopy(body)
            for endpoint in changed["endpoints"]:
                endpoint["conditions"]["ready"] = False
            run.cluster.put(ENDPOINT_SLICES, changed)


async def announced(stage: str, more: str = "") -> Simulation:
    """A plan with a header route and two weights. That stage is announced and not begun; the first weight is in effect."""
    body = spec(f"match: [{HEADER}], dwell: 1m")
    if more:
        body["spec"]["steps"][1] |= yaml.safe_load(more)
    run = Simulation(body, put=shop, crowded=True)
    await run.until(lambda: run.status.current is not None and run.status.current.stage == stage)
    return run


async def lowered_at_the_end(more: str = "", lowered: int = 0) -> Simulation:
    """A plan that is paused in its last stage, as another writer has lowered the weight there."""
    run = await announced("4/4", more)
    weigh(run, 1, 100 - lowered, lowered)
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "LoweredByHand"
    return run


async def test_lowered_at_the_end_to_what_it_had_before_the_last_weight_it_is_a_request_to_stop_too() -> None:
    """The last stage raises nothing, so nothing that is less can be the weight that it begins with."""
    run = await lowered_at_the_end(lowered=10)
    assert share(run) == 10
    assert "lowered shop-v2 to weight 10 in VirtualService shop, where this plan has 100" in run.status.message


@pytest.mark.parametrize("stage", ["2/4", "3/4"], ids=["in effect", "announced"])
async def test_removing_the_header_route_in_a_stage_or_between_two_is_a_request_to_stop(stage: str) -> None:
    run = await announced(stage)
    weight = share(run)
    edit(run, lambda body: body["http"].pop(0))
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "TakenAway"
    assert (names(run), share(run)) == (["primary"], weight)
    run.request(RequestVerb.RESUME)
    await run.until(lambda: OURS in names(run))
    assert await run.run() is Phase.SUCCEEDED


async def test_what_the_last_stage_takes_away_anybody_may_take_away_before_it() -> None:
    run = await announced("4/4")
    edit(run, lambda body: body["http"].pop(0))
    assert await run.run() is Phase.SUCCEEDED
    assert names(run) == ["primary"]


@pytest.mark.parametrize("stage", ["2/4", "3/4"], ids=["in effect", "announced"])
async def test_a_view_from_before_the_header_route_pauses_no_plan(stage: str) -> None:
    """A stream may be behind: what another process has put there since is not missed in it."""
    old: list[Any] = []
    run = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=shop, crowded=True)
    run.cluster.changed = lambda ref, before, _: (
        old.append(before) if ref == ROUTES and not old and OURS in names(run) else None
    )
    await run.until(lambda: run.status.current is not None and run.status.current.stage == stage)
    seen = run.cluster.seen
    run.cluster.seen = lambda ref: old[0] if ref == ROUTES else seen(ref)  # type: ignore[method-assign]
    before = len(run.cluster.writes)
    await run.turn()
    assert (("patch", ROUTES) in run.cluster.writes[before:]) is (stage == "3/4"), "it goes on"
    assert run.phase is Phase.RUNNING, run.status
    assert OURS in names(run)
    run.cluster.seen = seen  # type: ignore[method-assign]
    assert await run.run() is Phase.SUCCEEDED


async def test_resuming_the_last_stage_asks_for_endpoints() -> None:
    run = await lowered_at_the_end()
    lose_endpoints(run)
    run.request(RequestVerb.RESUME)
    for _ in range(5):
        await run.turn()
    assert share(run) == 0


async def test_resuming_the_last_stage_asks_the_gates() -> None:
    run = await lowered_at_the_end('gates: [{name: g, prometheus: {query: x}, pass: {max: "1"}}]')
    run.metrics.answer = lambda _: Sample(5.0)
    run.request(RequestVerb.RESUME)
    assert await run.run() is Phase.ROLLED_BACK, run.status
    assert run.status.failure is not None
    assert run.status.failure.stage == "4/4"
    assert run.specs() == run.specs_before()


# --- a weight that somebody sets between our look and our write -----------------------------------------------------------


@pytest.mark.parametrize("lowered", [0, 10, 20], ids=["to what it was", "to one of ours", "to another"])
@pytest.mark.parametrize("replaced", [False, True], ids=["", "the whole object replaced"])
async def test_a_weight_lowered_just_before_a_write_is_a_request_to_stop(*, lowered: int, replaced: bool) -> None:
    """Also to what this plan had found or set there, and by somebody who writes the object without our labels."""
    run = Simulation(spec("dwell: 1m", weights="[10, 50, 80]"), put=shop)
    await run.until(lambda: share(run) == 50)

    def somebody() -> None:
        weigh(run, 0, 100 - lowered, lowered)
        if replaced:
            body = copy.deepcopy(run.cluster.objects[ROUTES])
            body["metadata"].pop("labels")
            run.cluster.put(VIRTUAL_SERVICES, body)

    before_the_write_of(run, 80, somebody)
    await run.until(lambda: share(run) != 50)
    assert share(run) == lowered
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert share(run) == lowered
    assert run.status.reason in ("LoweredByHand", *(["ClaimLost"] if replaced else []))
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_a_weight_raised_just_before_a_write_is_put_right() -> None:
    run = Simulation(spec("dwell: 1m", weights="[10, 50]"), put=shop)
    await run.until(lambda: share(run) == 10)
    before_the_write_of(run, 50, lambda: weigh(run, 0, 30, 70))
    await run.until(lambda: share(run) == 70)
    await run.until(lambda: share(run) == 50)
    assert await run.run() is Phase.SUCCEEDED


async def test_what_a_weight_is_compared_with_is_no_older_than_what_it_is_written_over() -> None:
    """A stream may be behind what another process has written; that process is not somebody else."""
    run = Simulation(spec("dwell: 1m", weights="[10, 50, 80]"), put=shop)
    old: list[Any] = []
    run.cluster.changed = lambda ref, before, _: old.append(before) if ref == ROUTES and share(run) == 50 else None
    await run.until(lambda: bool(old))
    seen = run.cluster.seen
    run.cluster.seen = lambda ref: old[0] if ref == ROUTES else seen(ref)  # type: ignore[method-assign]
    await run.until(lambda: share(run) != 50)
    assert (share(run), run.phase) == (80, Phase.RUNNING)


@pytest.mark.parametrize("deleted", [True, False])
async def test_a_weight_set_by_another_writer_just_before_the_undo_is_undone_too(deleted: bool) -> None:  # noqa: FBT001
    """It is traffic that counts; and a deletion would leave it there."""
    run = Simulation(spec("dwell: 10m", weights="[10, 50]"), put=shop)
    await run.until(lambda: share(run) == 50)
    before_the_write_of(run, 100, lambda: weigh(run, 0, 30, 70))
    if deleted:
        run.cluster.delete(run.plan)
    else:
        run.request(RequestVerb.ABORT)
    await run.until(lambda: run.over)
    assert run.specs() == run.specs_before()
    assert "Stuck" not in [notice.reason for notice in run.recorder.notices]
    assert run.recorder.notices[-1].reason == "RolledBack"
