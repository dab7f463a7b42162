"""What `traffic` puts beside the weights for a while: header routes, mirrors; and routes of tcp and tls, which have neither."""

from __future__ import annotations

import copy
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from cutover.ports import DEPLOYMENTS, PLANS, SERVICES, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from support.fakes.shop import ROUTES, RUNBOOK, SOAK, V2, plan, service, shop, shop_of_many_routes, virtual_service
from support.fakes.simulation import Simulation

HEADER = "{headers: {canary: {exact: 'true'}}}"
OURS = "cutover-shift-primary"


def spec(more: str, weights: str = "[10, 100]", service: str = "{name: shop}", after: str = "") -> dict[str, Any]:
    return plan(f"""
startDeadline: 0s
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - name: shift
    traffic: {{virtualService: {service}, from: {{host: shop-v1}}, to: {{host: shop-v2}}, weights: {weights}, {more}}}{after}
""")


def put_with(change: Callable[[Any], object]) -> Callable[[MemoryCluster], None]:
    """The shop, with a VirtualService whose spec was changed."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        change(body["spec"])
        cluster.put(VIRTUAL_SERVICES, body)

    return put


def edit(run: Simulation, change: Callable[[Any], object]) -> None:
    """What a person does to the VirtualService."""
    body = copy.deepcopy(run.cluster.objects[ROUTES])
    change(body["spec"])
    run.cluster.put(VIRTUAL_SERVICES, body)


def change_plan(run: Simulation, **fields: object) -> None:
    """What a person does to the spec of the plan."""
    body = copy.deepcopy(run.cluster.objects[run.plan])
    body["spec"] |= fields
    run.cluster.put(PLANS, body)


def http(run: Simulation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.cluster.objects[ROUTES]["spec"]["http"]
    return found


def names(run: Simulation) -> list[str]:
    return [route.get("name", "") for route in http(run)]


def primary(run: Simulation) -> dict[str, Any]:
    return next(route for route in http(run) if route.get("name") == "primary")


def share(run: Simulation) -> int:
    weight: int = primary(run)["route"][1].get("weight", 0)
    return weight


async def until_weight(run: Simulation, weight: int) -> None:
    await run.until(lambda: share(run) == weight)
    await run.turn()


# --- header routes ----------------------------------------------------------------------------------------------------


async def test_the_header_route_stands_through_all_weights_and_goes_at_the_end() -> None:
    run = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=shop)
    seen: list[tuple[bool, int]] = []

    def changed(ref: Any, *_: Any) -> None:
        if ref == ROUTES and (not seen or seen[-1] != (OURS in names(run), share(run))):
            seen.append((OURS in names(run), share(run)))

    run.cluster.changed = changed
    assert await run.run() is Phase.SUCCEEDED
    assert seen == [(False, 0), (True, 0), (True, 10), (True, 100), (False, 100)]


@pytest.mark.parametrize("suspended", [False, True])
async def test_the_header_route_goes_although_the_window_is_over(suspended: bool) -> None:  # noqa: FBT001 -- a parameter of the test
    body = spec(f"match: [{HEADER}], dwell: 1m", weights="[100]")
    body["spec"]["window"] = {"start": "2026-01-01T11:00:00Z", "end": "2026-01-01T12:01:30Z"}
    run = Simulation(body, put=shop)
    await until_weight(run, 100)
    if suspended:
        change_plan(run, suspend=True)
        await run.until(lambda: run.phase is Phase.PAUSED)
        run.clock.pass_time(timedelta(hours=1))
        await run.turn()
        assert OURS in names(run)
        change_plan(run, suspend=False)
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert run.clock.now() > datetime(2026, 1, 1, 12, 1, 30, tzinfo=UTC)
    assert names(run) == ["primary"]


async def test_it_is_a_copy_that_asks_for_both() -> None:
    def change(body: Any) -> None:
        body["http"][0] |= {"match": [{"uri": {"prefix": "/a"}, "headers": {"tenant": {"exact": "x"}}}, {"port": 80}]}
        body["http"][0]["route"][1]["headers"] = {"request": {"set": {"version": "2"}}}

    run = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=put_with(change))
    await run.until(lambda: OURS in names(run))
    assert http(run)[0] == {
        "name": OURS,
        "retries": {"attempts": 0},
        "match": [
            {"uri": {"prefix": "/a"}, "headers": {"tenant": {"exact": "x"}, "canary": {"exact": "true"}}},
            {"port": 80, "headers": {"canary": {"exact": "true"}}},
        ],
        "route": [
            {
                "destination": {"host": "shop-v2", "port": {"number": 80}},
                "headers": {"request": {"set": {"version": "2"}}},
            }
        ],
    }


async def test_it_stands_right_above_its_own_route_wherever_that_is_moved() -> None:
    def change(body: Any) -> None:
        body["http"].insert(0, {"match": [{"port": 1}], "route": [{"destination": {"host": "other"}}]})

    run = Simulation(
        spec(f"match: [{HEADER}], dwell: 1m", service="{name: shop, routes: [primary]}"), put=put_with(change)
    )
    await run.until(lambda: OURS in names(run))
    assert names(run) == ["", OURS, "primary"]
    edit(run, lambda body: body["http"].insert(0, {"match": [{"port": 2}], "route": [{"destination": {"host": "x"}}]}))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert names(run) == ["", "", "primary"]
    assert share(run) == 100


async def test_several_routes_get_one_each_and_an_unnamed_one_too() -> None:
    run = Simulation(
        spec(f"match: [{HEADER}], dwell: 1m", service="{name: shop, routes: [primary, api]}"), put=shop_of_many_routes
    )
    await until_weight(run, 10)
    assert names(run) == ["cutover-shift-api", "api", OURS, "primary"]
    alone = Simulation(spec(f"match: [{HEADER}], dwell: 1m"), put=put_with(lambda body: body["http"][0].pop("name")))
    await alone.until(lambda: len(http(alone)) > 1)
    assert names(alone) == ["cutover-shift", ""]
    assert await alone.run() is Phase.SUCCEEDED
    assert names(alone) == [""]


def runbook(cluster: MemoryCluster) -> None:
    shop(cluster)
    for version in ("v1", "v2"):
        cluster.put(SERVICES, service(f"app-{version}", {"app": f"shop-{version}"}))
    body = yaml.safe_load(RUNBOOK)
    body["spec"]["hosts"] = ["app.example"]
    cluster.put(VIRTUAL_SERVICES, body)


def before_the_runbook(cluster: MemoryCluster) -> None:
    runbook(cluster)
    body = copy.deepcopy(cluster.objects[MIGRATION])
    del body["spec"]["http"][0]
    for entry, weight in zip(body["spec"]["http"][0]["route"], (100, 0), strict=True):
        entry["weight"] = weight
    cluster.put(VIRTUAL_SERVICES, body)


MIGRATION = Ref(VIRTUAL_SERVICES, "shop", "app-migration")
APP = """
steps:
  - {{name: deploy, deploy: {{workload: {{name: shop-v2}}, replicas: 3}}}}
  - name: shift
    traffic: {{virtualService: {{name: app-migration}}, from: {{host: app-v1}}, to: {{host: app-v2}}, {more}}}
"""


async def test_the_manifest_of_a_runbook_is_what_a_plan_brings_about() -> None:
    run = Simulation(plan(APP.format(more=f"match: [{HEADER}], weights: [10], dwell: 1h")), put=before_the_runbook)
    await run.until(lambda: run.status.current is not None and run.status.current.weight == 10)
    header, rest = copy.deepcopy(run.cluster.objects[MIGRATION]["spec"]["http"])
    assert header.pop("name") == "cutover-shift"
    (alone,) = header["route"]
    alone["weight"] = 100  # one destination alone has all of it without saying so
    assert [header, rest] == yaml.safe_load(RUNBOOK)["spec"]["http"]


async def test_the_manifest_of_a_runbook_is_where_a_plan_begins() -> None:
    """Neither of its routes has a name, and one of them has both versions."""
    run = Simulation(plan(APP.format(more="weights: [50, 100]")), put=runbook)
    assert await run.run() is Phase.SUCCEEDED, run.status
    header, rest = run.cluster.objects[MIGRATION]["spec"]["http"]
    assert header == yaml.safe_load(RUNBOOK)["spec"]["http"][0]
    assert [entry["weight"] for entry in rest["route"]] == [0, 100]


async def test_one_endpoint_is_needed_for_it() -> None:
    body = spec(f"match: [{HEADER}]")
    body["spec"]["steps"][0]["deploy"]["replicas"] = 0
    run = Simulation(body, put=shop)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "shift")
    for _ in range(3):
        await run.turn()
    current = run.driver._caches._caches[run.plan].status.current
    assert current is not None
    assert current.message == "header route to shop-v2 waits: shop-v2 has 0 ready endpoints and needs 1"
    assert names(run) == ["primary"]


async def test_a_success_is_rolled_back_on_request() -> None:
    run = Simulation(spec(f"match: [{HEADER}], mirror: {{percent: 5}}"), put=shop)
    assert await run.run() is Phase.SUCCEEDED
    run.request(RequestVerb.ROLLBACK)
    await run.turn()
    assert await run.run() is Phase.ROLLED_BACK, run.status
    assert run.specs() == run.specs_before()


# --- mirrors ----------------------------------------------------------------------------------------------------------


async def test_a_mirror_ends_before_the_first_weight() -> None:
    run = Simulation(spec("mirror: {percent: 30, dwell: 1m}, dwell: 1m"), put=shop)
    await run.until(lambda: "mirror" in primary(run))
    assert primary(run)["mirror"] == {"host": "shop-v2", "port": {"number": 80}}
    assert primary(run)["mirrorPercentage"] == {"value": 30}
    assert share(run) == 0
    await until_weight(run, 10)
    assert primary(run).keys() == {"name", "retries", "route"}


async def test_mirrors_that_are_there_stay_beside_it() -> None:
    theirs = {"destination": {"host": "recorder"}, "percentage": {"value": 0.5}}
    put = put_with(lambda body: body["http"][0].update(mirrors=[theirs]))
    run = Simulation(spec("mirror: {dwell: 1m}"), put=put)
    aim = {"host": "shop-v2", "port": {"number": 80}}
    await run.until(lambda: len(primary(run)["mirrors"]) > 1)
    assert primary(run)["mirrors"] == [theirs, {"destination": aim, "percentage": {"value": 100}}]
    assert await run.run() is Phase.SUCCEEDED
    assert primary(run)["mirrors"] == [theirs]


async def test_a_delegate_has_no_hosts_and_is_shifted_as_any_other() -> None:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = virtual_service()
        del body["spec"]["hosts"]
        cluster.put(VIRTUAL_SERVICES, body)
        root = {"hosts": ["shop.example"], "http": [{"delegate": {"name": "shop"}}]}
        cluster.put(VIRTUAL_SERVICES, {"metadata": {"name": "front"}, "spec": root})

    run = Simulation(spec(f"match: [{HEADER}]", after=SOAK), put=put)
    await until_weight(run, 100)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


async def test_it_ends_also_where_the_first_weight_is_passed_over() -> None:
    put = put_with(lambda body: [entry.update(weight=50) for entry in body["http"][0]["route"]])
    run = Simulation(spec("mirror: {percent: 10, dwell: 1m}", weights="[20, 50]"), put=put)
    seen: list[tuple[str, bool, int]] = []

    def changed(ref: Ref, *_: Any) -> None:
        if ref == ROUTES and run.status.current is not None and run.status.current.step == "shift":
            seen.append((run.status.current.intent, "mirror" in primary(run), share(run)))

    run.cluster.changed = changed
    assert await run.run() is Phase.SUCCEEDED
    assert seen == [("mirror 10% to shop-v2 for 1m", True, 50), ("weight 20", False, 50)]
    assert run.cluster.objects[ROUTES]["spec"] == run.before[ROUTES]["spec"]


@pytest.mark.parametrize(("percent", "needed"), [(33, 0), (34, 2), (100, 3)])
async def test_a_mirror_waits_for_as_many_endpoints_as_its_share_needs(percent: int, needed: int) -> None:
    """One of three pods of the new version is ready, and the old one has three."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        cluster.rollouts = False
        body = copy.deepcopy(cluster.objects[V2])
        body["spec"]["replicas"] = 3
        cluster.put(DEPLOYMENTS, body)
        cluster.report(V2, {"observedGeneration": cluster.objects[V2]["metadata"]["generation"], "readyReplicas": 1})
        react(cluster)

    body = spec(f"mirror: {{percent: {percent}, dwell: 1h}}")
    del body["spec"]["steps"][0]
    run = Simulation(body, put=put)
    await run.until(lambda: run.status.current is not None and run.status.current.step == "shift")
    for _ in range(3):
        await run.turn()
    assert ("mirror" in primary(run)) == (not needed)
    current = run.driver._caches._caches[run.plan].status.current
    assert current is not None
    if needed:
        says = f"mirror {percent}% to shop-v2 waits: shop-v2 has 1 ready endpoint and needs {needed}"
        assert current.message == says


async def test_removing_the_mirror_is_a_request_to_stop() -> None:
    run = Simulation(spec("mirror: {percent: 10, dwell: 1m}"), put=shop)
    await run.until(lambda: "mirror" in primary(run))
    await run.turn()
    edit(run, lambda body: [body["http"][0].pop(key) for key in ("mirror", "mirrorPercentage")])
    await run.until(lambda: run.phase is Phase.PAUSED)
    assert run.status.reason == "TakenAway"
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs() == run.specs_before()


# --- tcp and tls ------------------------------------------------------------------------------------------------------


def only(protocol: str, match: list[Any] | None) -> Callable[[MemoryCluster], None]:
    def change(body: Any) -> None:
        entries = body.pop("http")[0]["route"]
        body[protocol] = [{"route": entries} if match is None else {"match": match, "route": entries}]

    return put_with(change)


@pytest.mark.parametrize(
    ("protocol", "match", "service"),
    [
        ("tcp", None, "{name: shop}"),
        ("tcp", [{"port": 5432}], "{name: shop, tcp: [5432]}"),
        ("tls", [{"sniHosts": ["db.example"]}], "{name: shop, tls: [db.example]}"),
    ],
)
async def test_routes_without_a_name(protocol: str, match: list[Any] | None, service: str) -> None:
    run = Simulation(spec("dwell: 0s", service=service), put=only(protocol, match))
    assert await run.run() is Phase.SUCCEEDED, run.status
    (route,) = run.cluster.objects[ROUTES]["spec"][protocol]
    assert [entry["weight"] for entry in route["route"]] == [0, 100]


async def test_a_route_that_matches_something_else_by_now_is_a_foreign_change() -> None:
    run = Simulation(spec("dwell: 1m"), put=only("tcp", [{"port": 5432}]))
    await run.until(lambda: run.cluster.objects[ROUTES]["spec"]["tcp"][0]["route"][1]["weight"] == 10)
    edit(run, lambda body: body["tcp"][0].update(match=[{"port": 1}]))
    await run.until(lambda: run.status.failure is not None)
    assert run.status.failure is not None
    assert run.status.failure.reason == "ForeignChange"


async def test_each_pair_is_shifted_in_the_same_write() -> None:
    service = "{name: shop, routes: [primary, api], tcp: [5432, 5433], tls: [www.shop.example]}"
    run = Simulation(spec("dwell: 0s", weights="[50]", service=service, after=SOAK), put=shop_of_many_routes)
    writes: list[int] = []

    def told(verb: str, ref: Any, content: Any) -> None:
        if verb == "patch" and ref == ROUTES and any("/weight" in op["path"] for op in content):
            writes.append(sum(op["op"] == "add" and op["path"].endswith("/weight") for op in content))

    run.cluster.told = told
    await run.until(lambda: share(run) == 50)
    body = run.cluster.objects[ROUTES]["spec"]
    assert [entry["weight"] for entry in body["http"][0]["route"]] == [40, 30, 30]
    assert [body[part][-1]["route"][1]["weight"] for part in ("http", "tcp", "tls")] == [50, 50, 50]
    assert await run.run() is Phase.ROLLED_BACK
    assert writes == [8, 8]
    assert run.specs() == run.specs_before()


# --- what is wrong is said before anything is touched -------------------------------------------------------------------


async def test_what_would_surprise_is_reported_and_blocks_no_plan() -> None:
    def change(body: Any) -> None:
        body["http"][0]["route"] += [
            {"destination": {"host": "shop-v1", "subset": "gone"}, "weight": 5},
            {"destination": {"host": "elsewhere.example", "subset": "theirs"}, "weight": 5},
            {"destination": {"host": "shop-v1", "subset": "unused"}},
        ]
        body["http"][0]["match"] = [{"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/c"}}]
        body["http"].insert(0, {"match": [{"uri": {"prefix": "/"}, "port": 81}], "route": []})
        body["http"].insert(1, {"name": "all", "match": [{"port": 81}, {"uri": {"prefix": "/a"}}], "route": []})

    run = Simulation(spec("dwell: 0s", service="{name: shop, routes: [primary]}"), put=put_with(change))
    run.cluster.strict = False
    assert await run.run() is Phase.SUCCEEDED, run.status
    started = next(notice for notice in run.recorder.notices if notice.reason == "Started")
    assert started.warning
    assert started.message == (
        "run 1 started; warnings: "
        "steps[shift].traffic: the weights of route primary add up to 110, and Istio reads each as its share of that sum, "
        "not as percent; make them add up to 100; "
        "steps[shift].traffic: no DestinationRule that counts defines subset gone of host shop-v1 of route primary, "
        "asked by any client: its requests fail; define it; "
        "steps[shift].traffic: route primary gets none for /a/b of host shop.example: route all is tried before it "
        "(routes of one VirtualService are tried in their order); move it below, or let it match less than route primary"
    )


@pytest.mark.parametrize(
    ("match", "tells"), [("{canary: {exact: 'true'}}", True), ("{canary: {exact: 'true'}, beta: {exact: 'on'}}", False)]
)
async def test_a_header_that_the_route_asks_for_itself_is_told(match: str, tells: bool) -> None:  # noqa: FBT001 -- a parameter
    matches = [{"uri": {"prefix": "/x"}}, {"headers": {"canary": {"exact": "true"}, "tenant": {"exact": "a"}}}]
    run = Simulation(
        spec(f"match: [{{headers: {match}}}]"), put=put_with(lambda body: body["http"][0].update(match=matches))
    )
    assert await run.run() is Phase.SUCCEEDED, run.status
    started = next(notice for notice in run.recorder.notices if notice.reason == "Started")
    assert started.message.partition("warnings: ")[2] == tells * (
        "steps[shift].traffic: route primary matches header canary itself, as match does, "
        "so all requests that it takes for that header go to the new version before the first weight; "
        "use another header to let the weights decide"
    )


def taken(body: Any) -> None:
    body["http"].insert(0, {"name": OURS, "route": [{"destination": {"host": "x"}}]})


@pytest.mark.parametrize(
    ("change", "more", "service", "says"),
    [
        (
            taken,
            f"match: [{HEADER}]",
            "{name: shop, routes: [primary]}",
            f"traffic.match: VirtualService shop already has a route {OURS}, which an abandoned plan may have left",
        ),
        (
            lambda body: body["http"][0].update(match=[{"headers": {"canary": {"prefix": "t"}}}]),
            f"match: [{HEADER}]",
            "{name: shop}",
            "traffic.match: route primary matches header canary itself, with {'prefix': 't'}; use another header",
        ),
        (
            lambda body: body["http"][0].update(match=[{"withoutHeaders": {"canary": {"exact": "true"}}}]),
            f"match: [{HEADER}]",
            "{name: shop}",
            "traffic.match: route primary takes only requests without header canary (withoutHeaders: {'exact': 'true'})",
        ),
        (
            lambda body: body.update(http=[{"name": "root", "delegate": {"name": "shop-routes"}}]),
            "dwell: 0s",
            "{name: shop}",
            (
                "traffic.virtualService: route root of VirtualService shop hands its requests to VirtualService shop-routes; "
                "name that one instead"
            ),
        ),
        (
            lambda body: body.update(
                http=[
                    {"name": "a", "match": [{"uri": {"prefix": "/a"}}], "delegate": {"name": "x", "namespace": "team"}},
                    {"route": [{"destination": {"host": "shop-v1"}}]},
                ]
            ),
            "dwell: 0s",
            "{name: shop}",
            (
                "traffic.virtualService: route a of VirtualService shop hands its requests to VirtualService x of namespace team; "
                "make a plan there that names it"
            ),
        ),
        (
            lambda body: body.update(tcp=[{"match": [{"port": 1}], "route": body["http"][0]["route"]}]),
            "dwell: 0s",
            "{name: shop}",
            "virtualService.routes: VirtualService shop has 2 routes (primary, tcp port 1), 2 with both; say which to shift",
        ),
        (
            lambda body: body.update(tcp=[{"match": [{"port": 1}], "route": []}]),
            "dwell: 0s",
            "{name: shop, tcp: [2]}",
            "virtualService.tcp: VirtualService shop has no tcp route for port 2; it has 1",
        ),
        (
            lambda body: body.update(tls=[{"match": [{"sniHosts": ["a"]}], "route": []}] * 2),
            "dwell: 0s",
            "{name: shop, tls: [a]}",
            "virtualService.tls: VirtualService shop has 2 tls routes for host a; it has a",
        ),
        (
            lambda body: body.update(tcp=[{"route": body.pop("http")[0]["route"]}]),
            "mirror: {percent: 1}",
            "{name: shop}",
            "route tcp (any) is not an http route, and only http routes support headers and mirrors; remove match and mirror",
        ),
    ],
)
async def test_refused(change: Callable[[Any], None], more: str, service: str, says: str) -> None:
    run = Simulation(spec(more, service=service), put=put_with(change))
    assert await run.run() is Phase.REFUSED
    assert says in run.status.message, run.status.message
    assert run.specs() == run.specs_before()
