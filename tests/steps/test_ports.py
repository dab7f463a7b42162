"""A request is answered only at a port that the Service has and the pods listen at: refused beforehand, counted afterwards."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from cutover.field_path import Json
from cutover.ports import DEPLOYMENTS, HTTP_ROUTES, SERVICES, VIRTUAL_SERVICES, Ref
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from cutover.testing.controllers import react
from support.fakes.shop import NAMESPACE, ROUTES, V1, V2, deployment, http_route, plan, service, shop, virtual_service
from support.fakes.simulation import Simulation
from support.plans.simulated import weight_of_new

SHIFT = """
startDeadline: 1s
steps:
  - {name: ok, approve: {message: go}}
  - name: shift
    timeout: 20s
    traffic: {virtualService: {name: shop}, from: {host: shop-v1}, to: {host: shop-v2}, weights: [50, 100]}
  - {name: end, approve: {message: go}}
"""
OLD, NEW = Ref(SERVICES, NAMESPACE, "shop-v1"), Ref(SERVICES, NAMESPACE, "shop-v2")
HTTP, STATUS = {"name": "http", "port": 80, "targetPort": "http"}, {"name": "status", "port": 81}


def named(*ports: str) -> Json:
    """The pods of a version whose container names these ports."""
    return [{"name": name, "containerPort": 8080 + number} for number, name in enumerate(ports)]


def put(
    old: tuple[str, ...] = ("http",),
    new: tuple[str, ...] = ("http",),
    ports: Any = (HTTP,),
    routes: Any = None,
    pods: int = 3,
) -> Any:
    """A shop whose Services have these ports, and whose pods name these."""

    def filled(cluster: MemoryCluster) -> None:
        shop(cluster)
        for ref, names, replicas in ((V1, old, 3), (V2, new, pods)):
            cluster.put(SERVICES, service(ref.name, {"app": ref.name}, *copy.deepcopy(ports)))
            body = deployment(ref.name, f"{ref.name}:1", replicas)
            body["spec"]["template"]["spec"]["containers"][1]["ports"] = named(*names)
            cluster.put(DEPLOYMENTS, body)
        if routes:
            cluster.put(routes[0], routes[1])
        react(cluster)

    return filled


def virtual(old: int | None, new: int | None) -> Any:
    """The VirtualService, which names these ports."""
    body = virtual_service()
    for entry, number in zip(body["spec"]["http"][0]["route"], (old, new), strict=True):
        entry["destination"].pop("port")
        if number:
            entry["destination"]["port"] = {"number": number}
    return VIRTUAL_SERVICES, body


def rename_ports(run: Simulation, ref: Ref, *names: str) -> None:
    """Other pods of a version, which name other ports."""
    body = copy.deepcopy(run.cluster.objects[ref])
    body["spec"]["template"]["spec"]["containers"][1]["ports"] = named(*names)
    run.cluster.put(ref.resource, body)
    react(run.cluster)


def change_ports(run: Simulation, ref: Ref, *ports: Json) -> None:
    run.cluster.put(SERVICES, service(ref.name, {"app": ref.name}, *ports))
    react(run.cluster)


async def until_approval(run: Simulation, step: str) -> None:
    await run.until(
        lambda: run.phase is Phase.WAITING and run.status.current is not None and run.status.current.step == step
    )


async def shifted(run: Simulation) -> None:
    await until_approval(run, "ok")
    run.request(RequestVerb.APPROVE, "ok")
    await until_approval(run, "end")
    assert weight_of_new(run) == 100


async def started(run: Simulation) -> str:
    """What is told when the run begins."""
    await until_approval(run, "ok")
    (notice,) = [notice.message for notice in run.recorder.notices if "started" in notice.message]
    return notice


def failure(run: Simulation) -> str:
    assert run.status.failure is not None
    return run.status.failure.message


# --- the port of the Service ------------------------------------------------------------------------------------------


LACKS = (
    "Service shop-v2 has no port 8080, which the route names, but 80 (http), so every one of those requests would fail"
)


@pytest.mark.parametrize("side", ["from", "to"])
async def test_a_port_that_the_service_lacks_is_refused(side: str) -> None:
    ports = (8080, 80) if side == "from" else (80, 8080)
    run = Simulation(plan(SHIFT), put=put(routes=virtual(*ports)))
    assert await run.run() is Phase.REFUSED
    host = "shop-v1" if side == "from" else "shop-v2"
    assert f"steps[shift].traffic.{side}: host {host}: {LACKS.replace('shop-v2', host)}" in run.status.message
    assert "name another port in the route, or add 8080 to the Service" in run.status.message
    assert weight_of_new(run) == 0


async def test_an_http_route_is_refused_too() -> None:
    body = http_route()
    body["spec"]["rules"][1]["backendRefs"][1]["port"] = 8080

    def filled(cluster: MemoryCluster) -> None:
        put()(cluster)
        cluster.put(HTTP_ROUTES, body)

    run = Simulation(plan(SHIFT.replace("virtualService", "httpRoute")), put=filled)
    assert await run.run() is Phase.REFUSED
    assert f"steps[shift].traffic.to: host shop-v2: {LACKS}" in run.status.message


async def test_a_port_that_the_service_has_lost_by_the_first_weight() -> None:
    run = Simulation(plan(SHIFT), put=put())
    await until_approval(run, "ok")
    change_ports(run, NEW, HTTP | {"port": 8000})
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert "Service shop-v2 has no port 80, which the route names, but 8000 (http)" in failure(run)
    assert ("spec", ROUTES) not in run.cluster.effects, "no weight was written"


async def test_a_port_that_gets_another_name_is_the_same_port() -> None:
    """Routes name it by its number."""
    run = Simulation(plan(SHIFT.replace("weights", "dwell: 1m, weights")), put=put())
    await until_approval(run, "ok")
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: weight_of_new(run) == 50)
    change_ports(run, NEW, HTTP | {"name": "web"})
    await run.until(lambda: run.phase is not Phase.RUNNING)
    assert (run.phase, weight_of_new(run)) == (Phase.WAITING, 100), run.status


async def test_a_service_that_gets_another_number_between_two_weights_brings_them_back() -> None:
    """The slices stay as they are: each request to it fails, though all its pods are ready."""
    run = Simulation(plan(SHIFT.replace("weights", "dwell: 1m, weights")), put=put())
    await until_approval(run, "ok")
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: weight_of_new(run) == 50)
    change_ports(run, NEW, HTTP | {"port": 8000})
    await run.until(lambda: weight_of_new(run) != 50)
    assert weight_of_new(run) == 0
    assert "shop-v2 carries traffic, and host shop-v2: Service shop-v2 has no port 80" in failure(run)
    assert await run.run() is Phase.ROLLED_BACK


async def test_services_that_stay_the_same_are_not_read_again() -> None:
    run = Simulation(plan(SHIFT.replace("weights", "dwell: 1m, weights")), put=put())
    await until_approval(run, "ok")
    run.request(RequestVerb.APPROVE, "ok")
    await run.until(lambda: weight_of_new(run) == 50)
    read, real = list[Ref](), run.cluster.get

    async def get(ref: Ref) -> Json:
        read.append(ref)
        return await real(ref)

    run.cluster.get = get  # type: ignore[method-assign]
    run.cluster.put(SERVICES, service("other", {"app": "other"}))
    change_ports(run, NEW, HTTP | {"targetPort": "http"})
    await run.until(lambda: weight_of_new(run) == 100)
    assert [ref for ref in read if ref.resource == SERVICES] == []


@pytest.mark.parametrize("back", [False, True], ids=["forward", "back"])
async def test_a_service_that_gets_another_number_after_the_shift_is_no_success(back: bool) -> None:  # noqa: FBT001 -- a parameter
    """The slices stay as they are, and every request to the old number fails."""
    run = Simulation(plan(SHIFT), put=put())
    await shifted(run)
    change_ports(run, OLD if back else NEW, HTTP | {"port": 8000})
    if not back:
        run.request(RequestVerb.APPROVE, "end")
        assert await run.run() is Phase.ROLLED_BACK
        assert "shop-v2 carries traffic, and host shop-v2: Service shop-v2 has no port 80" in failure(run)
        return
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert weight_of_new(run) == 100, "the traffic stays where it is answered"
    assert "traffic cannot be switched back yet: host shop-v1: Service shop-v1 has no port 80" in run.status.message
    change_ports(run, OLD, HTTP)
    assert await run.run() is Phase.ROLLED_BACK
    assert weight_of_new(run) == 0


async def test_of_several_ports_one_has_to_be_named() -> None:
    run = Simulation(plan(SHIFT), put=put(ports=(HTTP, STATUS), routes=virtual(None, None)))
    assert (
        "steps[shift].traffic.to: VirtualService shop names no port of shop-v2, and its Service has 80 (http) and 81 (status), so "
        "Istio takes the number of the port at which a request comes in; name the one that is meant (destination.port)"
    ) in await started(run)


async def test_a_port_for_udp_is_one_of_several_too() -> None:
    """Istio counts it, and then looks for a port of the number at which the request came in."""
    dns = {"name": "dns", "port": 53, "protocol": "UDP"}
    run = Simulation(plan(SHIFT), put=put(ports=(HTTP, dns), routes=virtual(None, None)))
    assert "its Service has 80 (http) and 53 (dns), so Istio takes the number of the port" in await started(run)


async def test_a_port_at_which_the_old_side_answers_nothing_either_is_not_meant() -> None:
    unused = {"name": "debug", "port": 9090, "targetPort": "debug"}
    run = Simulation(plan(SHIFT), put=put(ports=(HTTP, unused), routes=virtual(None, None)))
    assert "names no port of shop-v2, and its Service has 80 (http) and 9090 (debug)" in await started(run)
    run.request(RequestVerb.APPROVE, "ok")
    await until_approval(run, "end")
    assert weight_of_new(run) == 100
    rename_ports(run, V2, "web")
    await run.until(lambda: run.status.failure is not None)
    assert "shop-v2 carries traffic and has no ready endpoint at port 80" in failure(run)


async def test_a_port_that_the_old_side_answers_at_may_be_meant() -> None:
    status = {"name": "status", "port": 9090, "targetPort": "status"}
    run = Simulation(plan(SHIFT), put=put(("http", "status"), ("http",), (HTTP, status), virtual(None, None)))
    assert await run.run() is Phase.REFUSED
    assert "Service shop-v2 sends requests for port 9090 to the port status of its pods" in run.status.message
    assert "or name the port that is meant in the route (destination.port)" in run.status.message


@pytest.mark.parametrize(("gateways", "told"), [([], True), (["mesh", "edge"], True), (["edge"], False)])
async def test_sidecars_do_not_balance_a_service_without_an_address(gateways: list[str], told: bool) -> None:  # noqa: FBT001 -- a parameter
    """Istio makes it a cluster that goes to where the client wanted (`convertResolution`); at a gateway it balances."""
    kind, body = virtual(80, 80)
    body["spec"]["gateways"] = gateways

    def filled(cluster: MemoryCluster) -> None:
        put(routes=(kind, body))(cluster)
        headless = copy.deepcopy(cluster.objects[NEW])
        headless["spec"]["clusterIP"] = "None"
        cluster.put(SERVICES, headless)

    says = (
        "steps[shift].traffic.to: Service shop-v2 has no address of its own (clusterIP: None), so a sidecar sends requests for shop-v2 "
        "to the address that its client has called, regardless of the weights; give it one, or use it behind a gateway only"
    )
    assert (says in await started(Simulation(plan(SHIFT), put=filled))) is told


# --- the port of the pods ---------------------------------------------------------------------------------------------


LACK = (
    "Service shop-v2 sends requests for port 80 to the port http of its pods, and no container of Deployment shop-v2 has a port of "
    "that name (they have web), so shop-v2 would answer none of them; name that port in the containers, or make it a number in "
    "the Service (targetPort)"
)


async def test_new_pods_that_lack_the_port_are_refused() -> None:
    run = Simulation(plan(SHIFT), put=put(new=("web",)))
    assert await run.run() is Phase.REFUSED
    assert f"steps[shift].traffic.to: {LACK}" in run.status.message


PATCH = "{{template: {{spec: {{containers: [{{name: app, ports: {}}}]}}}}}}"


@pytest.mark.parametrize(
    ("now", "then", "told"),
    [
        ("web", "[{$patch: replace}, {name: http, containerPort: 8080}]", False),
        ("http", "[{$patch: replace}, {name: web, containerPort: 8080}]", True),
    ],
    ids=["adds it", "takes it away"],
)
async def test_a_deploy_before_the_shift_is_reckoned_with(now: str, then: str, told: bool) -> None:  # noqa: FBT001 -- a parameter
    body = plan(SHIFT)
    deploy = {"workload": {"name": "shop-v2"}, "patch": PATCH.format(then)}
    body["spec"]["steps"].insert(0, {"name": "v2", "deploy": deploy})
    run = Simulation(body, put=put(new=(now,)))
    assert (LACK in await started(run)) is told


async def test_pods_that_may_get_the_port_as_they_are_created_are_told_of() -> None:
    """No pod shows what an injector makes of the template."""
    assert f"steps[shift].traffic.to: {LACK}" in await started(Simulation(plan(SHIFT), put=put(new=("web",), pods=0)))


async def test_pods_without_the_port_get_no_weight() -> None:
    run = Simulation(plan(SHIFT), put=put(new=("web",), pods=0))
    await until_approval(run, "ok")
    scale = copy.deepcopy(run.cluster.objects[V2])
    scale["spec"]["replicas"] = 3
    run.cluster.put(DEPLOYMENTS, scale)
    react(run.cluster)
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert (
        "weight 50 waits: shop-v2 has 0 ready endpoints at port 80 (3 more have no port http) and needs 2"
        in failure(run)
    )
    assert ("spec", ROUTES) not in run.cluster.effects, "no weight was written"


async def test_pods_that_lose_the_port_afterwards_are_a_side_without_endpoints() -> None:
    run = Simulation(plan(SHIFT), put=put())
    await shifted(run)
    begun = run.clock.now()
    rename_ports(run, V2, "web")
    await run.until(lambda: weight_of_new(run) == 0)
    assert run.clock.now() - begun < timedelta(seconds=5)
    assert (
        failure(run)
        == "shop-v2 carries traffic and has no ready endpoint at port 80 (3 more have no port http), for 2s"
    )
    assert await run.run() is Phase.ROLLED_BACK


async def test_no_traffic_goes_back_to_pods_without_the_port() -> None:
    run = Simulation(plan(SHIFT), put=put())
    await shifted(run)
    rename_ports(run, V1, "web")
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert weight_of_new(run) == 100
    assert "shop-v1 has 0 ready endpoints at port 80 (3 more have no port http) and needs 2" in run.status.message
    rename_ports(run, V1, "http")
    assert await run.run() is Phase.ROLLED_BACK


async def test_each_route_of_a_side_counts_at_its_port() -> None:
    """One write shifts both routes, and the new pods have the port of one of them only."""
    body = virtual(80, 80)[1]
    pair = [
        {"destination": {"host": f"shop-{of}", "port": {"number": 5432}}, "weight": of_all}
        for of, of_all in (("v1", 100), ("v2", 0))
    ]
    body["spec"]["tcp"] = [{"match": [{"port": 5432}], "route": pair}]
    spec = SHIFT.replace("{name: shop}", "{name: shop, routes: [primary], tcp: [5432]}")
    db = {"name": "db", "port": 5432, "targetPort": "db"}
    run = Simulation(plan(spec), put=put(("http", "db"), ("http", "db"), (HTTP, db), (VIRTUAL_SERVICES, body)))
    await until_approval(run, "ok")
    rename_ports(run, V2, "http")
    run.request(RequestVerb.APPROVE, "ok")
    assert await run.run() is Phase.ROLLED_BACK
    assert "shop-v2 has 0 ready endpoints at port 5432 (3 more have no port db) and needs 2" in failure(run)


async def test_a_snapshot_of_an_older_release_asks_for_no_port() -> None:
    run = Simulation(plan(SHIFT), put=put())
    await shifted(run)
    for body in list(run.cluster.objects.values()):
        if "fields" in (body.get("data") or {}):
            for side in ("from", "to"):
                for key in ("ports", "asked", "headless"):
                    del body["data"]["facts"][side][key]
    run.restart()
    rename_ports(run, V1, "web")
    run.request(RequestVerb.ABORT)
    assert await run.run() is Phase.ROLLED_BACK


# --- switch -----------------------------------------------------------------------------------------------------------


SWITCH = """
startDeadline: 1s
steps:
  - {name: ok, approve: {message: go}}
  - {name: turn, timeout: 20s, switch: {service: front, selector: {app: shop-v2}}}
  - {name: end, approve: {message: go}}
"""


def with_a_front(new: str) -> Any:
    def filled(cluster: MemoryCluster) -> None:
        put(new=(new,))(cluster)
        cluster.delete(ROUTES)
        cluster.put(SERVICES, service("front", {"app": "shop-v1"}, dict(HTTP)))
        react(cluster)

    return filled


async def test_a_switch_to_pods_that_lack_the_port_is_refused() -> None:
    run = Simulation(plan(SWITCH), put=with_a_front("web"))
    assert await run.run() is Phase.REFUSED
    says = LACK.replace("Service shop-v2", "Service front").replace("so shop-v2", "so the pods with app=shop-v2")
    assert f"steps[turn].switch.selector: {says}" in run.status.message


async def test_a_service_whose_pods_lose_the_port_after_the_switch_is_switched_back() -> None:
    run = Simulation(plan(SWITCH), put=with_a_front("http"))
    await until_approval(run, "ok")
    run.request(RequestVerb.APPROVE, "ok")
    await until_approval(run, "end")
    rename_ports(run, V2, "web")
    assert await run.run() is Phase.ROLLED_BACK
    assert (
        failure(run)
        == "Service front carries traffic and has no ready endpoint at port 80 (3 more have no port http), for 2s"
    )
