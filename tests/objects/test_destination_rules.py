"""Which DestinationRule counts: the table that `cluster/test_destination_rules.py` asks istiod, and what is told of a subset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cutover.field_path import Json
from cutover.objects.destination_rules import Client, DestinationRules, hashed_by
from cutover.objects.endpoints import Side, resolve
from cutover.objects.hosts import same, service_of
from cutover.objects.outlines import outline
from cutover.ports import DESTINATION_RULES, SERVICES
from cutover.testing import MemoryCluster
from support.plans.destination_rules import ROWS, Row

HOST = "both.shop.svc.cluster.local"


def bodies(row: Row) -> list[Json]:
    """As the API server has them."""
    made = [(rule.manifest("shop"), rule.later) for rule in row.rules]
    for body, later in made:
        body["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:0{int(later)}Z"
    return [body for body, _ in made]


@pytest.mark.parametrize("reverse", [False, True], ids=["as-given", "reversed"])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_the_order_is_that_of_the_table(row: Row, reverse: bool) -> None:  # noqa: FBT001 -- a parameter
    """Whatever the order in which the rules are listed, and of outlines as of whole rules."""
    given = bodies(row)[:: -1 if reverse else 1]
    for some in (given, [outline(DESTINATION_RULES, body) for body in given]):
        rules = DestinationRules(some, HOST, "shop")
        for (place, labels), known in row.known:
            client = Client(place.replace("NS", "shop"), labels)
            rule = rules.counting(client)
            told = {subset: rule.labels(subset) for subset in rule.subsets} if rule else {}
            assert told == {subset: {"version": version} for subset, version in known.items()}, client


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
def test_each_client_of_the_table_that_sees_something_else_is_among_those_that_are_told_apart(row: Row) -> None:
    rules = DestinationRules(bodies(row), HOST, "shop")
    told = [rules.counting(client) for client in rules.clients(["mesh", "istio-system/gateway"])]
    for (place, labels), _ in row.known:
        assert rules.counting(Client(place.replace("NS", "shop"), labels)) in told


def test_the_namespaces_of_gateways_and_of_rules() -> None:
    (row,) = (row for row in ROWS if row.what == "dr-selector")
    rules = DestinationRules(bodies(row), HOST, "shop")
    home = [Client("shop"), Client("shop", {"app": "web"}), Client("")]
    assert list(rules.clients()) == home
    assert list(rules.clients(["shop/gateway"])) == home
    assert list(rules.clients(["far/gateway"])) == [Client("")]


def with_rules(*rules: tuple[str, str, dict[str, Any]]) -> MemoryCluster:
    """The Service `both`, and rules by name and namespace."""
    made = MemoryCluster()
    ports = [{"name": "http", "port": 80}]
    made.put(SERVICES, {"metadata": {"name": "both"}, "spec": {"selector": {"app": "both"}, "ports": ports}})
    for name, namespace, spec in rules:
        made.put(DESTINATION_RULES, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
    return made


V1 = [{"name": "v1", "labels": {"version": "v1"}}]


@pytest.mark.parametrize(
    "rule",
    [
        ("all", "shop", {"host": "*.shop.svc.cluster.local", "subsets": V1}),
        ("all", "shop", {"host": "*.local", "subsets": V1}),
        ("all", "istio-system", {"host": "*.shop.svc.cluster.local", "subsets": V1}),
        ("of-clients", "web", {"host": HOST, "subsets": V1}),
        ("some", "shop", {"host": "both", "workloadSelector": {"matchLabels": {"app": "web"}}, "subsets": V1}),
    ],
    ids=["wildcard", "long-wildcard", "root", "of-clients", "selector"],
)
async def test_a_subset_that_istio_serves_is_found(rule: tuple[str, str, dict[str, Any]]) -> None:
    side = await resolve(with_rules(rule), "shop", "both", "v1")
    assert isinstance(side, Side), side
    assert (side.selector, side.subset) == ({"app": "both", "version": "v1"}, True)


async def test_a_subset_that_another_rule_takes_away_is_told_with_both() -> None:
    policy = ("policy", "shop", {"host": "both", "trafficPolicy": {"tls": {"mode": "DISABLE"}}})
    cluster = with_rules(("all", "shop", {"host": "*.local", "subsets": V1}), policy)
    assert await resolve(cluster, "shop", "both", "v1") == (
        "subset v1 of host both is in DestinationRule all, but DestinationRule policy counts for it and does not define it; "
        "define it there"
    )


async def test_of_rules_that_are_not_seen_it_is_said_that_they_are_not() -> None:
    cluster = with_rules()
    cluster.everywhere = False
    assert await resolve(cluster, "shop", "both", "v1") == (
        "subset v1 of host both is in no DestinationRule of namespace shop, and the operator sees those of no other namespace; "
        "define it"
    )


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("both", "both"),
        ("both.shop.svc.cluster.local", "both"),
        ("both.shop.svc.corp.example", "both"),
        ("both.shop.svc.clusterset.local", ""),
        ("both.shop.svc", ""),
        ("both.shop", ""),
        ("both.other.svc.corp.example", ""),
    ],
)
def test_a_service_in_any_cluster_domain(host: str, name: str) -> None:
    assert service_of(host, "shop") == name


def test_hosts_that_are_the_same() -> None:
    assert same("both", "both.shop.svc.corp.example", "shop")
    assert same("both", "both.shop.svc.cluster.local", "shop")
    assert not same("both.shop.svc.cluster.local", "both.shop.svc.corp.example", "shop")
    assert not same("both", "till.shop.svc.corp.example", "shop")


HASH = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}


@pytest.mark.parametrize(
    ("spec", "port", "field"),
    [
        ({"trafficPolicy": HASH}, None, "spec.trafficPolicy.loadBalancer.consistentHash"),
        (
            {"subsets": [{"name": "v1", "trafficPolicy": HASH}]},
            None,
            "spec.subsets[v1].trafficPolicy.loadBalancer.consistentHash",
        ),
        (
            {"trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, **HASH}]}},
            80,
            "spec.trafficPolicy.portLevelSettings.loadBalancer.consistentHash",
        ),
        ({"trafficPolicy": {"portLevelSettings": [{"port": {"number": 80}, **HASH}]}}, None, ""),
        ({"trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}}, None, ""),
    ],
)
def test_the_field_by_which_users_are_kept_on_pods(spec: dict[str, Any], port: int | None, field: str) -> None:
    body = {"metadata": {"name": "both", "namespace": "shop"}, "spec": {"host": "both", **spec}}
    rule = DestinationRules([body], HOST, "shop").counting(Client("shop"))
    assert rule is not None
    assert hashed_by(rule, "v1", port) == field


def test_the_documentation_has_the_same_rows(root: Path) -> None:
    rows = [line for line in (root / "docs/routing.md").read_text().splitlines() if line.startswith("| `dr-")]
    named = [name for line in rows for name in re.findall(r"`([a-z-]+)`", line.split("|")[1])]
    assert sorted(named) == sorted(row.what for row in ROWS)
