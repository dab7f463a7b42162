"""What the DestinationRules of the cluster make of a shift: told before the first step, or refused where requests would fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from cutover.ports import DESTINATION_RULES, ISTIO_GATEWAYS, PODS, SERVICES, VIRTUAL_SERVICES, Ref, Resource
from cutover.status.requests import RequestVerb
from cutover.status.status import Phase
from cutover.testing import MemoryCluster
from support.fakes.shop import ROUTES, plan, shop
from support.fakes.simulation import Simulation

SUBSETS = [{"name": name, "labels": {"version": name}} for name in ("v1", "v2")]
HASH = {"loadBalancer": {"consistentHash": {"httpHeaderName": "x-user"}}}
SHIFT = """
steps:
  - name: shift
    traffic: {virtualService: {name: shop}, from: {host: shop, subset: v1}, to: {host: shop, subset: v2}, weights: [50, 100]}
"""
HOSTS = SHIFT.replace("host: shop, subset: ", "host: shop-")

Rule = tuple[str, str, dict[str, Any]]
ALL: Rule = ("all", "shop", {"host": "*.shop.svc.cluster.local", "subsets": SUBSETS})


def subsets(*rules: Rule, gateways: tuple[str, ...] = (), host: str = "shop") -> Callable[[MemoryCluster], None]:
    """The shop as two subsets of one Service, which these rules define."""

    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = copy.deepcopy(cluster.objects[ROUTES])
        body["spec"]["http"][0]["route"] = [
            {"destination": {"host": host, "subset": "v1"}, "weight": 100},
            {"destination": {"host": host, "subset": "v2"}, "weight": 0},
        ]
        if gateways:
            body["spec"]["gateways"] = [*gateways]
        cluster.put(VIRTUAL_SERVICES, body)
        cluster.put(
            SERVICES, {"metadata": {"name": "shop"}, "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80}]}}
        )
        for name, namespace, spec in rules:
            cluster.put(DESTINATION_RULES, {"metadata": {"name": name, "namespace": namespace}, "spec": spec})
        for number, version in enumerate(("v1", "v1", "v2", "v2")):
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            labels = {"app": "shop", "version": version}
            cluster.put(PODS, {"metadata": {"name": f"p{number}", "labels": labels}, "status": ready})

    return put


def started(run: Simulation) -> str:
    """The warnings of its beginning."""
    return next(one.message for one in run.recorder.notices if one.reason == "Started").partition("warnings: ")[2]


async def test_subsets_of_a_wildcard_are_shifted() -> None:
    run = Simulation(plan(SHIFT), put=subsets(ALL))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert started(run) == ""


async def test_subsets_that_a_policy_of_the_host_takes_away_are_refused() -> None:
    run = Simulation(plan(SHIFT), put=subsets(ALL, ("policy", "shop", {"host": "shop", "trafficPolicy": {"tls": {}}})))
    assert await run.run() is Phase.REFUSED
    for side, subset in (("from", "v1"), ("to", "v2")):
        assert (
            f"steps[shift].traffic.{side}: subset {subset} of host shop is in DestinationRule all, but DestinationRule policy counts "
            "for it and does not define it; define it there"
        ) in run.status.message


async def test_clients_that_a_selector_takes_them_from_are_named() -> None:
    web = ("web", "shop", {"host": "shop", "workloadSelector": {"matchLabels": {"app": "web"}}, "trafficPolicy": {}})
    run = Simulation(plan(SHIFT), put=subsets(("shop", "shop", {"host": "shop", "subsets": SUBSETS}), web))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert started(run) == "; ".join(
        f"steps[shift].traffic: clients of namespace shop with label app=web know no subset {subset} of host shop "
        "(DestinationRule web counts for them): their requests to it fail; define it there"
        for subset in ("v1", "v2")
    )


async def test_rules_that_only_count_in_the_root_namespace_are_told_to_rest_on_the_mesh_config() -> None:
    root = ("root", "istio-system", {"host": "*.local", "subsets": SUBSETS})
    run = Simulation(plan(SHIFT), put=subsets(root))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert (
        "subset v1 of host shop is defined by a DestinationRule of another namespace, which counts for all namespaces only where "
        "istio-system is the root namespace of the mesh (rootNamespace of its config)"
    ) in started(run)


@pytest.mark.parametrize("named", [False, True])
async def test_a_rule_of_another_namespace_is_named_to_who_may_get_it(named: bool) -> None:  # noqa: FBT001 -- a parameter
    far = ("far", "web", {"host": "shop.shop.svc.cluster.local", "trafficPolicy": {}})
    run = Simulation(plan(SHIFT), put=subsets(ALL, far))
    if named:
        run.cluster.readable.add(Ref(DESTINATION_RULES, "web", "far"))
    assert await run.run() is Phase.SUCCEEDED, run.status
    said = started(run)
    assert ("clients of namespace web know no subset v1" in said) is named
    assert ("(DestinationRule far of namespace web counts for them)" in said) is named
    assert ("clients of another namespace know no subset v1" in said) is not named
    assert ("far" in said) is named


async def test_a_gateway_that_no_rule_reaches_is_refused() -> None:
    private = ("own", "shop", {"host": "shop", "subsets": SUBSETS, "exportTo": ["."]})
    run = Simulation(plan(SHIFT), put=subsets(private, gateways=("web/gateway",)))
    assert await run.run() is Phase.REFUSED
    assert (
        "steps[shift].traffic: no DestinationRule that counts defines subset v1 of host shop of route primary, asked by any client: "
        "its requests fail; define it"
    ) in run.status.message
    for own in ("gateway", "./gateway", "shop/gateway"):
        run = Simulation(plan(SHIFT), put=subsets(private, gateways=(own,)))
        assert await run.run() is Phase.SUCCEEDED, run.status


async def test_what_cannot_be_seen_is_told_once() -> None:
    run = Simulation(plan(SHIFT), put=subsets(ALL))
    run.cluster.everywhere = False
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert started(run).count("the operator watches some namespaces only, so DestinationRules") == 1


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (DESTINATION_RULES, "the operator could not list DestinationRules of all namespaces"),
        (VIRTUAL_SERVICES, "the operator could not list virtualservices and gateways of all namespaces"),
        (ISTIO_GATEWAYS, "the operator could not list virtualservices and gateways of all namespaces"),
    ],
)
async def test_what_could_not_be_read_is_not_said_to_be_out_of_sight(kind: Resource, says: str) -> None:
    run = Simulation(plan(SHIFT), put=subsets(ALL))
    run.cluster.denied.add(("list", Ref(kind, "", "")))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert says in started(run)
    assert "watches some namespaces" not in started(run)


async def test_another_cluster_domain_is_shifted_and_told() -> None:
    host = "shop.shop.svc.corp.example"
    rule = ("all", "shop", {"host": "*.shop.svc.corp.example", "subsets": SUBSETS})
    run = Simulation(plan(SHIFT.replace("host: shop,", f"host: {host},")), put=subsets(rule, host=host))
    assert await run.run() is Phase.SUCCEEDED, run.status
    assert started(run).startswith(
        f"steps[shift].traffic: host {host} of route primary is of cluster domain corp.example: requests reach it only where that is "
        "the domain of the mesh"
    )


# --- later ------------------------------------------------------------------------------------------------------------

STAYS = SHIFT.replace("weights", "dwell: 1m, weights") + "  - {name: end, approve: {message: go}}\n"
POLICY = {"metadata": {"name": "policy", "namespace": "shop"}, "spec": {"host": "shop", "trafficPolicy": {}}}


def with_labels(run: Simulation, **labels: str) -> None:
    """The subsets have these values of the label `version`; none: there is no such subset."""
    body = copy.deepcopy(run.cluster.objects[Ref(DESTINATION_RULES, "shop", "all")])
    body["spec"]["subsets"] = [{"name": name, "labels": {"version": value}} for name, value in labels.items()]
    run.cluster.put(DESTINATION_RULES, body)


async def until_weight(run: Simulation, weight: int) -> None:
    def there() -> bool:
        (_, new) = run.cluster.objects[ROUTES]["spec"]["http"][0]["route"]
        return bool(new.get("weight") == weight) and (weight < 100 or run.phase is Phase.WAITING)

    await run.until(there)


@pytest.mark.parametrize("weight", [50, 100])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: run.cluster.put(DESTINATION_RULES, POLICY), "but DestinationRule policy counts for it"),
        (lambda run: with_labels(run, v1="v1"), "subset v2 of host shop is in no DestinationRule of namespace shop"),
        (lambda run: with_labels(run, v1="v1", v2="v3"), "shop subset v2 carries traffic and has no ready endpoint"),
    ],
    ids=["taken away", "gone", "of other pods"],
)
async def test_a_subset_that_is_lost_meanwhile_is_no_success(
    change: Callable[[Simulation], object], says: str, weight: int
) -> None:
    """Every request to it fails then, though all its former pods are ready."""
    run = Simulation(plan(STAYS), put=subsets(ALL))
    await until_weight(run, weight)
    change(run)
    if weight == 100:
        run.request(RequestVerb.APPROVE, "end")
    await run.until(lambda: run.status.failure is not None)
    assert run.status.failure is not None
    assert run.status.failure.reason == "SideNotReady"
    assert says in run.status.failure.message
    if "policy" in says:
        await run.until(lambda: run.phase is Phase.STUCK)
        assert "cannot be switched back" in run.status.message or "only 50%" in run.status.message
        run.cluster.delete(Ref(DESTINATION_RULES, "shop", "policy"))
    assert await run.run() is Phase.ROLLED_BACK
    assert run.specs()[ROUTES] == run.specs_before()[ROUTES]


async def test_the_subset_of_the_old_side_is_not_needed_once_all_has_moved() -> None:
    run = Simulation(plan(STAYS), put=subsets(ALL))
    await until_weight(run, 100)
    with_labels(run, v2="v2")
    run.request(RequestVerb.APPROVE, "end")
    assert await run.run() is Phase.SUCCEEDED, run.status


async def test_no_traffic_goes_back_to_a_subset_that_is_gone() -> None:
    run = Simulation(plan(STAYS), put=subsets(ALL))
    await until_weight(run, 100)
    with_labels(run, v2="v2")
    run.request(RequestVerb.ABORT)
    await run.until(lambda: run.phase is Phase.STUCK)
    assert run.cluster.objects[ROUTES]["spec"]["http"][0]["route"][1]["weight"] == 100
    assert "traffic cannot be switched back yet: subset v1 of host shop is in no DestinationRule" in run.status.message
    with_labels(run, v1="v1", v2="v2")
    assert await run.run() is Phase.ROLLED_BACK


def hashed(*hosts: str, old: int = 100) -> Callable[[MemoryCluster], None]:
    def put(cluster: MemoryCluster) -> None:
        shop(cluster)
        body = copy.deepcopy(cluster.objects[ROUTES])
        for entry, weight in zip(body["spec"]["http"][0]["route"], (old, 100 - old), strict=True):
            entry["weight"] = weight
        cluster.put(VIRTUAL_SERVICES, body)
        for host in hosts:
            spec = {"host": host, "trafficPolicy": HASH}
            cluster.put(DESTINATION_RULES, {"metadata": {"name": host, "namespace": "shop"}, "spec": spec})

    return put


@pytest.mark.parametrize(
    ("hosts", "old", "moments"),
    [
        (("shop-v1", "shop-v2"), 100, "at the first weight and at weight 100"),
        (("shop-v1", "shop-v2"), 90, "at weight 100"),
        (("shop-v1",), 100, ""),
        (("shop-v2",), 100, ""),
    ],
)
async def test_users_who_come_to_another_pod_are_told_of(hosts: tuple[str, ...], old: int, moments: str) -> None:
    deploy = "\nsteps:\n  - {name: deploy, deploy: {workload: {name: shop-v2}, replicas: 3}}"
    run = Simulation(plan(HOSTS.replace("\nsteps:", deploy)), put=hashed(*hosts, old=old))
    await run.until(lambda: bool(run.recorder.notices))
    said = started(run)
    assert ("consistentHash" in said) is bool(moments)
    if moments:
        assert (
            "DestinationRule shop-v1 keeps users on their pods by spec.trafficPolicy.loadBalancer.consistentHash, and Istio hashes in another way"
        ) in said
        assert f"{moments}, and when they go back, most users who stay on their version come to another pod" in said
