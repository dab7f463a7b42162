"""What stands behind a destination, and how many of its endpoints would be given a request at the port that it means."""

from __future__ import annotations

from typing import Any

import pytest

from cutover.field_path import Json
from cutover.objects.endpoints import Side, resolve
from cutover.objects.serving import Count, count
from cutover.ports import DESTINATION_RULES, ENDPOINT_SLICES, PODS, SERVICES, WORKLOAD_ENTRIES
from cutover.testing import MemoryCluster
from cutover.testing.controllers import name_endpoints
from support.fakes.shop import service

HOST = "shop.shop.svc.cluster.local"
HTTP, STATUS = {"name": "http", "port": 80, "targetPort": "http"}, {"name": "status", "port": 81, "targetPort": 8081}


def cluster(selector: dict[str, str] | None, *ports: dict[str, Any], **spec: Any) -> MemoryCluster:
    """A Service, and two definitions of one subset of it."""
    made = MemoryCluster()
    body = service("shop", selector or {}, *ports)
    made.put(SERVICES, {**body, "spec": body["spec"] | {"selector": selector} | spec})
    for name, version in (("a", "2"), ("b", "3")):
        subset = {"name": "new", "labels": {"version": version}}
        made.put(DESTINATION_RULES, {"metadata": {"name": name}, "spec": {"host": HOST, "subsets": [subset]}})
    return made


def pods(of_shop: MemoryCluster, *named: str, version: str = "2") -> None:
    """A ready pod for each of these names of a port; empty: it names none."""
    for number, name in enumerate(named):
        ports = [{"name": name, "containerPort": 8080}] if name else []
        body = {
            "metadata": {"name": f"p{version}{number}", "labels": {"app": "shop", "version": version}},
            "spec": {"containers": [{"name": "app", "ports": ports}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }
        of_shop.put(PODS, body)
    name_endpoints(of_shop)


async def counted(of_shop: MemoryCluster, *numbers: int | None, subset: str | None = None) -> Count:
    side = await resolve(of_shop, "shop", "shop", subset, numbers)
    assert isinstance(side, Side), side
    (found,) = await count(of_shop, "shop", side)
    return found


# --- what it is -------------------------------------------------------------------------------------------------------


async def test_a_subset_is_what_the_service_selects_and_its_labels_narrow() -> None:
    side = await resolve(cluster({"app": "shop"}), "shop", "shop", "new")
    assert side == Side("shop", {"app": "shop", "version": "2"}, subset=True), "of two as old the first by name counts"


async def test_what_is_missing_is_named() -> None:
    of_shop = cluster({"app": "shop"})
    assert "define it" in str(await resolve(of_shop, "shop", "shop", "old"))
    assert "there is no Service till; create it" in str(await resolve(of_shop, "shop", "till", None))
    assert "is not a Service of namespace shop" in str(
        await resolve(of_shop, "shop", "shop.other.svc.cluster.local", None)
    )


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        ((HTTP, STATUS), "has no port 8080, which the route names, but 80 (http) and 81 (status)"),
        (({"port": 80},), "has no port 8080, which the route names, but 80"),
        (({"port": 8080, "protocol": "UDP"},), "has no port 8080, which the route names, nor any other for TCP"),
    ],
)
async def test_a_port_that_the_service_lacks_is_named_with_those_that_it_has(ports: Any, says: str) -> None:
    assert await resolve(cluster({"app": "shop"}, *ports), "shop", "shop", None, [8080]) == (
        f"host shop: Service shop {says}, so every one of those requests would fail; name another port in the route, or "
        "add 8080 to the Service"
    )


async def test_a_service_that_stands_for_another_host_is_refused() -> None:
    of_shop = cluster({"app": "shop"}, type="ExternalName", externalName="shop.example")
    assert await resolve(of_shop, "shop", "shop", None, [80]) == (
        "host shop: Service shop has no endpoints of its own, it stands for shop.example (type ExternalName); "
        "name a Service that has some"
    )


# --- how many would answer there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("subset", [None, "new"])
async def test_only_endpoints_that_have_the_port_count(subset: str | None) -> None:
    """By EndpointSlices, and of a subset by its pods."""
    of_shop = cluster({"app": "shop"}, HTTP, STATUS)
    pods(of_shop, "http", "web", "")
    assert str(await counted(of_shop, 80, subset=subset)) == "1 ready endpoint at port 80 (2 more have no port http)"
    assert str(await counted(of_shop, 81, subset=subset)) == "3 ready endpoints", "a number needs no name"
    assert (
        str(await counted(of_shop, 81, 80, subset=subset)) == "1 ready endpoint at port 80 (2 more have no port http)"
    )


async def test_a_port_of_another_protocol_is_another_one() -> None:
    of_shop = cluster({"app": "shop"}, HTTP)
    ports = [{"name": "http", "containerPort": 8080, "protocol": "UDP"}]
    pods(of_shop, "http", "http")
    of_shop.put(
        PODS,
        of_shop.objects[next(ref for ref in of_shop.objects if ref.name == "p20")]
        | {"spec": {"containers": [{"name": "app", "ports": ports}]}},
    )
    name_endpoints(of_shop)
    assert [(await counted(of_shop, 80, subset=subset)).total for subset in (None, "new")] == [1, 1]


async def test_where_the_route_names_no_port_the_only_one_is_meant_and_of_several_each() -> None:
    """Of several Istio takes the one at which the request came in."""
    one = cluster({"app": "shop"}, HTTP)
    pods(one, "http", "")
    assert (await counted(one, None)).total == 1
    several = cluster(
        {"app": "shop"}, HTTP, STATUS, {"name": "dns", "port": 53, "targetPort": "dns", "protocol": "UDP"}
    )
    pods(several, "http", "")
    assert (await counted(several, None)).total == 1


async def test_endpoints_that_somebody_has_set_count_at_their_ports() -> None:
    """Of a Service without a selector, as Istio has them; no workload is behind it."""
    of_shop = cluster(None, HTTP, STATUS)
    labels = {"kubernetes.io/service-name": "shop"}
    for name, family, port in (("a", "IPv4", "http"), ("b", "IPv4", "status"), ("c", "FQDN", "http")):
        part: Json = {"addresses": [f"192.0.2.{ord(name)}"], "conditions": {}}
        body = {"addressType": family, "ports": [{"name": port, "port": 8080}], "endpoints": [part]}
        of_shop.put(ENDPOINT_SLICES, {"metadata": {"name": name, "labels": labels}, **body})
    assert (await counted(of_shop, 80)).total == 1
    assert await resolve(of_shop, "shop", "shop", "new", [80]) == (
        "host shop: Service shop has no selector, so nobody can tell which of its endpoints are subset new; add one"
    )


ENTRY = {"address": "192.0.2.7", "labels": {"app": "shop"}, "ports": {"http": 8080}}
HEALTH = {"annotations": {"proxy.istio.io/health-checks-enabled": "true"}}


@pytest.mark.parametrize(
    ("spec", "metadata", "conditions", "at"),
    [
        (ENTRY, {}, [], [1, 1]),
        (ENTRY | {"ports": {"web": 8080}}, {}, [], [0, 1]),
        ({"address": "192.0.2.7", "labels": {"app": "shop"}}, {}, [], [0, 1]),
        (ENTRY | {"labels": {}}, {"labels": {"app": "shop"}}, [], [1, 1]),
        (ENTRY, {"labels": {"app": "till"}}, [], [0, 0]),
        (ENTRY | {"address": "shop.example"}, {}, [], [0, 0]),
        (ENTRY | {"address": "unix:///shop"}, {}, [], [0, 0]),
        (ENTRY, HEALTH, [], [0, 0]),
        (ENTRY, HEALTH, [{"type": "Healthy", "status": "False"}], [0, 0]),
        (ENTRY, HEALTH, [{"type": "Healthy", "status": "True"}], [1, 1]),
    ],
    ids=[
        "served",
        "another name",
        "no ports",
        "labels of its own",
        "which win",
        "a host",
        "a socket",
        "unproved",
        "ill",
        "well",
    ],
)
async def test_workload_entries_count_as_istio_reads_them(
    spec: Any, metadata: Any, conditions: Any, at: list[int]
) -> None:
    of_shop = cluster({"app": "shop"}, HTTP, STATUS)
    of_shop.put(
        WORKLOAD_ENTRIES, {"metadata": {"name": "a", **metadata}, "spec": spec, "status": {"conditions": conditions}}
    )
    assert [(await counted(of_shop, number)).total for number in (80, 81)] == at
    headless = cluster({"app": "shop"}, HTTP, STATUS, clusterIP="None")
    headless.put(WORKLOAD_ENTRIES, {"metadata": {"name": "a"}, "spec": ENTRY})
    assert (await counted(headless, 81)).total == 0, "Istio adds none to a Service without an address"
